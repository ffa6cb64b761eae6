package e2e

import (
	"fmt"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// TestMistakes makes the mistakes that users make with tasks and reads what became of them through the AWS CLI.
func TestMistakes(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	shell := p.pushShell()
	none := p.listen + "/shell:none"
	nowhere := p.listen + "/nowhere:1"
	outOfMemory, notFound := "OutOfMemoryError: Container killed due to memory usage", "CannotPullContainerError: "
	cases := []struct {
		name          string
		container     ecstypes.ContainerDefinition
		stopCode      string
		stoppedReason []string // parts, the first at its beginning
		exitCode      int      // -1: it has none
		reason        string   // beginning of the container's
	}{
		{"missing-image", ecstypes.ContainerDefinition{Image: &none}, "TaskFailedToStart", []string{notFound, none, "not found"}, -1, notFound},
		{"missing-repository", ecstypes.ContainerDefinition{Image: &nowhere}, "TaskFailedToStart", []string{notFound, nowhere}, -1, notFound},
		{"hungry", ecstypes.ContainerDefinition{Memory: aws.Int32(16), Command: []string{"busybox tail /dev/zero"}},
			"EssentialContainerExited", []string{"Essential container in task exited"}, 137, outOfMemory},
		{"failing", ecstypes.ContainerDefinition{Command: []string{"exit 7"}}, "EssentialContainerExited", []string{"Essential container in task exited"}, 7, ""},
		{"typo", ecstypes.ContainerDefinition{EntryPoint: []string{"/bin/nothing"}}, "TaskFailedToStart", []string{"CannotStartContainerError: ", "/bin/nothing"}, 127,
			"CannotStartContainerError: "},
	}
	var arns []string
	for _, c := range cases {
		if c.container.Image == nil {
			c.container.Image = &shell
		}
		arns = append(arns, p.runTask(p.register(c.name, c.container)))
	}
	p.aws(nil, append([]string{"ecs", "wait", "tasks-stopped", "--tasks"}, arns...)...)
	var out struct{ Tasks []task }
	p.aws(&out, append([]string{"ecs", "describe-tasks", "--tasks"}, arns...)...)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := out.Tasks[i]
			if got.StopCode != c.stopCode || !strings.HasPrefix(got.StoppedReason, c.stoppedReason[0]) {
				t.Errorf("stopped with %s: %q", got.StopCode, got.StoppedReason)
			}
			for _, part := range c.stoppedReason {
				if !strings.Contains(got.StoppedReason, part) {
					t.Errorf("the reason lacks %q: %q", part, got.StoppedReason)
				}
			}
			con, exit := got.Containers[0], -1
			if con.ExitCode != nil {
				exit = *con.ExitCode
			}
			if exit != c.exitCode || !strings.HasPrefix(con.Reason, c.reason) {
				t.Errorf("the container ended with %d, %q", exit, con.Reason)
			}
		})
	}
}

