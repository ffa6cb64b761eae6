// Package controlplane is the domain: clusters, task definitions, services, deployments, tasks, nodes and container
// instances, with their tables. It holds no operations and no reconcilers; those stand in the packages below it and meet
// here, in records.
//
// # The task model
//
// A task is an immutable Task and a small TaskStatus, created and removed together. Desired state is written by operations
// and reconcilers, observed state by the dispatcher from agents' reports; both move only forward through
//
//	PROVISIONING → PENDING → ACTIVATING → RUNNING → DEACTIVATING → STOPPING → DEPROVISIONING → STOPPED
//
// A task has at most one node, for ever. Who wants a task gone withdraws its endpoints and says DEACTIVATING in one
// transaction; when the last endpoint record is gone the orchestrator says STOPPED, and only then does the agent send the
// stop signal. docs/design/task-model.md has the whole of it with its failure cases.
package controlplane

//go:generate protoc -I .. --go_out=.. --go_opt=paths=source_relative controlplane/controlplane.proto
