package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/coder/websocket"

	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

// amazonAgent speaks the protocol of Amazon's ECS agent, and only pretends to run containers. It outlives connections and servers.
type amazonAgent struct {
	p           *platform
	key, secret string
	arn         string // of its container instance

	mu       sync.Mutex
	endpoint string
	tasks    map[string]map[string]any // by ARN: the last payload of each
	gone     []string                  // ARNs of those that it was told to stop because they were in no manifest
}

func (p *platform) amazonAgent(key, secret string) *amazonAgent {
	return &amazonAgent{p: p, key: key, secret: secret, endpoint: p.endpoint, tasks: map[string]map[string]any{}}
}

func (a *amazonAgent) credentials() aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: a.key, SecretAccessKey: a.secret}, nil
	})
}

func (a *amazonAgent) ecs() *ecs.Client {
	a.mu.Lock()
	endpoint := a.endpoint
	a.mu.Unlock()
	return ecs.NewFromConfig(aws.Config{Region: "us-east-1", BaseEndpoint: &endpoint, HTTPClient: sdkhttp.New(nil), Credentials: a.credentials()})
}

// register makes it an instance of the default cluster, or says again that it is.
func (a *amazonAgent) register(t *testing.T) {
	t.Helper()
	in := &ecs.RegisterContainerInstanceInput{
		TotalResources: []types.Resource{
			{Name: aws.String("CPU"), Type: aws.String("INTEGER"), IntegerValue: 1024}, {Name: aws.String("MEMORY"), Type: aws.String("INTEGER"), IntegerValue: 1024},
			{Name: aws.String("PORTS"), Type: aws.String("STRINGSET"), StringSetValue: []string{"22"}},
		},
		Attributes: []types.Attribute{
			{Name: aws.String("com.amazonaws.ecs.capability.docker-remote-api.1.18")}, {Name: aws.String("com.amazonaws.ecs.capability.task-iam-role")}, {Name: aws.String("tier"), Value: aws.String("edge")},
			{Name: aws.String("com.amazonaws.ecs.capability.logging-driver.json-file")}, {Name: aws.String("ecs.capability.container-health-check")},
		},
	}
	if a.arn != "" {
		in.ContainerInstanceArn = &a.arn
	}
	a.arn = *must(a.ecs().RegisterContainerInstance(t.Context(), in))(t).ContainerInstance.ContainerInstanceArn
}

// dial opens a channel as the agent does: a request that is signed, and made again to upgrade.
func (a *amazonAgent) dial(ctx context.Context, telemetry bool) (*websocket.Conn, error) {
	out, err := a.ecs().DiscoverPollEndpoint(ctx, &ecs.DiscoverPollEndpointInput{ContainerInstance: &a.arn})
	if err != nil {
		return nil, err
	}
	u := *out.Endpoint + "ws?" + url.Values{"clusterArn": {"default"}, "containerInstanceArn": {a.arn}, "agentVersion": {"1.105.1"}, "agentHash": {"a8b3e7d3"},
		"dockerVersion": {"DockerVersion: 25.0.6"}, "seqNum": {"1"}, "protocolVersion": {"2"}, "sendCredentials": {"true"}}.Encode()
	if telemetry {
		u = *out.TelemetryEndpoint + "ws?" + url.Values{"cluster": {"default"}, "containerInstance": {a.arn}}.Encode()
	}
	r, err := http.NewRequest(http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	credentials, _ := a.credentials().Retrieve(ctx)
	const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if err := v4.NewSigner().SignHTTP(ctx, credentials, r, nothing, "ecs", "us-east-1", time.Now()); err != nil {
		return nil, err
	}
	conn, answer, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(u, "http"), &websocket.DialOptions{HTTPHeader: r.Header})
	if err != nil {
		if answer != nil {
			body, _ := io.ReadAll(answer.Body)
			return nil, fmt.Errorf("%s: %s", answer.Status, body)
		}
		return nil, err
	}
	conn.SetReadLimit(1 << 20)
	return conn, nil
}