// TestNoPlace asks for more than there is.
func TestNoPlace(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	shell := p.pushShell()
	port, err := strconv.Atoi(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	family := p.register("port", ecstypes.ContainerDefinition{Image: &shell, Command: []string{"busybox httpd -f -p 80"},
		PortMappings: []ecstypes.PortMapping{{ContainerPort: aws.Int32(80), HostPort: aws.Int32(int32(port))}}})
	p.runTask(family)
	p.notPlaced(family, "RESOURCE:PORTS")
	p.notPlaced(p.register("fast", ecstypes.ContainerDefinition{Image: &shell, Cpu: 1 << 20}), "RESOURCE:CPU")
	huge := p.register("huge", ecstypes.ContainerDefinition{Image: &shell, Memory: aws.Int32(64 << 20)})
	p.notPlaced(huge, "RESOURCE:MEMORY")

	p.aws(nil, "ecs", "create-service", "--service-name", "huge", "--task-definition", huge, "--desired-count", "1")
	instance := path.Base(p.text("containerInstanceArns[0]", "ecs", "list-container-instances"))
	want := "(service huge) was unable to place a task because no container instance met all of its requirements. " +
		"The closest matching (container-instance " + instance + ") has insufficient memory available. " +
		"For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."
	eventually(t, 30*time.Second, "the service says that there is no capacity", func() (bool, string) {
		got := p.text("services[0].events[0].message", "ecs", "describe-services", "--services", "huge")
		return got == want, got
	})
}

// TestRefusals makes the mistakes that are answered at once, and wants AWS's words.
func TestRefusals(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	const calling = "An error occurred (%s) when calling the %s operation: %s"
	const (
		signature = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
		token     = "The security token included in the request is invalid."
	)
	p.refused(fmt.Sprintf(calling, "ClusterNotFoundException", "ListServices", "Cluster not found."), "ecs", "list-services", "--cluster", "nowhere")
	p.refused(fmt.Sprintf(calling, "ClientException", "RegisterTaskDefinition", "No Fargate configuration exists for given values: 256 CPU, 700 memory. "+
		"See the Amazon ECS documentation for the valid values."), "ecs", "register-task-definition", "--family", "f", "--requires-compatibilities", "FARGATE",
		"--network-mode", "awsvpc", "--cpu", "256", "--memory", "700", "--container-definitions", `[{"name":"a","image":"b"}]`)
	wrong := p.as("us-east-1", "test", "wrong")
	wrong.refused(fmt.Sprintf(calling, "InvalidSignatureException", "ListClusters", signature), "ecs", "list-clusters")
	wrong.refused(fmt.Sprintf(calling, "SignatureDoesNotMatch", "DescribeLoadBalancers", signature), "elbv2", "describe-load-balancers")
	unknown := p.as("us-east-1", "AKIAUNKNOWN", "test")
	unknown.refused(fmt.Sprintf(calling, "UnrecognizedClientException", "DescribeRepositories", token), "ecr", "describe-repositories")
	unknown.refused(fmt.Sprintf(calling, "AuthFailure", "DescribeVpcs", "AWS was not able to validate the provided access credentials"), "ec2", "describe-vpcs")
}

// register makes a task definition of one container, of 64 MiB unless it says otherwise, and returns its family.
func (p *platform) register(family string, c ecstypes.ContainerDefinition) string {
	p.t.Helper()
	c.Name = aws.String("main")
	if c.Memory == nil {
		c.Memory = aws.Int32(64)
	}
	_, err := p.client().ECS.RegisterTaskDefinition(p.t.Context(), &ecs.RegisterTaskDefinitionInput{Family: &family, ContainerDefinitions: []ecstypes.ContainerDefinition{c}})
	if err != nil {
		p.t.Fatal(err)
	}
	return family
}

// runTask runs one task, which must find a place, and returns its ARN.
func (p *platform) runTask(definition string) string {
	p.t.Helper()
	out, err := p.client().ECS.RunTask(p.t.Context(), &ecs.RunTaskInput{TaskDefinition: &definition})
	if err != nil {
		p.t.Fatal(err)
	}
	if len(out.Tasks) != 1 {
		p.t.Fatalf("run task %s: %+v", definition, out.Failures)
	}
	return *out.Tasks[0].TaskArn
}

// task is what DescribeTasks says of one, as far as it is looked at.
type task struct {
	LastStatus, StopCode, StoppedReason string
	Containers                          []struct {
		ExitCode *int
		Reason   string
	}
}

// notPlaced runs a task that no instance takes.
func (p *platform) notPlaced(family, reason string) {
	p.t.Helper()
	var out struct {
		Tasks    []task
		Failures []struct{ Arn, Reason string }
	}
	p.aws(&out, "ecs", "run-task", "--task-definition", family)
	if len(out.Tasks) != 0 || len(out.Failures) != 1 || out.Failures[0].Reason != reason || !strings.Contains(out.Failures[0].Arn, ":container-instance/") {
		p.t.Errorf("run-task %s: %+v, want no task and the failure %s", family, out, reason)
	}
}

// TestMalformed sends what no client of AWS would, with curl, which can sign.
func TestMalformed(t *testing.T) {
	t.Parallel()
	p := start(t)
	const json11, target = "Content-Type: application/x-amz-json-1.1", "X-Amz-Target: AmazonEC2ContainerServiceV20141113."
	for _, c := range []struct {
		name, service, body string
		headers             []string
		want                []string // in the answer
	}{
		{"unknown operation, JSON", "ecs", `{}`, []string{json11, target + "MakeCoffee"}, []string{"HTTP/1.1 400", `"__type":"UnknownOperationException"`}},
		{"no operation, JSON", "ecs", `{}`, []string{json11}, []string{"HTTP/1.1 400", `"__type":"UnknownOperationException"`}},
		{"half a body", "ecs", `{"a`, []string{json11, target + "ListClusters"}, []string{"HTTP/1.1 400", `"__type":"SerializationException"`}},
		{"wrong type", "ecs", `{"maxResults":"many"}`, []string{json11, target + "ListClusters"}, []string{"HTTP/1.1 400", `"__type":"SerializationException"`}},
		{"unknown operation, query", "elasticloadbalancing", "Action=MakeCoffee&Version=2015-12-01", nil,
			[]string{"HTTP/1.1 400", "<Type>Sender</Type><Code>InvalidAction</Code><Message>Could not find operation MakeCoffee for version 2015-12-01</Message>"}},
		{"no operation, query", "elasticloadbalancing", "Version=2015-12-01", nil, []string{"HTTP/1.1 400", "<Code>MissingAction</Code>"}},
		{"bad escape", "elasticloadbalancing", "Action=Descr%zz", nil, []string{"HTTP/1.1 400", "<Code>MalformedQueryString</Code>"}},
		{"wrong type, query", "elasticloadbalancing", "Action=DescribeLoadBalancers&Version=2015-12-01&PageSize=many", nil, []string{"HTTP/1.1 400", "<Code>MalformedInput</Code>"}},
		{"unknown operation, EC2", "ec2", "Action=MakeCoffee&Version=2016-11-15", nil,
			[]string{"HTTP/1.1 400", "<Code>InvalidAction</Code><Message>The action MakeCoffee is not valid for this web service.</Message>"}},
		{"operation that is not there yet", "ecs", `{"cluster":"default","service":"a"}`, []string{json11, target + "CreateTaskSet"}, []string{"HTTP/1.1 501", "not implemented"}},
		{"service that is not there", "sqs", `{}`, []string{"Content-Type: application/x-amz-json-1.0", "X-Amz-Target: AmazonSQS.ListQueues"},
			[]string{"HTTP/1.1 501", "The service sqs is not implemented."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"--silent", "--include", "--user", "test:test", "--aws-sigv4", "aws:amz:us-east-1:" + c.service, "--data", c.body}
			for _, h := range c.headers {
				args = append(args, "--header", h)
			}
			out, err := exec.Command("curl", append(args, p.endpoint+"/")...).Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range c.want {
				if !strings.Contains(string(out), part) {
					t.Errorf("the answer lacks %s:\n%s", part, out)
				}
			}
			if !strings.Contains(strings.ToLower(string(out)), "x-amzn-requestid: ") {
				t.Errorf("the answer has no request id:\n%s", out)
			}
		})
	}
	if out, err := exec.Command("curl", "--silent", "--include", "--data", "{}", p.endpoint+"/").CombinedOutput(); err != nil || !strings.Contains(string(out), "HTTP/1.1 403") {
		t.Errorf("without a signature: %v\n%s", err, out)
	}
}
