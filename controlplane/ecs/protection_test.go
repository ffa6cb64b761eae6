package ecs

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// serviceTask makes a task of the service "active".
func (p *platform) serviceTask(id string) string {
	t := &controlplane.Task{Account: here.Account, Region: here.Region, Cluster: "default", Id: id, TaskDefinition: "web:1", Service: "active", Group: "service:active",
		LaunchType: "EC2", Demand: &controlplane.Demand{}}
	p.change(func(tx *state.Tx) { controlplane.CreateTask(tx, t, nil) })
	return t.ARN()
}

func TestTaskProtection(t *testing.T) {
	p := world(t)
	arn := p.serviceTask("11111111111111111111111111111111")
	alone := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web")}).Tasks[0].TaskArn
	get := func() bool {
		t.Helper()
		out := must(p, p.getTaskProtection, &ecs.GetTaskProtectionInput{Cluster: aws.String("default"), Tasks: []string{arn}})
		if len(out.ProtectedTasks) != 1 || len(out.Failures) != 0 || out.ProtectedTasks[0].ProtectionEnabled != (out.ProtectedTasks[0].ExpirationDate != nil) {
			t.Fatalf("got %+v %+v", out.ProtectedTasks, out.Failures)
		}
		return out.ProtectedTasks[0].ProtectionEnabled
	}
	if get() {
		t.Error("protected from the start")
	}
	protect := func(enabled bool, minutes *int32) *ecs.UpdateTaskProtectionOutput {
		t.Helper()
		return must(p, p.updateTaskProtection, &ecs.UpdateTaskProtectionInput{Cluster: aws.String("default"), Tasks: []string{arn, *alone, "nothing"},
			ProtectionEnabled: enabled, ExpiresInMinutes: minutes})
	}
	out := protect(true, nil)
	if len(out.ProtectedTasks) != 1 || *out.ProtectedTasks[0].TaskArn != arn || !out.ProtectedTasks[0].ExpirationDate.Equal(p.now.Add(2*time.Hour)) {
		t.Errorf("got %+v", out.ProtectedTasks)
	}
	if len(out.Failures) != 2 || *out.Failures[0].Arn != *alone || *out.Failures[0].Reason != "TASK_NOT_VALID" || *out.Failures[1].Reason != "MISSING" {
		t.Errorf("failures %+v", out.Failures)
	}
	began := p.now
	if p.now = began.Add(2*time.Hour - time.Second); !get() {
		t.Error("not protected any more before its time")
	}
	if p.now = began.Add(2 * time.Hour); get() {
		t.Error("protected beyond its time")
	}
	if out := protect(true, aws.Int32(1)); !out.ProtectedTasks[0].ExpirationDate.Equal(p.now.Add(time.Minute)) || !get() {
		t.Errorf("again: %+v", out.ProtectedTasks)
	}
	if out := protect(false, nil); out.ProtectedTasks[0].ProtectionEnabled || get() {
		t.Errorf("ended: %+v", out.ProtectedTasks)
	}
	protect(true, nil)
	p.report("default", agentapi.TaskState_STOPPED)
	if out := protect(true, nil); len(out.ProtectedTasks) != 0 || *out.Failures[0].Reason != "TASK_NOT_VALID" {
		t.Errorf("a stopped task: %+v %+v", out.ProtectedTasks, out.Failures)
	}
}
