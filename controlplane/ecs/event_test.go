package ecs

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/google/go-cmp/cmp"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// TestTaskDetailOutlivesItsHost: who makes an event's text later makes the one that it would have been.
func TestTaskDetailOutlivesItsHost(t *testing.T) {
	p := world(t)
	arn := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web")}).Tasks[0].TaskArn
	p.report("default", agentapi.TaskState_RUNNING)
	v := p.Store.View()
	key := here.Key("default", (*arn)[len(*arn)-32:])
	running, _ := controlplane.TaskStatuses.Get(v, key)
	host := p.TaskHost(v, running)
	if host.Zone != "us-east-1a" || !host.Connected || host.Instance == "" {
		t.Errorf("got host %+v", host)
	}
	told, ok := p.TaskDetail(v, running, host)
	if !ok {
		t.Fatal("no detail")
	}

	must(p, p.stopTask, &ecs.StopTaskInput{Task: arn})
	p.report("default", agentapi.TaskState_STOPPED)
	if _, err := p.Store.Update(t.Context(), func(tx *state.Tx) error {
		for ci := range controlplane.ContainerInstancesByNode.Scan(tx, state.K(running.Node)) {
			controlplane.ContainerInstances.Delete(tx, controlplane.ContainerInstances.Key(ci))
		}
		controlplane.Nodes.Delete(tx, state.K(running.Node))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	late, ok := p.TaskDetail(p.Store.View(), running, host)
	if diff := cmp.Diff(told, late); !ok || diff != "" {
		t.Errorf("later it is %s", diff)
	}
}
