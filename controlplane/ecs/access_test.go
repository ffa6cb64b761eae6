package ecs

import (
	"reflect"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// What each operation is held against: "Actions, resources, and condition keys for Amazon Elastic Container Service".
func TestResources(t *testing.T) {
	p := newPlatform(t)
	in := &ecs.RegisterTaskDefinitionInput{Family: new("web"), ContainerDefinitions: []types.ContainerDefinition{{Name: new("m"), Image: new("i"), Memory: new(int32(8))}}}
	must(p, p.registerTaskDefinition, in)
	must(p, p.registerTaskDefinition, in)
	table := map[reflect.Type]api.Operation{}
	for _, o := range p.Operations() {
		table[o.In] = o
	}
	const arn = "arn:aws:ecs:us-east-1:000000000000:"
	for _, c := range []struct {
		in   any
		want []string // after the ARN's beginning; none: "*"
	}{
		{&ecs.CreateClusterInput{ClusterName: new("c")}, []string{"cluster/c"}},
		{&ecs.CreateServiceInput{Cluster: new("c"), ServiceName: new("s")}, []string{"service/c/s"}},
		{&ecs.UpdateServiceInput{Service: new(arn + "service/default/s")}, []string{"service/default/s"}},
		{&ecs.DescribeServicesInput{Services: []string{"a", arn + "service/default/b"}}, []string{"service/default/a", "service/default/b"}},
		{&ecs.DescribeTasksInput{Cluster: new(arn + "cluster/c"), Tasks: []string{"1"}}, []string{"task/c/1"}},
		{&ecs.DescribeClustersInput{}, []string{"cluster/default"}},
		{&ecs.ListClustersInput{}, nil},
		{&ecs.ListTasksInput{Cluster: new("c")}, nil},
		{&ecs.ListTasksInput{Cluster: new("c"), ContainerInstance: new("i")}, []string{"container-instance/c/i"}},
		{&ecs.UpdateContainerInstancesStateInput{ContainerInstances: []string{"i"}}, []string{"container-instance/default/i"}},
		{&ecs.RunTaskInput{TaskDefinition: new("web")}, []string{"task-definition/web:2"}},
		{&ecs.RunTaskInput{TaskDefinition: new("web:1")}, []string{"task-definition/web:1"}},
		{&ecs.RunTaskInput{TaskDefinition: new(arn + "task-definition/web:1")}, []string{"task-definition/web:1"}},
		{&ecs.RunTaskInput{TaskDefinition: new("none")}, []string{"task-definition/none"}},
		{&ecs.DeleteTaskDefinitionsInput{TaskDefinitions: []string{"web:1"}}, []string{"task-definition/web:1"}},
		{&ecs.RegisterTaskDefinitionInput{Family: new("web")}, nil},
		{&ecs.StopTaskInput{Task: new("1")}, []string{"task/default/1"}},
	} {
		o := table[reflect.TypeOf(c.in).Elem()]
		var want []string
		for _, w := range c.want {
			want = append(want, arn+w)
		}
		if got := o.Needs(api.CallFrom(p.ctx()), c.in)[0].Resources; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", o.Name, got, want)
		}
	}
	update := &ecs.UpdateServiceInput{Service: new("s"), Cluster: new("c"), TaskDefinition: new("web")}
	o := table[reflect.TypeOf(update).Elem()]
	for key, want := range map[string]string{"ecs:cluster": "cluster/c", "ecs:service": "service/c/s", "ecs:task-definition": "task-definition/web:2"} {
		if got, ok := o.Needs(api.CallFrom(p.ctx()), update)[0].Key(key); !ok || !slices.Equal(got, []string{arn + want}) {
			t.Errorf("%s: %v", key, got)
		}
	}
}

// A role is passed at registration, and again when a task is run with it or a service is given it.
func TestPassRoles(t *testing.T) {
	p := newPlatform(t)
	must(p, p.createCluster, &ecs.CreateClusterInput{})
	register := func(role string) error {
		_, err := p.registerTaskDefinition(p.ctx(), &ecs.RegisterTaskDefinitionInput{Family: new("f"), ExecutionRoleArn: &role,
			ContainerDefinitions: []types.ContainerDefinition{{Name: new("m"), Image: new("i"), Memory: new(int32(8))}}})
		return err
	}
	for _, role := range []string{"arn:aws:iam::000000000000:role/forbidden", "forbidden"} {
		if err := register(role); !awserr.Is(err, "AccessDeniedException") {
			t.Errorf("%s: %v", role, err)
		}
	}
	if err := register("arn:aws:iam::000000000000:role/fine"); err != nil {
		t.Fatal(err)
	}
	_, err := p.runTask(p.ctx(), &ecs.RunTaskInput{TaskDefinition: new("f"), Overrides: &types.TaskOverride{ExecutionRoleArn: new("forbidden")}})
	if !awserr.Is(err, "AccessDeniedException") {
		t.Errorf("a forbidden role as an override: %v", err)
	}
	if _, err := p.runTask(p.ctx(), &ecs.RunTaskInput{TaskDefinition: new("f")}); awserr.Is(err, "AccessDeniedException") {
		t.Errorf("the definition's own role: %v", err)
	}

	// Somebody who may has registered f:2, which others may not use for that.
	p.mayPassAll = true
	if err := register("forbidden"); err != nil {
		t.Fatal(err)
	}
	p.mayPassAll = false
	create := func(definition string) error {
		_, err := p.createService(p.ctx(), &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: &definition, DesiredCount: new(int32(1))})
		return err
	}
	if err := create("f:2"); !awserr.Is(err, "AccessDeniedException") {
		t.Errorf("a service with a forbidden role: %v", err)
	}
	if err := create("f:1"); err != nil {
		t.Errorf("a service with another one: %v", err)
	}
	if _, err := p.updateService(p.ctx(), &ecs.UpdateServiceInput{Service: new("s"), TaskDefinition: new("f:2")}); !awserr.Is(err, "AccessDeniedException") {
		t.Errorf("a service that is given a forbidden role: %v", err)
	}
	p.mayPassAll = true
	must(p, p.updateService, &ecs.UpdateServiceInput{Service: new("s"), TaskDefinition: new("f:2")})
	p.mayPassAll = false
	must(p, p.updateService, &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(2))}) // it names none
}

