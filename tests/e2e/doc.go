// Package e2e drives the built binary from outside, with the clients its users have: the AWS CLI, boto3, docker, curl and Go's
// HTTP client. It holds tests only. Each test starts a platform of its own on free loopback ports, and at its end nothing of
// that platform may be left on the machine.
package e2e
