package main

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/mesh"
)

// TestStopTaskLeavesTheTrafficFirst: StopTask takes the way down that everybody takes. In the transaction that wants the task gone,
// load balancers and service discovery have both begun to drain it; it is told to stop once no endpoint is left.
func TestStopTaskLeavesTheTrafficFirst(t *testing.T) {
	control, url := startControlPlane(t)
	call := func(target, body string) {
		t.Helper()
		if status, _, answer := (errorCase{Service: "ecs", Target: target, Body: json.RawMessage(body)}).send(t, url); status != 200 {
			t.Fatalf("%s: %d %s", target, status, answer)
		}
	}
	const account, region = "000000000000", "us-east-1"
	call("CreateCluster", `{"clusterName":"default"}`)
	_, err := control.store.Update(t.Context(), func(tx *state.Tx) error {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: "n", Status: capacity.NodeReady, Resources: &agentapi.NodeResources{CpuUnits: 1024, MemoryMib: 1024}})
		task := &controlplane.Task{Account: account, Region: region, Cluster: "default", Id: "0123456789abcdef0123456789abcdef", LaunchType: "EC2", TaskDefinition: "web:1"}
		status, _ := controlplane.CreateTask(tx, task, nil).AdvancePlaced("n")
		controlplane.TaskStatuses.Put(tx, status)
		for group, discovery := range map[string]bool{"target group": false, "discovery service": true} {
			mesh.Endpoints.Put(tx, &mesh.Endpoint{
				Account: account, Region: region, Group: group, Id: "1", Cluster: "default", Task: task.Id, Node: "n", Discovery: discovery,
				State: agentapi.EndpointState_ENDPOINT_HEALTHY,
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	changes := control.store.Watch(ctx, control.store.Revision(), controlplane.TaskStatuses, mesh.Endpoints)
	call("StopTask", `{"task":"0123456789abcdef0123456789abcdef","reason":"enough"}`)
	var leaving state.Revision            // of the transaction that wants the task gone
	withdrawn := map[state.Revision]int{} // endpoints that began to drain, by transaction
	for gone := 0; ; {
		b, err := changes.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events {
			endpoint, _ := e.New.(*mesh.Endpoint)
			status, _ := e.New.(*controlplane.TaskStatus)
			switch {
			case e.Table == mesh.Endpoints && endpoint == nil:
				gone++
			case endpoint != nil && endpoint.State == agentapi.EndpointState_ENDPOINT_DRAINING:
				withdrawn[e.Revision]++
			case status != nil && status.Desired == agentapi.TaskState_DEACTIVATING:
				leaving = e.Revision
				if status.StopCode != "UserInitiated" || status.StoppedReason != "enough" {
					t.Errorf("leaves because of %s: %s", status.StopCode, status.StoppedReason)
				}
			case status != nil && status.Desired == agentapi.TaskState_STOPPED:
				if leaving == 0 || withdrawn[leaving] != 2 || gone != 2 {
					t.Errorf("told to stop with %d of 2 endpoints withdrawn and %d gone; asked to leave at %d", withdrawn[leaving], gone, leaving)
				}
				return
			}
		}
	}
}
