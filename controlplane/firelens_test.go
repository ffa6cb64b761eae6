package controlplane

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// routed is a definition whose app sends its output to a router that is defined after it.
func routed(change func(app, router *types.ContainerDefinition)) *TaskDefinition {
	def := types.TaskDefinition{NetworkMode: types.NetworkModeBridge, ContainerDefinitions: []types.ContainerDefinition{
		{Name: aws.String("app"), Image: aws.String("app"), LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverAwsfirelens,
			Options:       map[string]string{"Name": "http", "log-driver-buffer-limit": "65536"},
			SecretOptions: []types.Secret{{Name: aws.String("token"), ValueFrom: aws.String("/p")}}}},
		{Name: aws.String("other"), Image: aws.String("other")},
		{Name: aws.String("router"), Image: aws.String("router"), FirelensConfiguration: &types.FirelensConfiguration{Type: types.FirelensConfigurationTypeFluentbit}},
	}}
	change(&def.ContainerDefinitions[0], &def.ContainerDefinitions[2])
	return &TaskDefinition{Family: "web", Revision: 7, DefinitionJson: []byte(EncodeShape(def))}
}

// TestRenderFireLens: the router starts first and has the configuration; who sends to it has the tag, and finds it on the network too.
func TestRenderFireLens(t *testing.T) {
	task := &Task{Account: here.Account, Region: here.Region, Cluster: "c", Id: "0123"}
	spec, _, err := RenderTaskSpec(task, routed(func(app, router *types.ContainerDefinition) {}), nil)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	by := map[string]*agentapi.ContainerSpec{}
	for _, c := range spec.Containers {
		order, by[c.Name] = append(order, c.Name), c
	}
	if want := []string{"router", "app", "other"}; !slices.Equal(order, want) {
		t.Errorf("order is %v, want %v", order, want)
	}
	app := by["app"]
	want := &agentapi.ContainerSpec{
		Environment: map[string]string{"FLUENT_HOST": "127.0.0.1", "FLUENT_PORT": "24224"},
		DependsOn:   []*agentapi.Dependency{{Container: "router", Condition: "START"}},
		Log: &agentapi.LogConfiguration{Driver: "awsfirelens", Options: map[string]string{"tag": "app-firelens-0123", "fluentd-async": "true",
			"fluentd-sub-second-precision": "true", "fluentd-buffer-limit": "65536"}},
	}
	if diff := cmp.Diff(want, &agentapi.ContainerSpec{Environment: app.Environment, DependsOn: app.DependsOn, Log: app.Log}, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if len(by["other"].Environment) > 0 || len(by["other"].DependsOn) > 0 || by["other"].FireLens != nil || app.FireLens != nil {
		t.Errorf("others have something of it: %v", by["other"])
	}
	if got := by["router"].FireLens.GetConfigPath(); got != "/fluent-bit/etc/fluent-bit.conf" {
		t.Errorf("the configuration is at %s", got)
	}
	config := by["router"].FireLens.GetConfig()
	for _, line := range []string{"Listen 0.0.0.0", "Record ecs_cluster c\n", "Record ecs_task_arn " + task.ARN() + "\n", "Record ecs_task_definition web:7\n",
		"Match app-firelens*\n    token ${token_0}\n"} {
		if !strings.Contains(config, line) {
			t.Errorf("the configuration lacks %q: %s", line, config)
		}
	}
	if strings.Contains(config, "65536") {
		t.Error("log-driver-buffer-limit is in the configuration of the router")
	}
}

func TestRenderFireLensVariants(t *testing.T) {
	render := func(change func(app, router *types.ContainerDefinition)) map[string]*agentapi.ContainerSpec {
		t.Helper()
		spec, _, err := RenderTaskSpec(&Task{Account: here.Account, Region: here.Region, Cluster: "c", Id: "0123"}, routed(change), nil)
		if err != nil {
			t.Fatal(err)
		}
		by := map[string]*agentapi.ContainerSpec{}
		for _, c := range spec.Containers {
			by[c.Name] = c
		}
		return by
	}
	depends := func(on string, condition types.ContainerCondition) []types.ContainerDependency {
		return []types.ContainerDependency{{ContainerName: &on, Condition: condition}}
	}
	by := render(func(app, router *types.ContainerDefinition) {
		router.DependsOn = depends("other", types.ContainerConditionStart)
	})
	if len(by["app"].DependsOn) != 0 {
		t.Errorf("a router that depends on others holds back: %v", by["app"].DependsOn)
	}
	by = render(func(app, router *types.ContainerDefinition) {
		app.DependsOn = depends("router", types.ContainerConditionHealthy)
	})
	if d := by["app"].DependsOn; len(d) != 1 || d[0].Condition != "HEALTHY" {
		t.Errorf("a dependency of one's own becomes %v", d)
	}
	by = render(func(app, router *types.ContainerDefinition) {
		app.LogConfiguration.Options["@type"] = "http"
		delete(app.LogConfiguration.Options, "Name")
		router.LogConfiguration = app.LogConfiguration
		router.FirelensConfiguration.Type = types.FirelensConfigurationTypeFluentd
		router.FirelensConfiguration.Options = map[string]string{"enable-ecs-log-metadata": "false", "config-file-type": "file", "config-file-value": "/x.conf"}
	})
	if len(by["router"].DependsOn) != 0 || by["router"].Log.Options["tag"] != "router-firelens-0123" {
		t.Errorf("a router of its own output: %v", by["router"])
	}
	f := by["router"].FireLens
	if f.ConfigPath != "/fluentd/etc/fluent.conf" || strings.Contains(f.Config, "ecs_cluster") || !strings.Contains(f.Config, "@include /x.conf") ||
		!strings.Contains(f.Config, `token "#{ENV['token_2']}"`) {
		t.Errorf("fluentd's configuration at %s is %s", f.ConfigPath, f.Config)
	}
}

// TestRoutersArePlaced: a task with a router needs a host that can run it.
func TestRoutersArePlaced(t *testing.T) {
	d, err := DemandOf(routed(func(app, router *types.ContainerDefinition) {}).Shape(), types.TaskOverride{})
	if err != nil || !slices.Contains(d.Attributes, "ecs.capability.firelens.fluentbit") {
		t.Errorf("%v, %v", d, err)
	}
}
