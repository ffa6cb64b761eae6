package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// mistake is a case of testdata/errors/outcomes/task.json.
type mistake struct {
	Name      string
	Container json.RawMessage // by AWS's member names; SHELL and REGISTRY stand for the test's image and registry, PORT for a port in use

	// What became of the task.
	StopCode      string
	StoppedReason []string // parts, the first at its beginning
	ExitCode      *int     // nil: it has none
	Reason        string   // beginning of the container's

	Failure string // instead: why RunTask places no task
	Event   string // and what a service says of it; INSTANCE stands for the host
}

// mistakes are the cases with the words that stand for others replaced; placed selects those that get a host.
func (p *platform) mistakes(placed bool, shell, port string) (all []mistake) {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(repo, "testdata/errors/outcomes/task.json"))
	if err != nil {
		p.t.Fatal(err)
	}
	words := strings.NewReplacer("SHELL", shell, "REGISTRY", p.listen, `"PORT"`, port)
	if err := json.Unmarshal([]byte(words.Replace(string(b))), &all); err != nil {
		p.t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(m mistake) bool { return (m.Failure == "") != placed })
	if len(all) < 3 {
		p.t.Fatalf("only %d cases", len(all))
	}
	return all
}

// definition registers the case's container and returns its family.
func (p *platform) definition(m mistake) string {
	p.t.Helper()
	p.aws(nil, "ecs", "register-task-definition", "--family", m.Name, "--container-definitions", "["+string(m.Container)+"]")
	return m.Name
}

// TestMistakes makes the mistakes that users make with tasks and reads what became of them through the AWS CLI.
func TestMistakes(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	cases := p.mistakes(true, p.pushShell(), "0")
	var arns []string
	for _, c := range cases {
		arns = append(arns, p.runTask(p.definition(c)))
	}
	p.aws(nil, append([]string{"ecs", "wait", "tasks-stopped", "--tasks"}, arns...)...)
	var out struct{ Tasks []task }
	p.aws(&out, append([]string{"ecs", "describe-tasks", "--tasks"}, arns...)...)
	for i, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			got := out.Tasks[i]
			if got.StopCode != c.StopCode || !strings.HasPrefix(got.StoppedReason, c.StoppedReason[0]) {
				t.Errorf("stopped with %s: %q", got.StopCode, got.StoppedReason)
			}
			for _, part := range c.StoppedReason {
				if !strings.Contains(got.StoppedReason, part) {
					t.Errorf("the reason lacks %q: %q", part, got.StoppedReason)
				}
			}
			con := got.Containers[0]
			if !reflect.DeepEqual(con.ExitCode, c.ExitCode) || !strings.HasPrefix(con.Reason, c.Reason) {
				t.Errorf("the container ended with %v, %q", con.ExitCode, con.Reason)
			}
		})
	}
}

// TestNoPlace asks for more than there is.
func TestNoPlace(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	shell, port := p.pushShell(), freePort(t)
	p.runTask(p.definition(mistake{Name: "first", Container: json.RawMessage(
		`{"name": "main", "image": "` + shell + `", "memory": 64, "command": ["busybox httpd -f -p 80"], "portMappings": [{"containerPort": 80, "hostPort": ` + port + `}]}`)}))
	instance := path.Base(p.text("containerInstanceArns[0]", "ecs", "list-container-instances"))
	for _, c := range p.mistakes(false, shell, port) {
		family := p.definition(c)
		p.notPlaced(family, c.Failure)
		if c.Event == "" {
			continue
		}
		p.aws(nil, "ecs", "create-service", "--service-name", family, "--task-definition", family, "--desired-count", "1")
		want := strings.ReplaceAll(c.Event, "INSTANCE", instance)
		eventually(t, time.Minute, "the service "+family+" says that there is no capacity", func() (bool, string) {
			got := p.text("services[0].events[0].message", "ecs", "describe-services", "--services", family)
			return got == want, got
		})
	}
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
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl on this machine (Debian: apt-get install curl)")
	}
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
