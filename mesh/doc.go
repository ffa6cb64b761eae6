// Package mesh keeps the endpoint table: every address that a target group or a discovery service sends to, with its state. It
// is the one source of the proxies' targets, the health checks, DNS answers and DiscoverInstances.
//
// Load balancing and service discovery write endpoints through Register, Withdraw and Remove; health comes in by Health; the
// Drainer, a reconciler, deletes an endpoint once nobody sends to it any more. docs/design/traffic.md has the order in which that is
// decided and why.
//
// Invariants: an endpoint moves INITIAL → HEALTHY ⇄ UNHEALTHY and from anywhere to DRAINING, never back from there; a DRAINING
// endpoint is deleted by the Drainer alone, unless its task is gone.
package mesh

//go:generate protoc -I .. --go_out=.. --go_opt=paths=source_relative mesh/mesh.proto