// run polls until ctx ends, with another connection whenever one ends.
func (a *amazonAgent) run(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := a.dial(ctx, false)
		if err != nil {
			select { // a server that is not there just now
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		for err == nil {
			err = a.next(ctx, conn)
		}
		conn.CloseNow()
	}
}

// start runs it until the returned function is called.
func (a *amazonAgent) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); a.run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

type message struct {
	Type    string         `json:"type"`
	Message map[string]any `json:"message"`
}

func say(ctx context.Context, conn *websocket.Conn, kind string, m map[string]any) error {
	b, err := json.Marshal(message{kind, m})
	if err != nil {
		return err
	}
	return conn.Write(ctx, websocket.MessageText, b)
}

// next answers one message.
func (a *amazonAgent) next(ctx context.Context, conn *websocket.Conn) error {
	_, b, err := conn.Read(ctx)
	if err != nil {
		return err
	}
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	ack := func() error {
		return say(ctx, conn, "AckRequest", map[string]any{"cluster": m.Message["clusterArn"], "containerInstance": m.Message["containerInstanceArn"], "messageId": m.Message["messageId"]})
	}
	switch m.Type {
	case "PayloadMessage":
		for _, one := range m.Message["tasks"].([]any) {
			if err := a.takeTask(ctx, one.(map[string]any)); err != nil {
				return err
			}
		}
		return ack()
	case "TaskManifestMessage":
		listed := map[string]bool{}
		for _, one := range m.Message["tasks"].([]any) {
			listed[one.(map[string]any)["taskArn"].(string)] = true
		}
		var candidates []map[string]any
		a.mu.Lock()
		for arn, task := range a.tasks {
			if !listed[arn] && task["desiredStatus"] == "RUNNING" {
				candidates = append(candidates, map[string]any{"taskArn": arn, "taskClusterArn": task["taskClusterArn"], "desiredStatus": "STOPPED"})
			}
		}
		a.mu.Unlock()
		if len(candidates) > 0 {
			if err := say(ctx, conn, "TaskStopVerificationMessage", map[string]any{"messageId": m.Message["messageId"], "stopCandidates": candidates}); err != nil {
				return err
			}
		}
		return ack()
	case "TaskStopVerificationAck":
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, one := range m.Message["stopTasks"].([]any) {
			if arn := one.(map[string]any)["taskArn"].(string); !slices.Contains(a.gone, arn) { // each manifest has it asked anew
				a.gone = append(a.gone, arn)
			}
		}
	case "HeartbeatMessage":
		return say(ctx, conn, "HeartbeatAckRequest", map[string]any{"messageId": m.Message["messageId"]})
	}
	return nil
}

// takeTask does what a payload says, at once.
func (a *amazonAgent) takeTask(ctx context.Context, task map[string]any) error {
	arn, desired := task["arn"].(string), task["desiredStatus"].(string)
	a.mu.Lock()
	before, known := a.tasks[arn]
	a.tasks[arn] = task
	a.mu.Unlock()
	if known && before["desiredStatus"] == desired {
		return nil // sent again
	}
	in := &ecs.SubmitTaskStateChangeInput{Task: &arn, Status: &desired}
	for _, one := range task["containers"].([]any) {
		c := types.ContainerStateChange{ContainerName: aws.String(one.(map[string]any)["name"].(string)), Status: &desired, RuntimeId: aws.String("0123456789ab")}
		if desired == "STOPPED" {
			c.ExitCode = aws.Int32(143)
		} else {
			c.NetworkBindings = []types.NetworkBinding{{BindIP: aws.String("0.0.0.0"), ContainerPort: aws.Int32(80), HostPort: aws.Int32(32768), Protocol: "tcp"}}
		}
		in.Containers = append(in.Containers, c)
	}
	_, err := a.ecs().SubmitTaskStateChange(ctx, in)
	if err != nil { // it is sent again in the next session, and not known until then
		a.mu.Lock()
		defer a.mu.Unlock()
		if delete(a.tasks, arn); known {
			a.tasks[arn] = before
		}
	}
	return err
}

