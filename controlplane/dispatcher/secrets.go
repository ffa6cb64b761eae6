package dispatcher

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Secrets resolves what tasks are started with and their definitions only name; secrets.Resolver is one. An error is one that passes; a
// refusal is in the answer.
type Secrets interface {
	Resolve(ctx context.Context, t *controlplane.Task, d *controlplane.TaskDefinition) (*agentapi.TaskSecretsAnswer, error)
}

// TaskSecrets answers what a task of the node is started with. It is read for this call, and kept nowhere here.
func (s *Server) TaskSecrets(ctx context.Context, req *agentapi.TaskSecretsRequest) (*agentapi.TaskSecretsAnswer, error) {
	if s.Secrets == nil {
		return nil, status.Error(codes.Unimplemented, "this server has no secrets")
	}
	t, d, err := s.liveTask(ctx, req.NodeId, req.TaskId)
	if err != nil {
		return nil, err
	}
	answer, err := s.Secrets.Resolve(ctx, t, d)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return answer, nil
}

// liveTask finds a task that the node has, with its definition, for whoever may act for the node. Its errors are gRPC's.
func (s *Server) liveTask(ctx context.Context, node, id string) (*controlplane.Task, *controlplane.TaskDefinition, error) {
	if s.Authorize != nil {
		if err := s.Authorize(ctx, node); err != nil {
			return nil, nil, status.Error(codes.PermissionDenied, err.Error())
		}
	}
	// The agent may have learnt of its task from another server.
	v, err := s.Store.Linearizable(ctx)
	if err != nil {
		return nil, nil, status.Error(codes.Unavailable, err.Error())
	}
	for t := range controlplane.TasksByID.Scan(v, state.K(id)) {
		st, ok := controlplane.TaskStatuses.Get(v, controlplane.Tasks.Key(t))
		if !ok || node == "" || st.Node != node || !st.Live() {
			continue
		}
		d, ok := controlplane.TaskDefinitions.Get(v, t.Scope().FamilyRevisionKey(t.TaskDefinition))
		if !ok {
			s.Log.Error("an assigned task has no task definition", "task", t.Id, "definition", t.TaskDefinition)
			continue
		}
		return t, d, nil
	}
	return nil, nil, status.Error(codes.PermissionDenied, "the task is not one of this node")
}
