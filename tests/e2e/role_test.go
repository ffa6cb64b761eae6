package e2e

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

const tasksTrusted = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"ecs-tasks.amazonaws.com"}}}`

// iam is a client with the root credentials.
func (p *platform) iam() *iam.Client {
	return iam.NewFromConfig(aws.Config{Region: "us-east-1", BaseEndpoint: &p.endpoint, HTTPClient: sdkhttp.New(nil), Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
	})})
}

// role makes a role for tasks that may do these actions, and returns its ARN.
func (p *platform) role(name string, actions ...string) string {
	p.t.Helper()
	out := must(p.iam().CreateRole(p.t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(tasksTrusted)}))(p.t)
	p.mayDo(name, actions...)
	return *out.Role.Arn
}

// mayDo replaces what the role may do.
func (p *platform) mayDo(role string, actions ...string) {
	p.t.Helper()
	document := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Resource":"*","Action":["` + strings.Join(append(actions, "none:None"), `","`) + `"]}}`
	must(p.iam().PutRolePolicy(p.t.Context(), &iam.PutRolePolicyInput{RoleName: &role, PolicyName: aws.String("p"), PolicyDocument: &document}))(p.t)
}

// pushSDK pushes an image of nothing but a program that uses the AWS SDK.
func (p *platform) pushSDK() (ref string) {
	p.t.Helper()
	file := filepath.Join(p.t.TempDir(), "sdkprogram")
	if out, err := goBuild("0", "-ldflags", "-s -w", "-o", file, "./tests/e2e/sdkprogram"); err != nil {
		p.t.Fatalf("build the program: %v\n%s", err, out)
	}
	body, err := os.ReadFile(file)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.push("sdk", "1", ociclient.Config{Entrypoint: []string{"/sdk"}}, ociclient.Executable("sdk", body))
}

// ends waits for the task's end and returns it.
func (p *platform) ends(arn string) ecstypes.Task {
	p.t.Helper()
	var task ecstypes.Task
	eventually(p.t, 2*time.Minute, "the task to end", func() (bool, string) {
		out, err := p.client().ECS.DescribeTasks(p.t.Context(), &ecs.DescribeTasksInput{Tasks: []string{arn}})
		if err != nil || len(out.Tasks) != 1 {
			p.t.Fatalf("%+v, %v", out, err)
		}
		task = out.Tasks[0]
		return *task.LastStatus == "STOPPED", *task.LastStatus
	})
	return task
}

// lines are what the task's container wrote.
func (p *platform) lines(arn string) []string {
	p.t.Helper()
	out, errs, err := p.neargate("logs", path.Base(arn))
	if err != nil {
		p.t.Fatalf("logs: %v %s", err, errs)
	}
	return strings.Split(strings.TrimSpace(out), "\n")
}

// TestTaskRole: a program with the AWS SDK, of which nothing is configured, finds credentials of its task's role and the API, may do what the
// role may, and protects its task from scale-in.
func TestTaskRole(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"native", "docker"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			if driver == "docker" {
				dockerEngine(t)
			}
			p := startWith(t, driver, []string{"--allow-privileged"})
			c := p.client().ECS
			p.role("app", "ecs:ListClusters", "ecs:UpdateTaskProtection")
			image := p.pushSDK()
			register := func(family, role string, mode ecstypes.NetworkMode, command ...string) {
				t.Helper()
				in := &ecs.RegisterTaskDefinitionInput{Family: &family, NetworkMode: mode, ContainerDefinitions: []ecstypes.ContainerDefinition{
					{Name: aws.String("main"), Image: &image, Memory: aws.Int32(128), Command: command}}}
				if role != "" {
					in.TaskRoleArn = &role
				}
				must(c.RegisterTaskDefinition(t.Context(), in))(t)
			}
			denied := func(arn, action, resource string) string {
				return "AccessDeniedException: User: arn:aws:sts::000000000000:assumed-role/app/" + path.Base(arn) + " is not authorized to perform: " + action +
					" on resource: " + resource + " because no identity-based policy allows the " + action + " action"
			}
			for _, mode := range []ecstypes.NetworkMode{"bridge", "host"} {
				register("asks-"+string(mode), "app", mode, "whoami", "provider", "list", "create", "others")
				arn := p.runTask("asks-" + string(mode))
				p.ends(arn)
				want := []string{
					"whoami arn:aws:sts::000000000000:assumed-role/app/" + path.Base(arn), "provider CredentialsEndpointProvider true",
					"list arn:aws:ecs:us-east-1:000000000000:cluster/default", "create " + denied(arn, "ecs:CreateCluster", "arn:aws:ecs:us-east-1:000000000000:cluster/mine"),
					`GET 400 {"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}`,
				}
				if mode == "host" {
					want = want[:4] // the host is not the bridge
				}
				if got := p.lines(arn); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
					t.Errorf("%s: the program wrote\n%s\nwant\n%s", mode, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}

			register("plain", "", "bridge", "protect", "instance")
			arn := p.runTask("plain")
			p.ends(arn)
			if got, want := p.lines(arn), []string{`PUT 403 {"error":{"Arn":"` + arn + `","Code":"AccessDeniedException","Message":"Invalid Request: no task IAM role credentials available for task"}}`,
				"instance false"}; !slices.Equal(got, want) {
				t.Errorf("without a role:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}

			register("busy", "app", "bridge", "protect", "protection", "wait")
			must(c.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: aws.String("busy"), TaskDefinition: aws.String("busy"), DesiredCount: aws.Int32(1)}))(t)
			eventually(t, time.Minute, "the service's task", func() (bool, string) {
				list := must(c.ListTasks(t.Context(), &ecs.ListTasksInput{ServiceName: aws.String("busy")}))(t).TaskArns
				if len(list) == 1 {
					arn = list[0]
				}
				return len(list) == 1, "none"
			})
			var got []string
			eventually(t, time.Minute, "its protection", func() (bool, string) {
				out, _, _ := p.neargate("logs", path.Base(arn))
				got = strings.Split(strings.TrimSpace(out), "\n")
				return len(got) == 2, out
			})
			if !strings.HasPrefix(got[0], `PUT 200 {"protection":{"ExpirationDate":"20`) || !strings.HasSuffix(got[0], `Z","ProtectionEnabled":true,"TaskArn":"`+arn+`"}}`) {
				t.Errorf("protect: %s", got[0])
			}
			if !strings.HasPrefix(got[1], `GET 400 {"requestID":"`) || !strings.Contains(got[1], `"error":{"Arn":"`+arn+`","Code":"AccessDeniedException","Message":"User: arn:aws:sts::000000000000:assumed-role/app/`) {
				t.Errorf("protection, which the role may not ask for: %s", got[1])
			}
			said := must(c.GetTaskProtection(t.Context(), &ecs.GetTaskProtectionInput{Cluster: aws.String("default"), Tasks: []string{arn}}))(t).ProtectedTasks
			if len(said) != 1 || !said[0].ProtectionEnabled {
				t.Errorf("the API says %+v", said)
			}
			must(c.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: aws.String("busy"), Force: aws.Bool(true)}))(t)
		})
	}
}

