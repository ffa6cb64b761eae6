package ecs

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

func agentOf(t types.Task) (status string, started bool) {
	if a := t.Containers[0].ManagedAgents; len(a) == 1 && a[0].Name == types.ManagedAgentNameExecuteCommandAgent {
		return *a[0].LastStatus, a[0].LastStartedAt != nil
	}
	return "", false
}

func TestExecuteCommand(t *testing.T) {
	p := world(t)
	task := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web"), EnableExecuteCommand: true}).Tasks[0]
	if status, started := agentOf(task); status != "PENDING" || started || !task.EnableExecuteCommand {
		t.Errorf("before it runs the agent is %s, %v", status, started)
	}
	in := &ecs.ExecuteCommandInput{Task: task.TaskArn, Command: aws.String(`sh -c "echo 'a b'"`), Interactive: true}
	const notEnabled = "The execute command failed because execute command was not enabled when the task was run or the execute command agent isn’t running. Wait and try again or run a new task with execute command enabled and try again."
	refusedCommand(p, in, "InvalidParameterException", notEnabled)

	p.report("default", agentapi.TaskState_RUNNING)
	running := p.describeTask(task.TaskArn)
	if status, started := agentOf(running); status != "RUNNING" || !started {
		t.Errorf("while it runs the agent is %s, %v", status, started)
	}
	out := must(p, p.executeCommand, in)
	if *out.ContainerName != "web" || *out.TaskArn != *task.TaskArn || *out.ClusterArn != here.ClusterARN("default") || *out.ContainerArn != *running.Containers[0].ContainerArn || !out.Interactive {
		t.Errorf("got %+v", out)
	}
	if *out.Session.SessionId != `web on node: ["sh" "-c" "echo 'a b'"]` {
		t.Errorf("the session is %s", *out.Session.SessionId)
	}
	for want, change := range map[string]func(in *ecs.ExecuteCommandInput){
		"Interactive is the only mode supported currently.": func(in *ecs.ExecuteCommandInput) { in.Interactive = false },
		"command can not be blank.":                         func(in *ecs.ExecuteCommandInput) { in.Command = aws.String("  ") },
		"command can not be read: a quote is not closed.":   func(in *ecs.ExecuteCommandInput) { in.Command = aws.String("sh 'x") },
		"The task has no container nope.":                   func(in *ecs.ExecuteCommandInput) { in.Container = aws.String("nope") },
		"The referenced task was not found.":                func(in *ecs.ExecuteCommandInput) { in.Task = aws.String("0123456789abcdef0123456789abcdef") },
		"command can not be longer than 16384 characters.":  func(in *ecs.ExecuteCommandInput) { in.Command = aws.String(string(make([]byte, maxCommand+1))) },
	} {
		bad := *in
		change(&bad)
		refusedCommand(p, &bad, "InvalidParameterException", want)
	}
	refusedCommand(p, &ecs.ExecuteCommandInput{Cluster: aws.String("nope"), Task: task.TaskArn, Command: in.Command, Interactive: true}, "ClusterNotFoundException", "Cluster not found.")

	must(p, p.stopTask, &ecs.StopTaskInput{Task: task.TaskArn})
	p.report("default", agentapi.TaskState_STOPPED)
	if status, _ := agentOf(p.describeTask(task.TaskArn)); status != "STOPPED" {
		t.Errorf("after its end the agent is %s", status)
	}
	refusedCommand(p, in, "InvalidParameterException", notEnabled)
}

func TestExecuteCommandOfServices(t *testing.T) {
	p := world(t)
	must(p, p.createService, &ecs.CreateServiceInput{ServiceName: aws.String("s"), TaskDefinition: aws.String("web"), DesiredCount: aws.Int32(1), EnableExecuteCommand: true})
	before := p.describeService("s")
	if !before.EnableExecuteCommand {
		t.Error("it is not enabled")
	}
	updated := must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("s"), EnableExecuteCommand: aws.Bool(false)}).Service
	if updated.EnableExecuteCommand || *updated.Deployments[0].Id != *before.Deployments[0].Id {
		t.Errorf("after the update: %v, deployment %s", updated.EnableExecuteCommand, *updated.Deployments[0].Id)
	}
	if kept := must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("s"), DesiredCount: aws.Int32(2)}).Service; kept.EnableExecuteCommand {
		t.Error("an update without it changed it")
	}
}

