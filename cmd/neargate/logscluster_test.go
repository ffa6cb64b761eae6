package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	cwltypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/agent/runtime/native"
	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

func (one *oneServer) logs() *cloudwatchlogs.Client {
	return cloudwatchlogs.New(cloudwatchlogs.Options{BaseEndpoint: &one.url, HTTPClient: sdkhttp.New(nil), Region: "us-east-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		})})
}

// TestLogsOfThreeServers: events are taken and answered by any server, and followed with `aws logs tail` on one, while the leader, which
// has written them, is killed and comes back; then another.
func TestLogsOfThreeServers(t *testing.T) {
	s := startServers(t, 3)
	ctx := t.Context()
	_, others := s.leader()
	group, stream := "kept", "by-hand"
	if _, err := others[0].logs().CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &group}); err != nil {
		t.Fatal(err)
	}
	if _, err := others[1].logs().CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream}); err != nil {
		t.Fatal(err)
	}
	tail := follow(t, others[0], group)
	written := 0
	write := func(n int) {
		t.Helper()
		for range n {
			text := fmt.Sprint("event ", written)
			eventually(t, func() error { // a server may be gone; what was not acknowledged is written again
				one := s.all[written%len(s.all)]
				if one.process == nil {
					one = others[0]
				}
				_, err := one.logs().PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream,
					LogEvents: []cwltypes.InputLogEvent{{Timestamp: aws.Int64(time.Now().UnixMilli()), Message: &text}}})
				return err
			})
			written++
		}
	}
	holds := func(when string) {
		t.Helper()
		for _, one := range s.all {
			if one.process == nil {
				continue
			}
			var got []string
			pages := cloudwatchlogs.NewFilterLogEventsPaginator(one.logs(), &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group, Limit: aws.Int32(50)})
			for pages.HasMorePages() {
				out, err := pages.NextPage(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range out.Events {
					got = append(got, *e.Message)
				}
			}
			if missing := inTurn(slices.Compact(got), "event ", written); missing != "" {
				t.Errorf("%s, by server %s: %s", when, one.peers, missing)
			}
		}
	}
	write(60)
	holds("at first")
	for range 2 {
		dead, left := s.leader()
		if dead == others[0] { // whom the client follows
			dead = left[0]
		}
		s.kill(dead)
		write(60)
		holds("without a server")
		s.start(dead, token)
		s.ready(dead)
		write(60)
		holds("with it again")
	}
	tail(written)
}

// inTurn says what is wrong with lines that should be prefix0, prefix1 … up to n.
func inTurn(lines []string, prefix string, n int) string {
	for i, l := range lines {
		if want := fmt.Sprint(prefix, i); l != want {
			return fmt.Sprintf("line %d of %d is %q", i, len(lines), l)
		}
	}
	if len(lines) != n {
		return fmt.Sprintf("%d lines of %d", len(lines), n)
	}
	return ""
}

