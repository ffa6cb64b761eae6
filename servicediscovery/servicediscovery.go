// Package servicediscovery is the Cloud Map family: namespaces, services and instances, the registration of tasks with them, and
// the zones that DNS servers follow. Instances are endpoints of the mesh.
//
// Everything happens in the transaction that asks for it; operations are recorded as done, since clients poll them.
package servicediscovery

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
)

//go:generate protoc -I .. --go_out=.. --go_opt=paths=source_relative servicediscovery/servicediscovery.proto

// The tables, written by the operations; Rosters by the Router too. Retention removes old operations.
var (
	Namespaces = state.NewTable("servicediscovery.namespace", func(n *Namespace) state.Key { return state.K(n.Account, n.Region, n.Id) })
	Services   = state.NewTable("servicediscovery.service", func(s *Service) state.Key {
		return state.K(s.Account, s.Region, s.Namespace, s.Name)
	})
	Operations = state.NewTable("servicediscovery.operation", func(o *Operation) state.Key { return state.K(o.Account, o.Region, o.Id) })
	Rosters    = state.NewTable("servicediscovery.roster", func(r *Roster) state.Key {
		return state.K(r.Account, r.Region, r.Service, r.Node)
	})
	// ServicesByID: account, region, id.
	ServicesByID = state.NewIndex(Services, "id", func(s *Service) []state.Key {
		return []state.Key{state.K(s.Account, s.Region, s.Id)}
	})
	// OperationsByAge: time of creation (see controlplane.TimeKey), for retention.
	OperationsByAge = state.NewIndex(Operations, "age", func(o *Operation) []state.Key {
		return []state.Key{state.K(controlplane.TimeKey(o.Created.AsTime()))}
	})
)

// Schema is every table of the family.
var Schema = state.Schema{Namespaces, Services, Operations, Rosters}

// Config is what the family stands on.
type Config struct {
	Store *state.Store
	Rand  io.Reader // of identifiers, and of the order of discovered instances
	Pages *api.Pages
	Clock clock.Clock
	// VPCExists checks the VPC of a private namespace.
	VPCExists func(account, region, id string) bool
}

// Family has the handlers as methods. It keeps nothing between calls.
type Family struct{ Config }

// New returns the family.
func New(c Config) *Family { return &Family{c} }

func (f *Family) update(ctx context.Context, fn func(tx *state.Tx, scope controlplane.Scope) error) error {
	c := api.CallFrom(ctx)
	_, err := f.Store.Update(ctx, func(tx *state.Tx) error { return fn(tx, controlplane.Scope{Account: c.Account, Region: c.Region}) })
	return err
}

func (f *Family) view(ctx context.Context) (*state.View, controlplane.Scope, error) {
	c := api.CallFrom(ctx)
	v, err := f.Store.Linearizable(ctx)
	return v, controlplane.Scope{Account: c.Account, Region: c.Region}, err
}

func invalid(format string, args ...any) error { return awserr.New("InvalidInput", format, args...) }

// notYet refuses clearly what this platform does not do, instead of accepting and ignoring it.
func notYet(format string, args ...any) error {
	return invalid("%s not supported by this platform yet", fmt.Sprintf(format, args...))
}

// once makes an operation idempotent by its CreatorRequestId. work answers with the id that the request made; the same request
// again gets the same id and does nothing. in is the input without its CreatorRequestId.
func once(ctx context.Context, tx *state.Tx, scope controlplane.Scope, token *string, in any, work func() (string, error)) (string, error) {
	c := api.CallFrom(ctx)
	r := controlplane.Request{Scope: scope, Operation: "servicediscovery:" + c.Operation, Token: aws.ToString(token), Hash: controlplane.HashRequest(in)}
	if result, seen, same := r.Earlier(tx, c.Time); seen {
		if !same {
			return "", invalid("The CreatorRequestId '%s' was used before with other parameters", r.Token)
		}
		return result[0], nil
	}
	made, err := work()
	if err != nil {
		return "", err
	}
	r.Remember(tx, c.Time, made)
	return made, nil
}

