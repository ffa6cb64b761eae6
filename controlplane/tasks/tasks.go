// Package tasks shows of tasks what AWS has no operation for: what their containers wrote, and why they are placed where they
// are, or nowhere. These are resources of the REST API; they change nothing and keep nothing between calls.
package tasks

import (
	"context"
	"iter"
	"strings"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/scheduler/placement"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Config is what the resources are read from.
type Config struct {
	Store  *state.Store
	Placer Placer
	Nodes  Nodes
}

// Placer says why a task has no place; placement.Placer is one.
type Placer interface {
	Explain(v *state.View, task state.Key) (placement.Explanation, error)
}

// Nodes reads what containers wrote where it is kept; dispatcher.Server is one.
type Nodes interface {
	// ReadLogs returns the lines, in chunks as they come, once the node has begun to answer. An error in the sequence is
	// its end. The sequence has to be ranged over, or ctx cancelled.
	ReadLogs(ctx context.Context, node string, req *agentapi.LogRequest) (iter.Seq2[[]*agentapi.LogLine, error], error)
}

// Service has the resources' handlers as methods.
type Service struct{ Config }

// New returns the resources' service.
func New(c Config) *Service { return &Service{c} }

// Resources is the table, in alphabetical order.
func (s *Service) Resources() []api.RESTResource {
	return []api.RESTResource{
		api.Document("GET /clusters/{cluster}/tasks/{task}/placement", "Why a task is placed where it is or, host by host, why it is nowhere.",
			func(c *api.Call, in *ExplainTaskInput) string { return taskARN(c, in.Cluster, in.Task) }, s.explain),
		api.Stream("GET /clusters/{cluster}/tasks/{task}/logs", "What a task's containers wrote, line by line; followed, until they end.",
			func(c *api.Call, in *GetTaskLogsInput) string { return taskARN(c, in.Cluster, in.Task) }, s.logs),
	}
}

func scopeOf(c *api.Call) controlplane.Scope {
	return controlplane.Scope{Account: c.Account, Region: c.Region}
}

// taskARN is the name that policies are held against.
func taskARN(c *api.Call, cluster, task string) string {
	scope := scopeOf(c)
	return scope.TaskARN(named(scope, "cluster", cluster), named(scope, "task", task))
}

// named is the name that a reference, a name or an ARN, means in the scope; empty when it means something elsewhere.
func named(scope controlplane.Scope, kind, ref string) string {
	if !arn.Is(ref) {
		return ref
	}
	a, err := arn.Parse(ref)
	if err != nil || a.Service != "ecs" || a.Type() != kind || a.Account != scope.Account || a.Region != scope.Region {
		return ""
	}
	return a.Rest()[strings.LastIndexByte(a.Rest(), '/')+1:]
}

// find answers from a view that has everything acknowledged before the call. The errors are ECS's.
func (s *Service) find(ctx context.Context, cluster, task string) (*state.View, *controlplane.Task, *controlplane.TaskStatus, error) {
	v, err := s.Store.Linearizable(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	scope := scopeOf(api.CallFrom(ctx))
	cluster, task = named(scope, "cluster", cluster), named(scope, "task", task)
	if _, ok := controlplane.Clusters.Get(v, scope.Key(cluster)); !ok {
		return nil, nil, nil, awserr.New("ClusterNotFoundException", "Cluster not found.")
	}
	t, ok := controlplane.Tasks.Get(v, scope.Key(cluster, task))
	st, has := controlplane.TaskStatuses.Get(v, scope.Key(cluster, task))
	if !ok || !has {
		return nil, nil, nil, awserr.New("InvalidParameterException", "The referenced task was not found.")
	}
	return v, t, st, nil
}
