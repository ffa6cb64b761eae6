package controlplane_test

import (
	"fmt"
	"slices"
	"testing"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// TestImagesInUse: of live tasks and of deployments that are not over, in every region of the account and in no other.
func TestImagesInUse(t *testing.T) {
	store := statetest.New(t, controlplane.Schema...)
	const account = "000000000000"
	define := func(tx *state.Tx, account, region string, revision uint32) {
		controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{Account: account, Region: region, Family: "web", Revision: revision, Status: "INACTIVE",
			DefinitionJson: fmt.Appendf(nil, `{"containerDefinitions":[{"name":"web","image":"r/web:%d"}]}`, revision)})
	}
	task := func(tx *state.Tx, account, region, id string, revision uint32, observed agentapi.TaskState) {
		controlplane.Tasks.Put(tx, &controlplane.Task{Account: account, Region: region, Cluster: "c", Id: id, TaskDefinition: fmt.Sprint("web:", revision)})
		controlplane.TaskStatuses.Put(tx, &controlplane.TaskStatus{Account: account, Region: region, Cluster: "c", Id: id, Observed: observed, Desired: agentapi.TaskState_RUNNING,
			Report: &agentapi.TaskStatus{Containers: []*agentapi.ContainerStatus{{Name: "web", ImageDigest: "sha256:" + id}}}})
	}
	if _, err := store.Update(t.Context(), func(tx *state.Tx) error {
		for r := range uint32(6) {
			define(tx, account, "us-east-1", r+1)
		}
		define(tx, account, "eu-west-1", 1)
		define(tx, "111111111111", "us-east-1", 1)
		task(tx, account, "us-east-1", "t1", 1, agentapi.TaskState_RUNNING)
		task(tx, account, "us-east-1", "t2", 2, agentapi.TaskState_STOPPED)
		task(tx, account, "eu-west-1", "t3", 1, agentapi.TaskState_PENDING)
		task(tx, "111111111111", "us-east-1", "t4", 1, agentapi.TaskState_RUNNING)
		for i, status := range []string{"PRIMARY", "ACTIVE", "INACTIVE"} {
			controlplane.Deployments.Put(tx, &controlplane.Deployment{Account: account, Region: "us-east-1", Cluster: "c", Service: "s", Id: fmt.Sprint("d", i), Status: status,
				TaskDefinition: fmt.Sprint("web:", i+3), ImageDigests: map[string]string{"web": fmt.Sprint("sha256:d", i)}})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for u := range controlplane.ImagesInUse(store.View(), account) {
		got = append(got, fmt.Sprintln(u.Region, u.Image, u.Digest, u.By))
	}
	slices.Sort(got)
	want := []string{
		"eu-west-1 r/web:1 sha256:t3 arn:aws:ecs:eu-west-1:000000000000:task/c/t3\n",
		"us-east-1 r/web:1 sha256:t1 arn:aws:ecs:us-east-1:000000000000:task/c/t1\n",
		"us-east-1 r/web:3 sha256:d0 arn:aws:ecs:us-east-1:000000000000:service/c/s\n",
		"us-east-1 r/web:4 sha256:d1 arn:aws:ecs:us-east-1:000000000000:service/c/s\n",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