// A definition may name a role that is not there yet; a task needs it, and no task is made without.
func TestTaskRoles(t *testing.T) {
	p := newPlatform(t)
	must(p, p.createCluster, &ecs.CreateClusterInput{})
	instance := p.node("default")
	for role, ok := range map[string]bool{"untrusting": false, "arn:aws:iam::000000000000:role/untrusting": false, "fine": true, "/path/fine": true} {
		d := must(p, p.registerTaskDefinition, &ecs.RegisterTaskDefinitionInput{Family: new("f"), TaskRoleArn: &role,
			ContainerDefinitions: []types.ContainerDefinition{{Name: new("m"), Image: new("i"), Memory: new(int32(8))}}}).TaskDefinition
		if *d.TaskRoleArn != role {
			t.Errorf("registered with %s: %s", role, *d.TaskRoleArn)
		}
		_, run := p.runTask(p.ctx(), &ecs.RunTaskInput{TaskDefinition: new("f")})
		_, start := p.startTask(p.ctx(), &ecs.StartTaskInput{TaskDefinition: new("f"), ContainerInstances: []string{instance}})
		for _, err := range []error{run, start} {
			if (err == nil) != ok || !ok && !awserr.Is(err, "ClientException") {
				t.Errorf("run with %s: %v", role, err)
			}
		}
	}
	if _, err := p.runTask(p.ctx(), &ecs.RunTaskInput{TaskDefinition: new("f"), Overrides: &types.TaskOverride{TaskRoleArn: new("arn:aws:iam::1:role/x")}}); !awserr.Is(err, "ClientException") {
		t.Errorf("an override that is no role: %v", err)
	}
	before := len(must(p, p.listTasks, &ecs.ListTasksInput{}).TaskArns)
	over := &types.TaskOverride{ExecutionRoleArn: new("untrusting"), TaskRoleArn: new("fine")}
	if _, err := p.runTask(p.ctx(), &ecs.RunTaskInput{TaskDefinition: new("f"), Overrides: over}); !awserr.Is(err, "ClientException") {
		t.Errorf("an execution role that does not let tasks assume it: %v", err)
	}
	if after := len(must(p, p.listTasks, &ecs.ListTasksInput{}).TaskArns); after != before || before != 4 {
		t.Errorf("%d tasks, then %d; want 4", before, after)
	}
	over.ExecutionRoleArn = new("fine")
	made := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: new("f"), Overrides: over}).Tasks[0]
	if *made.Overrides.TaskRoleArn != "fine" || *made.Overrides.ExecutionRoleArn != "fine" {
		t.Errorf("overrides: %+v", made.Overrides)
	}
}

// A policy that forbids cluster/prod must not be got around by another spelling of it.
func TestOneSpelling(t *testing.T) {
	p := newPlatform(t)
	must(p, p.createCluster, &ecs.CreateClusterInput{ClusterName: new("prod")})
	tag := func(arn string) error {
		_, err := p.tagResource(p.ctx(), &ecs.TagResourceInput{ResourceArn: &arn, Tags: []types.Tag{{Key: new("a"), Value: new("b")}}})
		return err
	}
	if err := tag("arn:aws:ecs:us-east-1:000000000000:cluster/prod"); err != nil {
		t.Error(err)
	}
	for _, arn := range []string{"arn:aws:ecs:us-east-1:000000000000:cluster:prod", "arn:aws-cn:ecs:us-east-1:000000000000:cluster/prod"} {
		if err := tag(arn); !awserr.Is(err, "InvalidParameterException") {
			t.Errorf("%s: %v", arn, err)
		}
		if _, err := p.deleteCluster(p.ctx(), &ecs.DeleteClusterInput{Cluster: &arn}); !awserr.Is(err, "InvalidParameterException") {
			t.Errorf("delete %s: %v", arn, err)
		}
	}
}
