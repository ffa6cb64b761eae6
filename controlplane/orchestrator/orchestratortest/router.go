// Package orchestratortest has a router to test with: one endpoint for each task of a service, kept in the state, whose health and
// draining the test decides.
package orchestratortest

import (
	"google.golang.org/protobuf/types/known/wrapperspb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Endpoints are "TASK STATE" by task.
var Endpoints = state.NewTable("test.endpoint", func(e *wrapperspb.StringValue) state.Key { return state.K(e.Value[:32]) })

// Router registers the tasks of services that have load balancers.
type Router struct {
	// Refuse makes Register refuse every task.
	Refuse bool
}

// Set says what state the task's endpoint is in.
func Set(tx *state.Tx, taskID string, s agentapi.EndpointState) {
	Endpoints.Put(tx, wrapperspb.String(taskID+" "+s.String()))
}

// State of the task's endpoint; ENDPOINT_UNSPECIFIED without one.
func State(r state.Reader, taskID string) agentapi.EndpointState {
	e, ok := Endpoints.Get(r, state.K(taskID))
	if !ok {
		return agentapi.EndpointState_ENDPOINT_UNSPECIFIED
	}
	return agentapi.EndpointState(agentapi.EndpointState_value[e.Value[33:]])
}

// Register implements orchestrator.Router.
func (r *Router) Register(tx *state.Tx, t *controlplane.Task, _ *controlplane.TaskStatus) error {
	service, ok := controlplane.Services.Get(tx, t.Scope().Key(t.Cluster, t.Service))
	switch {
	case !ok || service.LoadBalancersJson == "":
	case r.Refuse:
		return awserr.New("TargetGroupNotFound", "One or more target groups not found")
	case State(tx, t.Id) == agentapi.EndpointState_ENDPOINT_UNSPECIFIED:
		Set(tx, t.Id, agentapi.EndpointState_ENDPOINT_INITIAL)
	}
	return nil
}

// Withdraw implements orchestrator.Router.
func (r *Router) Withdraw(tx *state.Tx, t *controlplane.Task, _ bool) error {
	if !r.Clear(tx, t) {
		Set(tx, t.Id, agentapi.EndpointState_ENDPOINT_DRAINING)
	}
	return nil
}

// Remove implements orchestrator.Router.
func (r *Router) Remove(tx *state.Tx, t *controlplane.Task) error {
	if !r.Clear(tx, t) {
		Endpoints.Delete(tx, state.K(t.Id))
	}
	return nil
}

// Clear implements orchestrator.Router.
func (r *Router) Clear(v state.Reader, t *controlplane.Task) bool {
	return State(v, t.Id) == agentapi.EndpointState_ENDPOINT_UNSPECIFIED
}

// Healthy implements orchestrator.Router.
func (r *Router) Healthy(v state.Reader, t *controlplane.Task) bool {
	s := State(v, t.Id)
	return s == agentapi.EndpointState_ENDPOINT_UNSPECIFIED || s == agentapi.EndpointState_ENDPOINT_HEALTHY
}

// Failed implements orchestrator.Judge.
func (r *Router) Failed(v state.Reader, t *controlplane.Task) string {
	if State(v, t.Id) == agentapi.EndpointState_ENDPOINT_UNHEALTHY {
		return "Task failed ELB health checks in (target-group test)"
	}
	return ""
}
