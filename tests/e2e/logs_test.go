package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// awslogs is the configuration of the driver with these options beside the region.
func awslogs(options ...string) *ecstypes.LogConfiguration {
	l := &ecstypes.LogConfiguration{LogDriver: ecstypes.LogDriverAwslogs, Options: map[string]string{"awslogs-region": "us-east-1"}}
	for _, o := range options {
		k, v, _ := strings.Cut(o, "=")
		l.Options["awslogs-"+k] = v
	}
	return l
}

// logEvents are the messages of a stream, page by page, by the AWS CLI.
func (p *platform) logEvents(group, stream string) (messages []string) {
	p.t.Helper()
	token := []string{"--start-from-head"}
	for {
		var out struct {
			Events           []struct{ Message string }
			NextForwardToken string
		}
		p.aws(&out, append([]string{"logs", "get-log-events", "--log-group-name", group, "--log-stream-name", stream, "--limit", "1000"}, token...)...)
		for _, e := range out.Events {
			messages = append(messages, e.Message)
		}
		if len(out.Events) < 1000 { // the writer may be faster than this client: no waiting for an empty page
			return messages
		}
		token = []string{"--start-from-head", "--next-token", out.NextForwardToken}
	}
}

// inOrder says how many lines "line 0", "line 1" … there are, or what is wrong with them.
func inOrder(lines []string) (n int, err error) {
	for i, l := range lines {
		if want := fmt.Sprintf("line %d", i); l != want {
			return i, fmt.Errorf("line %d of %d is %q", i, len(lines), l)
		}
	}
	return len(lines), nil
}

// TestLogs: what a service with the driver awslogs writes is read with the AWS CLI, in order and each line once, also when the
// platform is killed in between.
func TestLogs(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	shell := p.pushShell()
	const group = "/ecs/counter"
	p.aws(nil, "logs", "create-log-group", "--log-group-name", group, "--tags", "team=a")
	p.aws(nil, "logs", "put-retention-policy", "--log-group-name", group, "--retention-in-days", "7")
	p.register("counter", ecstypes.ContainerDefinition{Image: &shell, LogConfiguration: awslogs("group="+group, "stream-prefix=web"),
		Command: []string{"i=0; while :; do echo line $i; i=$((i+1)); busybox usleep 20000; done"}})
	p.aws(nil, "ecs", "create-service", "--service-name", "counter", "--task-definition", "counter", "--desired-count", "1")

	var stream string
	eventually(t, time.Minute, "a stream with events", func() (bool, string) {
		stream = p.text("logStreams[?lastEventTimestamp].logStreamName", "logs", "describe-log-streams", "--log-group-name", group, "--order-by", "LastEventTime")
		return stream != "", "none"
	})
	task := p.text("taskArns[0]", "ecs", "list-tasks", "--service-name", "counter")
	if want := "web/main/" + task[strings.LastIndexByte(task, '/')+1:]; stream != want {
		t.Fatalf("stream %s, want %s", stream, want)
	}
	p.tailed(group)
	before := 0
	eventually(t, time.Minute, "lines from before the platform is killed", func() (ok bool, why string) {
		var err error
		if before, err = inOrder(p.logEvents(group, stream)); err != nil {
			t.Fatal(err)
		}
		return before > 20, fmt.Sprintf("%d lines", before)
	})
	var found struct {
		Events []struct{ Message, LogStreamName, EventId string }
	}
	p.aws(&found, "logs", "filter-log-events", "--log-group-name", group, "--filter-pattern", `"line 1" -10`, "--max-items", "3")
	if e := found.Events; len(e) != 3 || e[0].Message != "line 1" || e[1].Message != "line 11" || e[2].LogStreamName != stream {
		t.Errorf("filter-log-events answers %+v", e)
	}
	if got := p.text("logGroups[0].[retentionInDays,storedBytes>`0`]", "logs", "describe-log-groups", "--log-group-name-prefix", group); got != "7\tTrue" {
		t.Errorf("the group: %s", got)
	}

	for range 2 {
		p.cmd.Process.Kill()
		<-p.done
		p.run()
		after := 0
		eventually(t, time.Minute, "lines from after the platform was killed", func() (bool, string) {
			var err error
			if after, err = inOrder(p.logEvents(group, stream)); err != nil {
				t.Fatal(err)
			}
			return after > before+20, fmt.Sprintf("%d lines", after)
		})
		before = after
	}
	out, errs, err := p.neargate("logs", task[strings.LastIndexByte(task, '/')+1:], "--tail", "3")
	if err != nil || !strings.HasPrefix(out, "line ") {
		t.Errorf("neargate logs: %v\n%s%s", err, out, errs)
	}
}