// TestSessionsAreKeptAsTheClusterSays: a session takes along what its cluster says when it begins, and a cluster says nothing that cannot be done.
func TestSessionsAreKeptAsTheClusterSays(t *testing.T) {
	p := world(t)
	task := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web"), EnableExecuteCommand: true}).Tasks[0]
	p.report("default", agentapi.TaskState_RUNNING)
	set := func(logging types.ExecuteCommandLogging, to *types.ExecuteCommandLogConfiguration) error {
		_, err := p.updateCluster(p.ctx(), &ecs.UpdateClusterInput{Cluster: aws.String("default"), Configuration: &types.ClusterConfiguration{
			ExecuteCommandConfiguration: &types.ExecuteCommandConfiguration{Logging: logging, LogConfiguration: to}}})
		return err
	}
	begin := func() *controlplane.SessionLog {
		t.Helper()
		must(p, p.executeCommand, &ecs.ExecuteCommandInput{Task: task.TaskArn, Command: aws.String("sh"), Interactive: true})
		return p.sessionLog
	}
	if to := begin(); to != nil {
		t.Errorf("without awslogs, and without a word, it is kept in %+v", to)
	}
	audit := &types.ExecuteCommandLogConfiguration{CloudWatchLogGroupName: aws.String("audit")}
	if err := set(types.ExecuteCommandLoggingOverride, audit); err != nil {
		t.Fatal(err)
	}
	if to := begin(); to == nil || *to != (controlplane.SessionLog{Group: "audit", Region: "us-east-1"}) {
		t.Errorf("it is kept in %+v", to)
	}
	shown := must(p, p.describeClusters, &ecs.DescribeClustersInput{Include: []types.ClusterField{types.ClusterFieldConfigurations}}).Clusters[0].Configuration.ExecuteCommandConfiguration
	if shown.Logging != types.ExecuteCommandLoggingOverride || *shown.LogConfiguration.CloudWatchLogGroupName != "audit" {
		t.Errorf("the cluster shows %+v", shown)
	}
	for want, err := range map[string]error{
		"must name a log group or a bucket when logging is OVERRIDE":   set(types.ExecuteCommandLoggingOverride, nil),
		"can only be specified when logging is OVERRIDE":               set(types.ExecuteCommandLoggingNone, audit),
		"is not the name of a log group":                               set(types.ExecuteCommandLoggingOverride, &types.ExecuteCommandLogConfiguration{CloudWatchLogGroupName: aws.String("a b")}),
		"logConfiguration.s3BucketName' is not supported":              set(types.ExecuteCommandLoggingOverride, &types.ExecuteCommandLogConfiguration{S3BucketName: aws.String("b")}),
		"logConfiguration.cloudWatchEncryptionEnabled' is not support": set(types.ExecuteCommandLoggingOverride, &types.ExecuteCommandLogConfiguration{CloudWatchLogGroupName: aws.String("audit"), CloudWatchEncryptionEnabled: true}),
	} {
		if e, ok := awserr.As(err); !ok || !strings.Contains(e.Message, want) {
			t.Errorf("got %v, want …%s", err, want)
		}
	}

	p.SessionBuckets = true
	for want, to := range map[string]types.ExecuteCommandLogConfiguration{
		"s3BucketName is not the name of a bucket":                 {S3BucketName: aws.String("B")},
		"s3KeyPrefix must be at most":                              {S3BucketName: aws.String("audit"), S3KeyPrefix: aws.String("a b")},
		"s3KeyPrefix and s3EncryptionEnabled need an s3BucketName": {CloudWatchLogGroupName: aws.String("audit"), S3KeyPrefix: aws.String("a")},
	} {
		if e, ok := awserr.As(set(types.ExecuteCommandLoggingOverride, &to)); !ok || !strings.Contains(e.Message, want) {
			t.Errorf("got %v, want …%s", e, want)
		}
	}
	if err := set(types.ExecuteCommandLoggingOverride, &types.ExecuteCommandLogConfiguration{S3BucketName: aws.String("audit"), S3KeyPrefix: aws.String("a/"), S3EncryptionEnabled: true}); err != nil {
		t.Fatal(err)
	}
	if to := begin(); to == nil || *to != (controlplane.SessionLog{Region: "us-east-1", Bucket: "audit", Prefix: "a/", Encrypted: true}) {
		t.Errorf("it is kept in %+v", to)
	}
}

func TestExecuteCommandKeys(t *testing.T) {
	p := newPlatform(t)
	for _, o := range p.Operations() {
		if o.Name != "ExecuteCommand" {
			continue
		}
		in := &ecs.ExecuteCommandInput{Cluster: aws.String("c"), Task: aws.String("id"), Container: aws.String("db")}
		need := o.Needs(api.CallFrom(p.ctx()), in)[0]
		if !cmp.Equal(need.Resources, []string{here.TaskARN("c", "id")}) {
			t.Errorf("the resources are %q", need.Resources)
		}
		for key, want := range map[string]string{"ecs:container-name": "db", "ecs:cluster": here.ClusterARN("c")} {
			if got, ok := need.Key(key); !ok || !cmp.Equal(got, []string{want}) {
				t.Errorf("%s is %q", key, got)
			}
		}
		return
	}
	t.Error("there is no ExecuteCommand")
}

func TestSplitCommand(t *testing.T) {
	for line, want := range map[string][]string{
		"":                      nil,
		" \t\n":                 nil,
		"ls":                    {"ls"},
		" ls  -l /tmp ":         {"ls", "-l", "/tmp"},
		`sh -c 'a "b" $c'`:      {"sh", "-c", `a "b" $c`},
		`x "a \"b\" \\ \n 'c'"`: {"x", `a "b" \ \n 'c'`},
		`a\ b c\'d`:             {"a b", "c'd"},
		`''`:                    {""},
		`a''b"c"d`:              {"abcd"},
		`'it'\''s' "$HOME" *`:   {"it's", "$HOME", "*"},
		"größe 'zwei wörter'":   {"größe", "zwei wörter"},
	} {
		if got, err := splitCommand(line); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", line, got, err, want)
		}
	}
	for _, line := range []string{`a\`, `"a`, `'a`, `'a\'`} {
		if got, err := splitCommand(line); line != `'a\'` && err == nil {
			t.Errorf("%s is read as %q", line, got)
		}
	}
}

func FuzzSplitCommand(f *testing.F) {
	f.Add(`sh -c "echo 'a b'"`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitCommand(line)
		if err != nil {
			return
		}
		n := 0
		for _, w := range words {
			n += len(w)
		}
		if n > len(line)*3 { // a byte that is no UTF-8 becomes three
			t.Errorf("%q became %q", line, words)
		}
	})
}

func refusedCommand(p *platform, in *ecs.ExecuteCommandInput, code, message string) {
	p.t.Helper()
	_, err := p.executeCommand(p.ctx(), in)
	if e, ok := awserr.As(err); !ok || e.Code != code || e.Message != message {
		p.t.Errorf("got %v, want %s: %s", err, code, message)
	}
}