// follow runs `aws logs tail --follow` on a server; what it returns waits for n events in their order.
func follow(t *testing.T, one *oneServer, group string) func(n int) {
	const cli = "/usr/bin/aws"
	if out, _ := exec.Command(cli, "--version").CombinedOutput(); !strings.HasPrefix(string(out), "aws-cli/2") {
		return func(int) { t.Log("no AWS CLI of version 2 is on this machine: aws logs tail is not tried") }
	}
	cmd := exec.Command(cli, "--endpoint-url", one.url, "logs", "tail", group, "--follow", "--since", "10m", "--format", "short")
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_REGION=us-east-1", "AWS_MAX_ATTEMPTS=20", "PYTHONUNBUFFERED=1")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints lockedBuffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var lines []string
	read := make(chan struct{})
	go func() {
		defer close(read)
		for in := bufio.NewScanner(pipe); in.Scan(); {
			_, text, _ := strings.Cut(in.Text(), " ")
			mu.Lock()
			lines = append(lines, text)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { cmd.Process.Kill(); <-read; cmd.Wait() })
	return func(n int) {
		t.Helper()
		var shown []string // what was written again may be shown again
		eventually(t, func() error {
			mu.Lock()
			defer mu.Unlock()
			if shown = slices.Compact(slices.Clone(lines)); len(shown) < n {
				return fmt.Errorf("aws logs tail has shown %d lines of %d: %s", len(shown), n, complaints.String())
			}
			return nil
		})
		if wrong := inTurn(shown, "event ", n); wrong != "" {
			t.Errorf("aws logs tail --follow: %s", wrong)
		}
	}
}

// TestContainersLogsOutliveServers: each line of a container comes to its log stream once, whichever server is killed meanwhile.
func TestContainersLogsOutliveServers(t *testing.T) {
	if lacks := native.Check(); len(lacks) > 0 {
		t.Skip("this host cannot run containers: " + strings.Join(lacks, "; "))
	}
	// All servers know images by the address of one, so that the agent may be with any.
	s := &servers{t: t, peers: freeAddresses(t, 3)}
	listen := freeAddresses(t, 3)
	named := []string{"--bootstrap-expect", "3", "--public-name", listen[0]}
	for i := range 3 {
		s.all = append(s.all, &oneServer{dir: t.TempDir(), listen: listen[i], peers: s.peers[i]})
		s.start(s.all[i], token, named...)
	}
	for _, one := range s.all {
		s.ready(one)
	}
	ctx := t.Context()
	host := &site{t: t, agentDir: t.TempDir(), peers: strings.Join(s.peers, ","), Client: s.all[0].Client}
	t.Cleanup(func() { removeEverything(t, host.agentDir) })
	cluster, family := "apart", "ticker"
	if _, err := host.ECS.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	host.startAgent("native", token)
	image := host.push(t, "ticker")
	if _, err := host.ECS.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{
		Family: &family, NetworkMode: ecstypes.NetworkModeBridge,
		ContainerDefinitions: []ecstypes.ContainerDefinition{{
			Name: new("app"), Image: &image, Cpu: 64, Memory: new(int32(256)), Command: []string{"tick"},
			LogConfiguration: &ecstypes.LogConfiguration{LogDriver: ecstypes.LogDriverAwslogs, Options: map[string]string{
				"awslogs-region": "us-east-1", "awslogs-group": "ticks", "awslogs-create-group": "true", "awslogs-stream-prefix": "p",
			}},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		out, err := host.ECS.RunTask(ctx, &ecs.RunTaskInput{Cluster: &cluster, TaskDefinition: &family, LaunchType: ecstypes.LaunchTypeEc2})
		if err == nil && len(out.Failures) > 0 {
			err = fmt.Errorf("run the task: %s", *out.Failures[0].Reason)
		}
		return err
	})
	host.running(1)
	seen := 0
	grown := func(when string) {
		t.Helper()
		eventually(t, func() error {
			for _, one := range s.all {
				if one.process == nil {
					continue
				}
				var got []string
				pages := cloudwatchlogs.NewFilterLogEventsPaginator(one.logs(), &cloudwatchlogs.FilterLogEventsInput{LogGroupName: aws.String("ticks")})
				for pages.HasMorePages() {
					out, err := pages.NextPage(ctx)
					if err != nil {
						return err
					}
					for _, e := range out.Events {
						got = append(got, *e.Message)
					}
				}
				if wrong := inTurn(got, "tick ", len(got)); wrong != "" {
					t.Fatalf("%s, by server %s: %s", when, one.peers, wrong)
				}
				if len(got) < seen+20 {
					return fmt.Errorf("%s: %d lines, after %d", when, len(got), seen)
				}
				seen = len(got)
				return nil
			}
			return nil
		})
	}
	grown("at first")
	for range 2 {
		dead, _ := s.leader()
		s.kill(dead)
		grown("without a server")
		s.start(dead, token, named...)
		s.ready(dead)
		grown("with it again")
	}
}
