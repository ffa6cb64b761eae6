// Package agent is the protocol between the control plane and what runs on hosts (agents, proxies, DNS servers); see
// agent.proto. It is all that the two sides share.
package agent

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative --go-grpc_out=../.. --go-grpc_opt=paths=source_relative api/agent/agent.proto

// TaskHeader says, on requests of tasks that an agent passes on to a server, from which address of the host they came. The agent sets it.
const TaskHeader = "Neargate-Task"