// TestExecutionRole: images and logs are the execution role's to get and to write.
func TestExecutionRole(t *testing.T) {
	t.Parallel()
	p := start(t)
	c := p.client().ECS
	image := p.pushSDK()
	role := p.role("execution")
	var granted []string
	run := func() ecstypes.Task {
		t.Helper()
		must(c.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: aws.String("f"), ExecutionRoleArn: &role, ContainerDefinitions: []ecstypes.ContainerDefinition{{
			Name: aws.String("main"), Image: &image, Memory: aws.Int32(64), Command: []string{"others"},
			LogConfiguration: awslogs("group=made", "create-group=true", "stream-prefix=p")}}}))(t)
		return p.ends(p.runTask("f"))
	}
	for _, step := range []struct{ grant, reason string }{
		{"", "CannotPullECRContainerError: AccessDeniedException: User: arn:aws:sts::000000000000:assumed-role/execution/TASK is not authorized to perform: ecr:GetAuthorizationToken on resource: * " +
			"because no identity-based policy allows the ecr:GetAuthorizationToken action"},
		{"ecr:GetAuthorizationToken", "CannotPullContainerError: "},
		{"ecr:BatchGetImage", "CannotPullContainerError: "},
		{"ecr:GetDownloadUrlForLayer", "CannotStartContainerError: Error response from daemon: failed to initialize logging driver: failed to create Cloudwatch log stream: AccessDeniedException: " +
			"User: arn:aws:sts::000000000000:assumed-role/execution/TASK is not authorized to perform: logs:CreateLogStream on resource: arn:aws:logs:us-east-1:000000000000:log-group:made:log-stream:p/main/TASK "},
		{"logs:*", ""},
	} {
		actions := []string{step.grant}
		if step.grant == "" {
			actions = nil
		}
		granted = append(granted, actions...)
		p.mayDo("execution", granted...)
		task := run()
		want := strings.ReplaceAll(step.reason, "TASK", path.Base(*task.TaskArn))
		if got := aws.ToString(task.StoppedReason); want != "" && !strings.HasPrefix(got, want) || want == "" && task.StopCode != ecstypes.TaskStopCodeEssentialContainerExited {
			t.Errorf("with %v: %s %s\nwant %s", granted, task.StopCode, got, want)
		}
	}
	// A service tells of a role that does not let tasks assume it.
	must(p.iam().UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: aws.String("execution"), PolicyDocument: aws.String(strings.Replace(tasksTrusted, "ecs-tasks", "ec2", 1))}))(t)
	must(c.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: aws.String("s"), TaskDefinition: aws.String("f"), DesiredCount: aws.Int32(1)}))(t)
	const unable = "ECS was unable to assume the role 'arn:aws:iam::000000000000:role/execution' that was provided for this task. " +
		"Please verify that the role being passed has the proper trust relationship and permissions and that your IAM user has permissions to pass this role."
	eventually(t, time.Minute, "the service's word", func() (bool, string) {
		events := must(c.DescribeServices(t.Context(), &ecs.DescribeServicesInput{Services: []string{"s"}}))(t).Services[0].Events
		return len(events) > 0 && *events[0].Message == "(service s) failed to launch a task with (error "+unable+").", ""
	})
	if _, err := c.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: aws.String("f")}); err == nil || !strings.Contains(err.Error(), "ClientException: "+unable) {
		t.Errorf("run task: %v", err)
	}
}
