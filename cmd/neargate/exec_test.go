package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/client"
)

// TestExecOnServers runs commands on an agent whose session is with one of several servers, through each of them; then the agent is
// killed under one.
func TestExecOnServers(t *testing.T) {
	s := startServers(t, 3)
	cluster := "apart"
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	agent := s.startFakeAgent(t.TempDir())
	task, err := s.all[0].Run(t.Context(), client.Deployment{Name: "web", Image: "registry.test/web:1", Cluster: cluster, Memory: 16, CPU: 16, Exec: true})
	if err != nil {
		t.Fatal(err)
	}
	(&site{t: t, Client: s.all[0].Client}).running(1)

	// Each server tells what happened by itself, and all say the same.
	ids := make([]string, len(s.all))
	eventually(t, func() error {
		for i, one := range s.all {
			ids[i] = ""
			err := one.Events(t.Context(), client.EventOptions{Cluster: cluster, DetailType: "ECS Task State Change"}, func(e client.Event) error {
				if strings.HasSuffix(e.Resources[0], "/"+task.ID) && strings.Contains(string(e.Detail), `"lastStatus":"RUNNING"`) {
					ids[i] = cmp.Or(ids[i], e.ID)
				}
				return nil
			})
			if err != nil || ids[i] == "" {
				return fmt.Errorf("server %d tells nothing of the task that runs: %v", i, err)
			}
		}
		return nil
	})
	if ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("the event has the ids %q", ids)
	}

	text := bytes.Repeat([]byte("0123456789abcdef"), 60_000)
	for i, one := range s.all {
		var out bytes.Buffer
		code, err := one.Exec(t.Context(), task, client.ExecOptions{Command: []string{"cat"}, Stdin: bytes.NewReader(text), Stdout: &out, Stderr: io.Discard})
		if err != nil || code != 0 || !bytes.Equal(out.Bytes(), text) {
			t.Errorf("through server %d: code %d, %v, %d bytes of %d", i, code, err, out.Len(), len(text))
		}
	}
	eventually(t, func() error {
		records := 0
		for _, one := range s.all {
			records += strings.Count(one.output(), "a session of ECS Exec ended")
		}
		if records != len(s.all) {
			return fmt.Errorf("%d records of %d sessions", records, len(s.all))
		}
		return nil
	})

	var killed sync.WaitGroup
	for _, one := range s.all {
		r, w := io.Pipe()
		defer w.Close()
		echoed := make(echoes, 1)
		killed.Go(func() {
			_, err := one.Exec(t.Context(), task, client.ExecOptions{Command: []string{"cat"}, Stdin: r, Stdout: echoed, Stderr: io.Discard})
			if err == nil || !strings.Contains(err.Error(), "the connection to the node was lost") {
				t.Errorf("the agent was killed, and the session ended with %v", err)
			}
		})
		if _, err := io.WriteString(w, "hello"); err != nil {
			t.Fatal(err)
		}
		<-echoed
	}
	agent.end(syscall.SIGKILL)
	killed.Wait()
}

// TestSessionsAreLoggedThroughTheLeader: whichever server a session is on, and whichever its client comes to, what it shows is in the cluster's
// log group, in a stream of its own.
func TestSessionsAreLoggedThroughTheLeader(t *testing.T) {
	s := startServers(t, 3)
	cluster, group := "apart", "audit"
	leader, others := s.leader()
	if _, err := leader.logs().CreateLogGroup(t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &group}); err != nil {
		t.Fatal(err)
	}
	if _, err := leader.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster, Configuration: &ecstypes.ClusterConfiguration{
		ExecuteCommandConfiguration: &ecstypes.ExecuteCommandConfiguration{Logging: ecstypes.ExecuteCommandLoggingOverride,
			LogConfiguration: &ecstypes.ExecuteCommandLogConfiguration{CloudWatchLogGroupName: &group}}}}); err != nil {
		t.Fatal(err)
	}
	agent := start(t, "agent", "-v", "--data", t.TempDir(), "--servers", others[0].peers, "--cluster", cluster, "--runtime", "fake", "--join-token", token)
	agent.says(`agent (\S+) is connected`) // to a server that does not lead, and so are the sessions
	task, err := leader.Run(t.Context(), client.Deployment{Name: "web", Image: "registry.test/web:1", Cluster: cluster, Memory: 16, CPU: 16, Exec: true})
	if err != nil {
		t.Fatal(err)
	}
	(&site{t: t, Client: leader.Client}).running(1)
	var want []string
	for i, one := range s.all {
		text := fmt.Sprintf("typed to server %d\n", i)
		code, err := one.Exec(t.Context(), task, client.ExecOptions{Command: []string{"cat"}, Stdin: strings.NewReader(text), Stdout: io.Discard, Stderr: io.Discard})
		if err != nil || code != 0 {
			t.Fatalf("through server %d: code %d, %v", i, code, err)
		}
		want = append(want, strings.TrimSpace(text))
	}
	eventually(t, func() error {
		out, err := others[1].logs().FilterLogEvents(t.Context(), &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group})
		if err != nil {
			return err
		}
		var got []string
		streams := map[string]bool{}
		for _, e := range out.Events {
			got = append(got, *e.Message)
			streams[*e.LogStreamName] = strings.HasPrefix(*e.LogStreamName, "ecs-execute-command-")
		}
		if slices.Sort(got); !slices.Equal(got, want) || len(streams) != len(want) || slices.Contains(slices.Collect(maps.Values(streams)), false) {
			return fmt.Errorf("the log has %q in %v, want %q", got, streams, want)
		}
		return nil
	})
}

// echoes tells when something was written.
type echoes chan struct{}

func (e echoes) Write(b []byte) (int, error) {
	select {
	case e <- struct{}{}:
	default:
	}
	return len(b), nil
}