func (a *amazonAgent) task(arn string) map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tasks[arn]
}

// connected waits until the platform shows that the agent is, or is not.
func (a *amazonAgent) connected(t *testing.T, want bool) {
	t.Helper()
	eventually(t, time.Minute, fmt.Sprintf("agentConnected to be %v", want), func() (bool, string) {
		out, err := a.ecs().DescribeContainerInstances(t.Context(), &ecs.DescribeContainerInstancesInput{ContainerInstances: []string{a.arn}})
		if err != nil || len(out.ContainerInstances) != 1 {
			return false, fmt.Sprint(err)
		}
		return out.ContainerInstances[0].AgentConnected == want, "it is not"
	})
}

func (a *amazonAgent) becomes(t *testing.T, task, want string) {
	t.Helper()
	eventually(t, 2*time.Minute, "the task to become "+want, func() (bool, string) {
		out, err := a.ecs().DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{task}})
		if err != nil || len(out.Tasks) != 1 {
			return false, fmt.Sprint(err)
		}
		return *out.Tasks[0].LastStatus == want, *out.Tasks[0].LastStatus
	})
}

const onEdge = "type=memberOf,expression=attribute:tier == edge"

// TestAmazonAgent: a host with Amazon's agent runs tasks. The server is killed meanwhile, and what runs goes on.
func TestAmazonAgent(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startOn(t, "fake")
	a := p.amazonAgent("test", "test")
	p.text("cluster.status", "ecs", "create-cluster")
	a.register(t)
	role := p.role("app")
	p.text("taskDefinition.family", "ecs", "register-task-definition", "--family", "web", "--task-role-arn", role, "--container-definitions",
		`[{"name":"web","image":"web:1","memory":64,"cpu":128,"command":["run"],"environment":[{"name":"A","value":"1"}],"portMappings":[{"containerPort":80}],
		"logConfiguration":{"logDriver":"json-file"},"ulimits":[{"name":"nofile","softLimit":10,"hardLimit":20}],"healthCheck":{"command":["CMD","true"]}}]`)
	run := func() string {
		t.Helper()
		return p.text("tasks[0].taskArn", "ecs", "run-task", "--task-definition", "web", "--placement-constraints", onEdge)
	}
	// Registered is not connected.
	a.connected(t, false)
	if arn := run(); arn != "None" {
		t.Fatalf("a task runs where no agent is: %s", arn)
	}
	stop := a.start(t)
	a.connected(t, true)
	if v := p.text("containerInstances[0].versionInfo.[agentVersion,agentHash,dockerVersion]", "ecs", "describe-container-instances", "--container-instances", a.arn); v != "1.105.1\ta8b3e7d3\tDockerVersion: 25.0.6" {
		t.Errorf("version %q", v)
	}
	task := run()
	a.becomes(t, task, "RUNNING")
	if port := p.text("tasks[0].containers[0].networkBindings[0].hostPort", "ecs", "describe-tasks", "--tasks", task); port != "32768" {
		t.Errorf("host port %s", port)
	}
	checkPayload(t, a.task(task))
	checkCredentials(t, p, a.task(task), role)
	checkHealth(t, a, task)

	// The server is lost, and comes back at another address.
	p.cmd.Process.Kill()
	<-p.done
	p.run()
	a.mu.Lock()
	a.endpoint = p.endpoint
	a.mu.Unlock()
	a.connected(t, true)
	a.becomes(t, task, "RUNNING")
	before := a.task(task)["roleCredentials"].(map[string]any)
	p.text("task.taskArn", "ecs", "stop-task", "--task", task)
	a.becomes(t, task, "STOPPED")
	if got := p.text("tasks[0].[stopCode,containers[0].exitCode]", "ecs", "describe-tasks", "--tasks", task); got != "UserInitiated\t143" {
		t.Errorf("stopped: %q", got)
	}

	// While it is away a task's end is decided elsewhere: it learns that from the manifest.
	other := run()
	a.becomes(t, other, "RUNNING")
	if id := a.task(other)["roleCredentials"].(map[string]any)["credentialsId"]; id == before["credentialsId"] {
		t.Error("two tasks have the same id of credentials")
	}
	stop()
	a.connected(t, false)
	p.text("containerInstance.status", "ecs", "deregister-container-instance", "--container-instance", a.arn, "--force")
	if _, err := a.dial(t.Context(), false); err == nil || !strings.Contains(err.Error(), "InactiveInstanceException") {
		t.Errorf("an instance that is deregistered: %v", err)
	}
	a.becomes(t, other, "STOPPED")
	a.mu.Lock()
	foreign := strings.Replace(other, "/default/", "/default/0", 1)
	a.tasks[foreign] = map[string]any{"arn": foreign, "taskClusterArn": "default", "desiredStatus": "RUNNING"}
	a.mu.Unlock()
	a.register(t)
	a.start(t)
	eventually(t, time.Minute, "the agent to stop the task that is over", func() (bool, string) {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.gone) == 1 && a.gone[0] == other, fmt.Sprint(a.gone) // and not the one that the platform knows nothing of
	})
}

