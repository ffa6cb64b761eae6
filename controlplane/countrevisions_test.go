package controlplane_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// TestRevisionsAreCounted: also of tasks whose status does not name the deployment, as those do not that an older version has started.
func TestRevisionsAreCounted(t *testing.T) {
	store := statetest.New(t, controlplane.Schema...)
	service := &controlplane.Service{Account: "000000000000", Region: "us-east-1", Cluster: "c", Name: "s", PrimaryDeployment: "ecs-svc/2", DesiredCount: 9}
	if _, err := store.Update(t.Context(), func(tx *state.Tx) error {
		for i, of := range []struct {
			deployment        string
			desired, observed agentapi.TaskState
		}{
			{"ecs-svc/1", agentapi.TaskState_RUNNING, agentapi.TaskState_RUNNING},
			{"ecs-svc/2", agentapi.TaskState_RUNNING, agentapi.TaskState_PENDING},
			{"ecs-svc/1", agentapi.TaskState_STOPPED, agentapi.TaskState_RUNNING},
			{"ecs-svc/1", agentapi.TaskState_STOPPED, agentapi.TaskState_STOPPING},
			{"ecs-svc/2", agentapi.TaskState_RUNNING, agentapi.TaskState_RUNNING},
			{"ecs-svc/1", agentapi.TaskState_STOPPED, agentapi.TaskState_STOPPED},
		} {
			for _, older := range []bool{false, true} {
				st := controlplane.CreateTask(tx, &controlplane.Task{
					Account: "000000000000", Region: "us-east-1", Cluster: "c", Id: fmt.Sprint(i, older), TaskDefinition: "f:1", Service: "s", Deployment: of.deployment,
				}, nil)
				if st.Deployment != of.deployment {
					t.Errorf("a new status is of deployment %q", st.Deployment)
				}
				st = proto.CloneOf(st)
				if st.Desired, st.Observed = of.desired, of.observed; older {
					st.Deployment = ""
				}
				controlplane.TaskStatuses.Put(tx, st)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	counts := controlplane.CountRevisions(store.View(), service)
	for revision, want := range map[string]*controlplane.RevisionCount{
		"1": {Revision: "1", Requested: 2, Running: 4}, "2": {Revision: "2", Requested: 9, Running: 2, Pending: 2},
	} {
		if got := counts[revision]; !proto.Equal(got, want) {
			t.Errorf("revision %s is counted as %v, want %v", revision, got, want)
		}
	}
	if len(counts) != 2 {
		t.Errorf("counted are %v", counts)
	}
}