// tailed follows a group with `aws logs tail`, which the AWS CLI has from version 2 on.
func (p *platform) tailed(group string) {
	p.t.Helper()
	cli := ""
	for _, c := range awsCommands() {
		if out, _ := exec.Command(c, "--version").CombinedOutput(); strings.HasPrefix(string(out), "aws-cli/2") {
			cli = c
		}
	}
	if cli == "" {
		p.t.Log("no AWS CLI of version 2 is on this machine: aws logs tail is not tried")
		return
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, cli, "--endpoint-url", p.endpoint, "logs", "tail", group, "--follow", "--since", "10m", "--format", "short")
	cmd.Env = append(p.environment(), "PYTHONUNBUFFERED=1")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	var lines []string
	for in := bufio.NewScanner(pipe); len(lines) < 300 && in.Scan(); {
		_, message, _ := strings.Cut(in.Text(), " ")
		lines = append(lines, message)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if n, err := inOrder(lines); err != nil || n < 300 {
		p.t.Errorf("aws logs tail --follow: %d lines, %v", n, err)
	}
}

// TestLogDrivers: what the other options and drivers do.
func TestLogDrivers(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	shell := p.pushShell()
	stopped := func(family string, l *ecstypes.LogConfiguration, command string) (arn string, out task) {
		t.Helper()
		arn = p.runTask(p.register(family, ecstypes.ContainerDefinition{Image: &shell, LogConfiguration: l, Command: []string{command}}))
		p.aws(nil, "ecs", "wait", "tasks-stopped", "--tasks", arn)
		var all struct{ Tasks []task }
		p.aws(&all, "ecs", "describe-tasks", "--tasks", arn)
		return arn, all.Tasks[0]
	}
	_, failed := stopped("lost", awslogs("group=none", "stream-prefix=p"), "echo never")
	if want := "ResourceNotFoundException: The specified log group does not exist."; failed.StopCode != "TaskFailedToStart" || !strings.Contains(failed.StoppedReason, want) {
		t.Errorf("without the group: %+v", failed)
	}
	arn, _ := stopped("multi", awslogs("group=made", "create-group=true", "stream-prefix=p", "multiline-pattern=^[A-Z]"),
		"echo Error; echo ' at a'; echo ' at b'; echo Next")
	stream := "p/main/" + arn[strings.LastIndexByte(arn, '/')+1:]
	eventually(t, time.Minute, "two events", func() (bool, string) {
		got := strings.Join(p.logEvents("made", stream), "|")
		return got == "Error\n at a\n at b|Next", got
	})
	quiet, _ := stopped("quiet", &ecstypes.LogConfiguration{LogDriver: ecstypes.LogDriverJsonFile, Options: map[string]string{"max-size": "8k"}},
		"i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done")
	out, _, err := p.neargate("logs", quiet[strings.LastIndexByte(quiet, '/')+1:])
	if err != nil || len(out) > 8<<10 || !strings.HasSuffix(out, "line 1999\n") {
		t.Errorf("with max-size: %v, %d bytes", err, len(out))
	}
	// What a task writes while the platform ends arrives with the platform's next start.
	arn = p.runTask(p.register("last", ecstypes.ContainerDefinition{Image: &shell, LogConfiguration: awslogs("group=made", "stream-prefix=p"),
		Command: []string{"trap 'echo bye; exit 0' TERM; echo up; while :; do busybox usleep 50000; done"}}))
	stream = "p/main/" + arn[strings.LastIndexByte(arn, '/')+1:]
	p.aws(nil, "ecs", "wait", "tasks-running", "--tasks", arn)
	arrived := func(want string) {
		t.Helper()
		eventually(t, time.Minute, "the lines "+want, func() (bool, string) {
			got := strings.Join(p.logEvents("made", stream), "|")
			return got == want, got
		})
	}
	arrived("up")
	p.stop()
	p.run()
	arrived("up|bye")

	const refusal = "An error occurred (ClientException) when calling the RegisterTaskDefinition operation: "
	for options, want := range map[string]string{
		"logDriver=splunk": "Log driver splunk requires options: splunk-token, splunk-url",
		"logDriver=awslogs,options={awslogs-group=g,awslogs-region=r,foo=bar}": "Log driver awslogs disallows options: foo",
	} {
		p.refused(refusal+want, "ecs", "register-task-definition", "--family", "f", "--container-definitions",
			"name=c,image=i,memory=64,logConfiguration={"+options+"}")
	}
}

// TestFluentdGoesOnWithoutThePlatform: what a container writes gets to its receiver, each line once and in order, also while the platform is
// dead, and syslog gets its lines with their tag.
func TestFluentdGoesOnWithoutThePlatform(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	shell := p.pushShell()
	forward, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer forward.Close()
	arrived := make(chan string, 1000)
	go func() {
		defer close(arrived)
		c, err := forward.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		line := regexp.MustCompile(`line \d+;`)
		var rest []byte
		for b := make([]byte, 4096); ; {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			rest = append(rest, b[:n]...)
			for at := line.FindIndex(rest); at != nil; at = line.FindIndex(rest) {
				arrived <- string(rest[at[0]:at[1]])
				rest = rest[at[1]:]
			}
		}
	}()
	next := 0
	come := func(when string, n int) {
		t.Helper()
		for end := time.After(5 * time.Minute); n > 0; n-- { // at first with the start of the task
			select {
			case l := <-arrived:
				if want := fmt.Sprintf("line %d;", next); l != want {
					t.Fatalf("%s: %q has come, not %q", when, l, want)
				}
				next++
			case <-end:
				t.Fatalf("%s: nothing comes after line %d", when, next)
			}
		}
	}
	arn := p.runTask(p.register("forward", ecstypes.ContainerDefinition{Image: &shell, Command: []string{"i=0; while :; do echo \"line $i;\"; i=$((i+1)); busybox usleep 20000; done"},
		LogConfiguration: &ecstypes.LogConfiguration{LogDriver: ecstypes.LogDriverFluentd,
			Options: map[string]string{"fluentd-address": forward.Addr().String(), "mode": "blocking", "tag": "app.{{.Name}}"}}}))
	come("at first", 50)
	p.cmd.Process.Kill()
	<-p.done
	come("without the platform", 100)
	p.run()
	come("with it again", 50)
	out, errs, err := p.neargate("logs", arn[strings.LastIndexByte(arn, '/')+1:], "--tail", "3")
	if err != nil || !strings.HasPrefix(out, "line ") {
		t.Errorf("neargate logs: %v\n%s%s", err, out, errs)
	}

	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	p.runTask(p.register("syslog", ecstypes.ContainerDefinition{Image: &shell, Command: []string{"echo to syslog"},
		LogConfiguration: &ecstypes.LogConfiguration{LogDriver: ecstypes.LogDriverSyslog,
			Options: map[string]string{"syslog-address": "udp://" + datagrams.LocalAddr().String(), "tag": "app/{{.Name}}", "syslog-facility": "local1"}}}))
	b := make([]byte, 1000)
	if err := datagrams.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	n, _, err := datagrams.ReadFrom(b)
	if got := string(b[:n]); err != nil || !strings.HasPrefix(got, "<142>") || !strings.Contains(got, " app/main[") || !strings.HasSuffix(got, "]: to syslog") {
		t.Errorf("syslog got %q, %v", got, err)
	}
}
