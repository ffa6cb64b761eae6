package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// ran is what of RunTask's answer matters here.
type ran struct {
	Tasks    []struct{ TaskArn, ContainerInstanceArn string }
	Failures []struct{ Arn, Reason string }
}

// TestRunTaskPlacesAtOnce: on container instances RunTask answers with tasks that have their places, and with ECS's failures
// for those that find none; these are not created.
func TestRunTaskPlacesAtOnce(t *testing.T) {
	control, url := startControlPlane(t)
	call := func(target, body string) (int, string) {
		status, _, answer := errorCase{Service: "ecs", Target: target, Body: json.RawMessage(body)}.send(t, url)
		return status, answer
	}
	run := func(body string) (r ran) {
		t.Helper()
		status, answer := call("RunTask", body)
		if err := json.Unmarshal([]byte(answer), &r); status != 200 || err != nil {
			t.Errorf("RunTask %s: %d %s", body, status, answer)
		}
		return r
	}
	call("CreateCluster", `{"clusterName":"default"}`)
	call("RegisterTaskDefinition", `{"family":"web","containerDefinitions":[{"name":"web","image":"web:1","memory":128}]}`)
	change := func(fn func(tx *state.Tx)) {
		if _, err := control.store.Update(t.Context(), func(tx *state.Tx) error { fn(tx); return nil }); err != nil {
			t.Error(err)
		}
	}
	const instance = "arn:aws:ecs:us-east-1:000000000000:container-instance/default/0123456789abcdef0123456789abcdef"
	change(func(tx *state.Tx) {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: "n", Status: capacity.NodeReady, Resources: &agentapi.NodeResources{CpuUnits: 1024, MemoryMib: 1024}})
		controlplane.ContainerInstances.Put(tx, &controlplane.ContainerInstance{
			Account: "000000000000", Region: "us-east-1", Cluster: "default", Id: instance[len(instance)-32:], Node: "n", Status: capacity.Active,
		})
	})

	for name, c := range map[string]struct {
		request, reason string
		tasks           int
	}{
		"distinctInstance": {`{"taskDefinition":"web","count":2,"placementConstraints":[{"type":"distinctInstance"}]}`, "DistinctInstance placement constraint unsatisfied.", 1},
		"memberOf":         {`{"taskDefinition":"web","placementConstraints":[{"type":"memberOf","expression":"attribute:tier == gpu"}]}`, "MemberOf placement constraint unsatisfied.", 0},
		"memory":           {`{"taskDefinition":"web","overrides":{"containerOverrides":[{"name":"web","memory":2048}]}}`, "RESOURCE:MEMORY", 0},
		"cpu":              {`{"taskDefinition":"web","overrides":{"containerOverrides":[{"name":"web","cpu":2048}]}}`, "RESOURCE:CPU", 0},
	} {
		r := run(c.request)
		if len(r.Tasks) != c.tasks || len(r.Failures) != 1 || r.Failures[0].Reason != c.reason || r.Failures[0].Arn != instance {
			t.Errorf("%s: %d tasks, failures %+v", name, len(r.Tasks), r.Failures)
		}
		for _, task := range r.Tasks {
			if task.ContainerInstanceArn != instance {
				t.Errorf("%s: the task runs on %q", name, task.ContainerInstanceArn)
			}
		}
	}

	// One of eight tasks' places is taken. Many ask at once, and the node's record changes all the while.
	var group sync.WaitGroup
	var mu sync.Mutex
	tasks, reasons := 0, map[string]int{}
	for range 10 {
		group.Go(func() {
			r := run(`{"taskDefinition":"web"}`)
			mu.Lock()
			defer mu.Unlock()
			tasks += len(r.Tasks)
			for _, f := range r.Failures {
				reasons[f.Reason]++
			}
		})
	}
	for i := range 20 {
		change(func(tx *state.Tx) {
			n, _ := controlplane.Nodes.Get(tx, state.K("n"))
			n = proto.CloneOf(n)
			n.Version = fmt.Sprint(i)
			controlplane.Nodes.Put(tx, n)
		})
	}
	group.Wait()
	if tasks != 7 || reasons["RESOURCE:MEMORY"] != 3 || len(reasons) != 1 {
		t.Errorf("%d tasks found a place, others %v", tasks, reasons)
	}
	if _, listed := call("ListTasks", `{}`); strings.Count(listed, "arn:aws:ecs") != 8 {
		t.Errorf("there are %s", listed)
	}
}
