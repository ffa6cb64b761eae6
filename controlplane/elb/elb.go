// Package elb is the Elastic Load Balancing (v2) family: its operations, the routes of service tasks to target groups, and the
// sets that proxies and health checkers follow.
//
// Handlers write records only; listeners are opened by the proxies that follow them (mesh/proxy). Targets are endpoints of the
// mesh, whatever registered them. Records hold names: the DNS name is rendered with the configured domain.
//
// Invariants: a listener's key is the claim to its port, a Priority record the claim to a rule's priority, an Address record
// the claim to a load balancer's own address. A target group that a listener or rule forwards to exists.
package elb

import (
	"context"
	"io"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative controlplane/elb/elb.proto

// Network is what load balancing asks of the virtual network.
type Network interface {
	DefaultVPC(account, region string) string
	VPCExists(account, region, id string) bool
	// Subnet says which availability zone the subnet is in.
	Subnet(account, region, id string) (zone string, ok bool)
	// SecurityGroup says which VPC the group belongs to.
	SecurityGroup(r state.Reader, account, region, id string) (vpc string, ok bool)
	DefaultSecurityGroup(account, region string) string
}

// Config is what the family stands on.
type Config struct {
	Store   *state.Store
	Rand    io.Reader // of identifiers
	Pages   *api.Pages
	Network Network
	// Domain ends the DNS names: "localhost" gives NAME-1234.us-east-1.elb.localhost.
	Domain string
	// Instance is any text of this installation (its data directory's id): own addresses of two on one machine differ.
	Instance string
}

// Service has the family's handlers as methods. It keeps nothing between calls.
type Service struct{ Config }

// New returns the family.
func New(c Config) *Service { return &Service{c} }

func scopeOf(ctx context.Context) controlplane.Scope {
	c := api.CallFrom(ctx)
	return controlplane.Scope{Account: c.Account, Region: c.Region}
}

// view is what reads are answered from: everything acknowledged before the call is in it.
func (s *Service) view(ctx context.Context) (*state.View, controlplane.Scope, error) {
	v, err := s.Store.Linearizable(ctx)
	return v, scopeOf(ctx), err
}

// update runs one transaction; fn may run again after a conflict and has no other effect.
func (s *Service) update(ctx context.Context, fn func(tx *state.Tx, scope controlplane.Scope) error) error {
	scope := scopeOf(ctx)
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error { return fn(tx, scope) })
	return err
}