func checkPayload(t *testing.T, task map[string]any) {
	t.Helper()
	c := task["containers"].([]any)[0].(map[string]any)
	if c["image"] != "web:1" || c["cpu"] != 128.0 || c["memory"] != 64.0 || c["essential"] != true || c["healthCheckType"] != "docker" ||
		fmt.Sprint(c["command"]) != "[run]" || fmt.Sprint(c["environment"]) != "map[A:1]" || fmt.Sprint(c["portMappings"]) != "[map[containerPort:80 hostPort:0 protocol:tcp]]" {
		t.Errorf("container %v", c)
	}
	docker := c["dockerConfig"].(map[string]any)
	var host struct {
		NetworkMode string
		LogConfig   struct{ Type string }
		Ulimits     []struct{ Soft, Hard int }
	}
	if err := json.Unmarshal([]byte(docker["hostConfig"].(string)), &host); err != nil || host.NetworkMode != "bridge" || host.LogConfig.Type != "json-file" || len(host.Ulimits) != 1 || host.Ulimits[0].Hard != 20 {
		t.Errorf("host config %v, %v", docker["hostConfig"], err)
	}
	if task["family"] != "web" || task["version"] != "1" || task["networkMode"] != "bridge" {
		t.Errorf("task %v", task)
	}
}

// checkCredentials uses those that came with the task.
func checkCredentials(t *testing.T, p *platform, task map[string]any, role string) {
	t.Helper()
	c := task["roleCredentials"].(map[string]any)
	as := *p
	as.extra = []string{"AWS_ACCESS_KEY_ID=" + c["accessKeyId"].(string), "AWS_SECRET_ACCESS_KEY=" + c["secretAccessKey"].(string), "AWS_SESSION_TOKEN=" + c["sessionToken"].(string)}
	if who := as.text("Arn", "sts", "get-caller-identity"); c["roleArn"] != role || !strings.Contains(who, "assumed-role/app/") {
		t.Errorf("the task is %s", who)
	}
}

