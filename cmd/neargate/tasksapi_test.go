package main

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/seed-2f228079/neargate/agent/runtime/native"
	"github.com/seed-2f228079/neargate/client"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

// TestTaskCallsAnyServer: a program in a task calls the API, by credentials that it asks for each time, while one server after the other and
// the task's own agent are killed.
func TestTaskCallsAnyServer(t *testing.T) {
	if lacks := native.Check(); len(lacks) > 0 {
		t.Skip("this host cannot run containers: " + strings.Join(lacks, "; "))
	}
	s := startNamed(t, 3)
	one, cluster, repository := s.all[0], "apart", "sdk"
	if _, err := one.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	image := one.pushSDK(t, repository)
	roles := iam.New(iam.Options{BaseEndpoint: &one.url, HTTPClient: sdkhttp.New(nil), Region: "us-east-1", Credentials: one.ECS.Options().Credentials})
	if _, err := roles.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: new("app"),
		AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"ecs-tasks.amazonaws.com"}}}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := roles.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: new("app"), PolicyName: new("p"),
		PolicyDocument: new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ecs:List*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"true"}}}}`)}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Cleanup(func() { removeEverything(t, dir) })
	startAgent := func() *process {
		p := start(t, "agent", "-v", "--data", dir, "--servers", strings.Join(s.peers, ","), "--cluster", cluster, "--join-token", token)
		p.says(`agent (\S+) is connected`)
		return p
	}
	agent := startAgent()
	if _, err := one.ECS.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: &repository, TaskRoleArn: new("app"),
		ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("main"), Image: &image, Memory: new(int32(128)), Command: []string{"whoami", "loop"}}}}); err != nil {
		t.Fatal(err)
	}
	run, err := one.ECS.RunTask(t.Context(), &ecs.RunTaskInput{Cluster: &cluster, TaskDefinition: &repository})
	if err != nil || len(run.Tasks) != 1 {
		t.Fatal(run, err)
	}
	arn := *run.Tasks[0].TaskArn
	written := func(ask *oneServer) (text string) {
		found, err := ask.FindTask(t.Context(), cluster, arn)
		if err != nil {
			return err.Error()
		}
		_ = ask.Logs(t.Context(), found, client.LogOptions{}, func(l client.LogLine) error { // it is asked again
			text += l.Message + "\n"
			return nil
		})
		return text
	}
	calls := func(ask *oneServer, when string) {
		t.Helper()
		from := -1
		eventually(t, func() error {
			text := written(ask)
			n := strings.Count(text, "loop ok")
			if from < 0 && n > 0 {
				from = n
			}
			if from < 0 || n < from+5 {
				return fmt.Errorf("%s: %d calls were answered, %d before:\n%s", when, n, from, text)
			}
			return nil
		})
	}
	calls(one, "at first")
	if want := "whoami arn:aws:sts::000000000000:assumed-role/app/" + path.Base(arn) + "\n"; !strings.HasPrefix(written(one), want) {
		t.Errorf("the program wrote %s, want %s first", written(one), want)
	}
	for i, victim := range s.all {
		s.kill(victim)
		calls(s.all[(i+1)%3], fmt.Sprint("without server ", i))
		s.start(victim, token)
		s.ready(victim)
	}
	agent.end(syscall.SIGKILL)
	startAgent()
	calls(one, "after the agent was killed")
	if text := written(one); strings.Contains(text, "InvalidIdInRequest") {
		t.Errorf("the id by which it asks was not known:\n%s", text)
	}
	if _, err := one.ECS.StopTask(t.Context(), &ecs.StopTaskInput{Cluster: &cluster, Task: &arn}); err != nil {
		t.Error(err)
	}
}

// pushSDK pushes the program with the AWS SDK that tests/e2e has.
func (one *oneServer) pushSDK(t *testing.T, repository string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sdkprogram")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", file, "github.com/seed-2f228079/neargate/tests/e2e/sdkprogram")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out, err := one.ECR.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &repository})
	if err != nil {
		t.Fatal(err)
	}
	image := *out.Repository.RepositoryUri + ":1"
	built := ocitest.Image(t, ociclient.Config{Entrypoint: []string{"/sdk"}}, []ociclient.File{ociclient.Executable("sdk", body)})
	if _, err := new(ociclient.Client).Push(t.Context(), image, ociclient.Credentials{User: "test", Password: "test"}, built); err != nil {
		t.Fatal(err)
	}
	return image
}
