package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/internal/ociclient"
)

// TestFireLens: what a container with log driver awsfirelens writes comes to its task's log router, with its tag and the fields of ECS, until
// its last line: the router is stopped after it.
func TestFireLens(t *testing.T) {
	t.Parallel()
	p := start(t)
	shell := p.pushShell()
	file := filepath.Join(t.TempDir(), "prog")
	if out, err := goBuild("0", "-ldflags", "-s -w", "-o", file, "./agent/runtime/runtimetest/prog"); err != nil {
		t.Fatalf("build the router: %v\n%s", err, out)
	}
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	router := p.push("router", "1", ociclient.Config{Entrypoint: []string{"/prog"}}, ociclient.Executable("prog", body))
	_, err = p.client().ECS.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: aws.String("routed"), ContainerDefinitions: []ecstypes.ContainerDefinition{
		{Name: aws.String("app"), Image: &shell, Memory: aws.Int32(64), Command: []string{"echo to $FLUENT_HOST:$FLUENT_PORT; echo bye"},
			LogConfiguration: &ecstypes.LogConfiguration{LogDriver: ecstypes.LogDriverAwsfirelens, Options: map[string]string{"Name": "stdout"}}},
		{Name: aws.String("router"), Image: &router, Memory: aws.Int32(64), Essential: aws.Bool(false), Command: []string{"route", "/fluent-bit/etc/fluent-bit.conf"},
			FirelensConfiguration: &ecstypes.FirelensConfiguration{Type: ecstypes.FirelensConfigurationTypeFluentbit}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	arn := p.runTask("routed")
	p.ends(arn)
	out, errs, err := p.neargate("logs", arn[strings.LastIndexByte(arn, '/')+1:], "--container", "router")
	if err != nil {
		t.Fatalf("neargate logs: %v\n%s", err, errs)
	}
	for _, text := range []string{"to 127.0.0.1:24224", "bye"} {
		want := " container_name=/app ecs_cluster=default ecs_task_arn=" + arn + " ecs_task_definition=routed:1 log=" + text + " source=stdout\n"
		if tag := "app-firelens-" + arn[strings.LastIndexByte(arn, '/')+1:] + " "; !strings.Contains(out, want) || !strings.Contains(out, tag) {
			t.Errorf("the router has written\n%swant %s…%s", out, tag, want)
		}
	}
}