// checkHealth sends what the agent's health checks have found, by telemetry.
func checkHealth(t *testing.T, a *amazonAgent, task string) {
	t.Helper()
	conn, err := a.dial(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	text, err := json.Marshal(message{"PublishHealthRequest", map[string]any{
		"metadata": map[string]any{"cluster": "default", "containerInstance": a.arn, "messageId": "1", "fin": true}, "timestamp": 1.0,
		"tasks": []any{map[string]any{"taskArn": task, "containers": []any{map[string]any{"containerName": "web", "healthStatus": "HEALTHY", "statusSince": 1.5}}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	text = append([]byte("Host: ecs\r\nAuthorization: AWS4-HMAC-SHA256 …\r\n\r\n"), text...)
	if err := conn.Write(t.Context(), websocket.MessageText, text); err != nil {
		t.Fatal(err)
	}
	for answer := ""; answer != "AckPublishHealth"; {
		_, b, err := conn.Read(t.Context())
		var m message
		if err = errors.Join(err, json.Unmarshal(b, &m)); err != nil {
			t.Fatal(err)
		}
		answer = m.Type
	}
	if got := a.p.text("tasks[0].[healthStatus,containers[0].healthStatus]", "ecs", "describe-tasks", "--tasks", task); got != "HEALTHY\tHEALTHY" {
		t.Errorf("health %q", got)
	}
}

// TestAmazonAgentNeedsPermission: who polls must be allowed to, for the instance.
func TestAmazonAgentNeedsPermission(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startOn(t, "fake")
	p.text("cluster.status", "ecs", "create-cluster")
	user := must(p.iam().CreateUser(t.Context(), &iam.CreateUserInput{UserName: aws.String("host")}))(t).User
	allow := func(actions string) {
		t.Helper()
		document := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":[` + actions + `],"Resource":"*","Condition":{"ArnEquals":{"ecs:cluster":"arn:aws:ecs:us-east-1:000000000000:cluster/default"}}}}`
		must(p.iam().PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: user.UserName, PolicyName: aws.String("p"), PolicyDocument: &document}))(t)
	}
	key := must(p.iam().CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: user.UserName}))(t).AccessKey
	allow(`"ecs:RegisterContainerInstance","ecs:DiscoverPollEndpoint"`)
	a := p.amazonAgent(*key.AccessKeyId, *key.SecretAccessKey)
	a.register(t)
	for _, telemetry := range []bool{false, true} {
		if _, err := a.dial(t.Context(), telemetry); err == nil || !strings.Contains(err.Error(), "AccessDeniedException") {
			t.Errorf("telemetry %v: %v", telemetry, err)
		}
	}
	allow(`"ecs:DiscoverPollEndpoint","ecs:Poll"`)
	conn, err := a.dial(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	conn.CloseNow()
	if _, err := a.ecs().SubmitTaskStateChange(t.Context(), &ecs.SubmitTaskStateChangeInput{Task: aws.String("t"), Status: aws.String("RUNNING")}); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("submitted: %v", err)
	}
	a.secret += "x"
	if _, err := a.dial(t.Context(), false); err == nil {
		t.Error("a wrong secret opens a channel")
	}
}

// TestRegisterContainerInstanceByCLI: what is registered by hand is there, without an agent.
func TestRegisterContainerInstanceByCLI(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startOn(t, "fake")
	p.text("cluster.status", "ecs", "create-cluster", "--cluster-name", "edge")
	got := p.text("containerInstance.[status,agentConnected,ec2InstanceId]", "ecs", "register-container-instance", "--cluster", "edge",
		"--total-resources", "name=CPU,type=INTEGER,integerValue=2048", "name=MEMORY,type=INTEGER,integerValue=4096", "name=PORTS,type=STRINGSET,stringSetValue=22",
		"--instance-identity-document", `{"instanceId":"i-1","availabilityZone":"us-east-1c"}`, "--version-info", "agentVersion=1.0", "--tags", "key=a,value=b")
	if got != "ACTIVE\tFalse\ti-1" {
		t.Errorf("registered: %q", got)
	}
	p.refused("An error occurred (InvalidParameterException) when calling the RegisterContainerInstance operation: totalResources must have CPU and MEMORY.", "ecs", "register-container-instance", "--cluster", "edge")
	if got := p.text("containerInstanceArns | length(@)", "ecs", "list-container-instances", "--cluster", "edge", "--filter", "agentConnected == false"); got != "1" {
		t.Errorf("listed %s", got)
	}
}
