package orchestrator

import (
	"maps"
	"testing"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// TestDeploymentKeepsToItsImages: what the first task's images are those of the tasks behind it are, but for containers that want none of
// that; the next deployment resolves anew.
func TestDeploymentKeepsToItsImages(t *testing.T) {
	w := newWorld(t)
	const image = "registry/"
	w.change(func(tx *state.Tx) error {
		controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{Account: scope.Account, Region: scope.Region, Family: "app", Revision: 1, Status: "ACTIVE",
			DefinitionJson: []byte(`{"containerDefinitions":[{"name":"web","image":"` + image + `web:v1"},
				{"name":"free","image":"` + image + `free","versionConsistency":"disabled"},
				{"name":"set","image":"` + image + `set@sha256:0","versionConsistency":"enabled"}]}`)})
		for _, id := range []string{"one", "two"} {
			controlplane.Deployments.Put(tx, &controlplane.Deployment{Account: scope.Account, Region: scope.Region, Cluster: "default", Service: "app", Id: id, TaskDefinition: "app:1"})
		}
		return nil
	})
	task := func(id, deployment string) *controlplane.Task {
		t := &controlplane.Task{Account: scope.Account, Region: scope.Region, Cluster: "default", Id: id, Service: "app", Deployment: deployment, TaskDefinition: "app:1"}
		w.change(func(tx *state.Tx) error {
			s, _ := controlplane.CreateTask(tx, t, nil).AdvancePlaced("n1")
			controlplane.TaskStatuses.Put(tx, s)
			return nil
		})
		return t
	}
	pulled := func(id string, digests ...string) {
		r := &agentapi.TaskStatus{TaskId: id, Epoch: 1, State: agentapi.TaskState_PENDING}
		for i := 0; i < len(digests); i += 2 {
			r.Containers = append(r.Containers, &agentapi.ContainerStatus{Name: digests[i], ImageDigest: digests[i+1], State: agentapi.ContainerState_CONTAINER_PULLED})
		}
		w.change(func(tx *state.Tx) error { return w.o.lifecycle.Report(tx, "n1", r) })
	}
	images := func(t *controlplane.Task) map[string]string {
		v := w.store.View()
		d, _ := controlplane.TaskDefinitions.Get(v, scope.FamilyRevisionKey(t.TaskDefinition))
		deployment, _ := controlplane.Deployments.Get(v, scope.Key("default", "app", t.Deployment))
		spec, _, err := controlplane.RenderTaskSpec(t, d, deployment.GetImageDigests())
		if err != nil {
			w.t.Fatal(err)
		}
		images := map[string]string{}
		for _, c := range spec.Containers {
			images[c.Name] = c.Image
		}
		return images
	}
	want := func(when string, t *controlplane.Task, web string) {
		w.t.Helper()
		if got, want := images(t), (map[string]string{"web": image + web, "free": image + "free", "set": image + "set@sha256:0"}); !maps.Equal(got, want) {
			w.t.Errorf("%s: %v", when, got)
		}
	}
	first, second, next := task("a", "one"), task("b", "one"), task("c", "two")
	want("before anything is pulled", second, "web:v1")
	pulled("a", "free", "sha256:f") // one at a time, as they come
	want("before the image is pulled", second, "web:v1")
	pulled("a", "web", "sha256:1", "free", "sha256:f", "set", "sha256:0")
	want("behind the first", second, "web@sha256:1")
	pulled("b", "web", "sha256:2", "free", "sha256:g") // it was told before
	want("behind the second", first, "web@sha256:1")
	want("of another deployment", next, "web:v1")
	pulled("c", "web", "sha256:2")
	want("of another deployment", next, "web@sha256:2")
}
