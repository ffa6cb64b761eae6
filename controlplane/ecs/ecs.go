// Package ecs is the ECS family: its operations, over the records of controlplane.
//
// A handler validates, makes one transaction and answers from records. It starts and stops nothing: it writes what is wanted
// (a task, a service and its deployment, a draining instance) and the scheduler, the orchestrator and the
// agents make it so. What ECS defines and this platform does not do yet is refused with the member's name, never dropped; support.go
// is the table of that.
package ecs

import (
	"context"
	"io"
	"reflect"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Config is what the family stands on. Every field is needed: New panics without.
type Config struct {
	Store *state.Store
	Rand  io.Reader // of identifiers
	Pages *api.Pages

	TargetGroups TargetGroups
	Registries   Registries
	Network      Network
	Placer       Placer
	Lifecycle    Lifecycle // the only way by which the family stops a task
	Roles        Roles
	Sessions     Sessions
	// SessionBuckets says that what sessions show can be kept in a bucket: the operator has named a store.
	SessionBuckets bool
}

// TargetGroups is what ECS asks of load balancing.
type TargetGroups interface {
	// ServiceTargetGroup says whether the target group exists, what its targets are ("instance" or "ip"), and whether a
	// load balancer forwards to it.
	ServiceTargetGroup(r state.Reader, account, region, arn string) (targetType string, attached, exists bool)
}

// Registries is what ECS asks of service discovery.
type Registries interface {
	// ServiceRegistry says whether the discovery service exists and whether it answers SRV records, which need a port.
	ServiceRegistry(r state.Reader, account, region, arn string) (srv, exists bool)
	// NamespaceExists says whether there is the namespace, which is named by its ARN or its name.
	NamespaceExists(r state.Reader, account, region, ref string) bool
}

// Network is what ECS asks of the virtual network.
type Network interface {
	Subnet(account, region, id string) (zone string, ok bool)
	SecurityGroup(r state.Reader, account, region, id string) (vpc string, ok bool)
}

// Placer places the tasks of a RunTask on container instances, within the transaction that creates them: ECS creates no
// task there that it can not place.
type Placer interface {
	// PlaceNow places tasks that tx has created, in order, until one finds no place; it says why, instance by instance, and
	// returns the statuses of those before it. A cluster without instances is ErrNoInstances.
	PlaceNow(tx *state.Tx, tasks []*controlplane.Task) (placed []*controlplane.TaskStatus, why []types.Failure, err error)
}

// ErrNoInstances is how ECS answers RunTask in a cluster without container instances.
var ErrNoInstances = invalid("No Container Instances were found in your cluster.")

// Lifecycle takes tasks on their way down.
type Lifecycle interface {
	// Stop asks a task to leave: the traffic first where it has endpoints. It returns the task's new status.
	Stop(tx *state.Tx, task state.Key, stopCode, reason string, planned bool) (*controlplane.TaskStatus, error)
	// Report takes in what the agent of a node says of a task. What comes late is nothing.
	Report(tx *state.Tx, node string, r *agentapi.TaskStatus) error
}

// Service has the family's handlers as methods. It keeps nothing between calls.
type Service struct {
	Config
	decoded atomic.Pointer[decodedDefinition] // the last one: tasks shown one after the other mostly have it in common
}

// New returns the family.
func New(c Config) *Service {
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if v.Field(i).Kind() != reflect.Bool && v.Field(i).IsZero() {
			panic("ecs: Config." + v.Type().Field(i).Name + " is missing")
		}
	}
	return &Service{Config: c}
}

func scopeOf(ctx context.Context) controlplane.Scope {
	c := api.CallFrom(ctx)
	return controlplane.Scope{Account: c.Account, Region: c.Region}
}

// view is what reads are answered from: everything acknowledged before the call is in it.
func (s *Service) view(ctx context.Context) (*state.View, controlplane.Scope, error) {
	v, err := s.Store.Linearizable(ctx)
	return v, scopeOf(ctx), err
}

// update runs one transaction. Handlers take the time from their call and randomness from the service: fn may run again
// after a conflict and has no other effect.
func (s *Service) update(ctx context.Context, fn func(tx *state.Tx, scope controlplane.Scope) error) error {
	scope := scopeOf(ctx)
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error { return fn(tx, scope) })
	return err
}
