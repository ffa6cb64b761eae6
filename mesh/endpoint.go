package mesh

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Endpoints is the table. It is written by the families that register targets, by Health and by the Drainer.
var Endpoints = state.NewTable("mesh.endpoint", func(e *Endpoint) state.Key {
	return state.K(e.Account, e.Region, e.Group, e.Id)
})

// Schema is every table of the mesh.
var Schema = state.Schema{Endpoints}

// The indexes.
var (
	// EndpointsByTask: account, region, cluster, task.
	EndpointsByTask = state.NewIndex(Endpoints, "task", func(e *Endpoint) []state.Key {
		if e.Task == "" {
			return nil
		}
		return []state.Key{state.K(e.Account, e.Region, e.Cluster, e.Task)}
	})
	// DrainingEndpoints: account, region, group.
	DrainingEndpoints = state.NewIndex(Endpoints, "draining", func(e *Endpoint) []state.Key {
		if e.State != agent.EndpointState_ENDPOINT_DRAINING {
			return nil
		}
		return []state.Key{state.K(e.Account, e.Region, e.Group)}
	})
)

// Register puts an endpoint that is not there yet, or is on its way out: then it begins anew, as Elastic Load Balancing
// has it. One that is there and stays is left as it is, with its health.
func Register(tx *state.Tx, e *Endpoint, now time.Time) {
	if old, ok := Endpoints.Get(tx, Endpoints.Key(e)); ok && old.State != agent.EndpointState_ENDPOINT_DRAINING && old.Task == e.Task {
		return
	}
	e.Registered = timestamppb.New(now)
	Endpoints.Put(tx, e)
}

// Withdrawal says how long a leaving endpoint may take.
type Withdrawal struct {
	Delay time.Duration // for requests in flight
	TTL   time.Duration // for answers that DNS servers gave; 0: not waited for
}

// maxTTLWait caps Withdrawal.TTL: a record with a day to live must not hold a task for a day.
const maxTTLWait = 60 * time.Second

// Withdraw begins to drain an endpoint: nobody sends anything new to it.
func Withdraw(tx *state.Tx, key state.Key, w Withdrawal, now time.Time) {
	old, ok := Endpoints.Get(tx, key)
	if !ok || old.State == agent.EndpointState_ENDPOINT_DRAINING {
		return
	}
	e := proto.Clone(old).(*Endpoint)
	e.State = agent.EndpointState_ENDPOINT_DRAINING
	e.Reason, e.Description = "Target.DeregistrationInProgress", "Target deregistration is in progress"
	e.Draining = timestamppb.New(now)
	e.DelaySeconds = uint32(w.Delay / time.Second)
	e.TtlSeconds = uint32(min(w.TTL, maxTTLWait) / time.Second)
	Endpoints.Put(tx, e)
}

// RemoveTask deletes the endpoints of a task that is gone: there is nobody to drain.
func RemoveTask(tx *state.Tx, account, region, cluster, task string, discovery bool) {
	for _, e := range OfTask(tx, account, region, cluster, task, discovery) {
		Endpoints.Delete(tx, Endpoints.Key(e))
	}
}

// OfTask lists a task's endpoints in target groups or, with discovery, in discovery services.
func OfTask(r state.Reader, account, region, cluster, task string, discovery bool) []*Endpoint {
	var out []*Endpoint
	for e := range EndpointsByTask.Scan(r, state.K(account, region, cluster, task)) {
		if e.Discovery == discovery {
			out = append(out, e)
		}
	}
	return out
}

// transition is an endpoint's record after a health report; nil when nothing changes.
func transition(old *Endpoint, t *agent.HealthTransition) *Endpoint {
	if old.State == agent.EndpointState_ENDPOINT_DRAINING || (old.State == t.State && old.Reason == t.ReasonCode && old.Description == t.Description) {
		return nil
	}
	if t.State != agent.EndpointState_ENDPOINT_HEALTHY && t.State != agent.EndpointState_ENDPOINT_UNHEALTHY {
		return nil // the rest is ours to say
	}
	e := proto.Clone(old).(*Endpoint)
	e.State, e.Reason, e.Description = t.State, t.ReasonCode, t.Description
	return e
}
