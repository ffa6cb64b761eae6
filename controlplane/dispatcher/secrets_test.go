package dispatcher

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// resolver answers with the id of the task that it was asked about.
type resolver struct{ err error }

func (r *resolver) Resolve(_ context.Context, t *controlplane.Task, d *controlplane.TaskDefinition) (*agentapi.TaskSecretsAnswer, error) {
	return &agentapi.TaskSecretsAnswer{Failure: t.Id + " of " + d.Family}, r.err
}

// TestAgentIsToldSecretsOfItsOwnTasksOnly: who asks is who its certificate says, and the task is live and there.
func TestAgentIsToldSecretsOfItsOwnTasksOnly(t *testing.T) {
	p := newPlane(t)
	p.Authorize = func(ctx context.Context, node string) error {
		if md, _ := metadata.FromIncomingContext(ctx); len(md["node"]) != 1 || md["node"][0] != node {
			return errors.New("the certificate names another node")
		}
		return nil
	}
	ask := func(caller, node, task string) (*agentapi.TaskSecretsAnswer, error) {
		return agentapi.NewDispatcherClient(p.dial).TaskSecrets(metadata.AppendToOutgoingContext(t.Context(), "node", caller),
			&agentapi.TaskSecretsRequest{NodeId: node, TaskId: task})
	}
	if _, err := ask("a", "a", "mine"); status.Code(err) != codes.Unimplemented {
		t.Errorf("without a resolver: %v", err)
	}
	answers := &resolver{}
	p.Secrets = answers
	p.change(func(tx *state.Tx) error {
		controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{Account: scope.Account, Region: scope.Region, Family: "web", Revision: 1})
		for id, observed := range map[string]agentapi.TaskState{"mine": agentapi.TaskState_PENDING, "ended": agentapi.TaskState_STOPPED} {
			controlplane.Tasks.Put(tx, &controlplane.Task{Account: scope.Account, Region: scope.Region, Cluster: "default", Id: id, TaskDefinition: "web:1"})
			controlplane.TaskStatuses.Put(tx, &controlplane.TaskStatus{Account: scope.Account, Region: scope.Region, Cluster: "default", Id: id, Node: "a", Observed: observed})
		}
		return nil
	})
	for _, c := range []struct{ caller, node, task string }{
		{"b", "a", "mine"}, // in another's name
		{"b", "b", "mine"},
		{"a", "a", "ended"},
		{"a", "a", "nobody's"},
		{"", "", "mine"},
	} {
		if got, err := ask(c.caller, c.node, c.task); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s asks as %s for %s: %v, %v", c.caller, c.node, c.task, got, err)
		}
	}
	if got, err := ask("a", "a", "mine"); err != nil || got.Failure != "mine of web" {
		t.Errorf("got %v, %v", got, err)
	}
	answers.err = errors.New("no leader")
	if _, err := ask("a", "a", "mine"); status.Code(err) != codes.Unavailable {
		t.Errorf("a failure that passes: %v", err)
	}
}