// ARN names the namespace.
func (n *Namespace) ARN() string {
	return arn.New("servicediscovery", n.Region, n.Account, "namespace/"+n.Id).String()
}

// ARN names the service; instances are endpoints of this group.
func (s *Service) ARN() string {
	return arn.New("servicediscovery", s.Region, s.Account, "service/"+s.Id).String()
}

// idOf is the id that text is, or that an ARN of the scope ends in. An ARN of another account, region or kind names nothing here.
func idOf(scope controlplane.Scope, text *string, kind string) string {
	s := aws.ToString(text)
	if !strings.HasPrefix(s, "arn:") {
		return s
	}
	a, err := arn.Parse(s)
	id, spelled := strings.CutPrefix(a.Resource, kind+"/") // one spelling: policies are held against it
	if err != nil || !spelled || a.Partition != "aws" || a.Service != "servicediscovery" || a.Account != scope.Account || a.Region != scope.Region {
		return ""
	}
	return id
}

func findNamespace(r state.Reader, scope controlplane.Scope, text *string) (*Namespace, error) {
	if id := idOf(scope, text, "namespace"); id != "" {
		if n, ok := Namespaces.Get(r, scope.Key(id)); ok {
			return n, nil
		}
	}
	return nil, awserr.New("NamespaceNotFound", "A namespace with ID '%s' does not exist.", aws.ToString(text))
}

func findService(r state.Reader, scope controlplane.Scope, text *string) (*Service, error) {
	if id := idOf(scope, text, "service"); id != "" {
		for s := range ServicesByID.Scan(r, scope.Key(id)) {
			return s, nil
		}
	}
	return nil, awserr.New("ServiceNotFound", "A service with ID '%s' does not exist.", aws.ToString(text))
}

// ServiceRegistry answers ECS: whether the discovery service exists and whether it answers SRV records.
func (f *Family) ServiceRegistry(r state.Reader, account, region, arn string) (srv, exists bool) {
	s, err := findService(r, controlplane.Scope{Account: account, Region: region}, &arn)
	if err != nil || s.ARN() != arn {
		return false, false
	}
	return s.has("SRV"), true
}

// NamespaceExists answers ECS: whether there is the namespace, which is named by its ARN or its name.
func (f *Family) NamespaceExists(r state.Reader, account, region, ref string) bool {
	for n := range Namespaces.Scan(r, controlplane.Scope{Account: account, Region: region}.Key()) {
		if n.Name == ref || n.ARN() == ref {
			return true
		}
	}
	return false
}

const (
	// operationLife is how long an operation can be asked for: longer than any client polls.
	operationLife = 24 * time.Hour
	cleanEvery    = time.Minute
	cleanStep     = 50 // operations a transaction
)

// Run removes operations whose time has passed whenever this server leads, until ctx ends.
func (f *Family) Run(ctx context.Context) error {
	return f.Store.RunLeader(ctx, func(ctx context.Context) error {
		for ctx.Err() == nil {
			more, err := f.removeOld(ctx)
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("remove old operations of service discovery: %w", err)
			}
			if more {
				continue
			}
			select {
			case <-ctx.Done():
			case <-f.Clock.After(cleanEvery):
			}
		}
		return nil
	})
}

func (f *Family) removeOld(ctx context.Context) (more bool, err error) {
	var old []state.Key
	for o := range OperationsByAge.Scan(f.Store.View(), state.K()) {
		if len(old) == cleanStep || f.Clock.Now().Before(o.Created.AsTime().Add(operationLife)) {
			break
		}
		old = append(old, Operations.Key(o))
	}
	if len(old) == 0 {
		return false, nil
	}
	_, err = f.Store.Update(ctx, func(tx *state.Tx) error {
		for _, k := range old {
			Operations.Delete(tx, k)
		}
		return nil
	})
	return true, err
}
