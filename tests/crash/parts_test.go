package crash

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/agent/runtime/docker"
)

// TestPartsKilled: a shim or a container that is killed from outside ends its task, with the reason told and nothing of it left, and
// the service replaces it; the other task is not touched.
func TestPartsKilled(t *testing.T) {
	p := newPlatform(t)
	p.start()
	p.deploy("web", 2)
	for _, c := range []struct {
		name   string
		pids   func(h host, task string) []int
		dead   bool // while no platform runs
		reason string
		code   int32
	}{
		{"container", func(h host, task string) []int { return h.containers[task] }, false, "", 137},
		{"shim", func(h host, task string) []int { return h.shims[task] }, false, "the process that watched over the task's containers is gone", 137},
		{"container without platform", func(h host, task string) []int { return h.containers[task] }, true, "", 137},
		{"shim without platform", func(h host, task string) []int { return h.shims[task] }, true, "the process that watched over the task's containers is gone", 137},
	} {
		before := mustIdentities(t, p, "web", 2)
		h := look(t, p.dir)
		victim := h.folders[0]
		if c.dead {
			p.kill()
		}
		for _, pid := range c.pids(h, victim) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatalf("%s: kill %d: %v", c.name, pid, err)
			}
		}
		if c.dead {
			p.start()
		}
		var stopped ecstypes.Task
		eventually(t, patience, func() error {
			out, err := p.ECS.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Cluster: aws.String(cluster), Tasks: []string{victim}})
			if err != nil {
				return err
			}
			if len(out.Tasks) != 1 || *out.Tasks[0].LastStatus != "STOPPED" {
				return fmt.Errorf("%s: its task is not stopped: %+v", c.name, out.Tasks)
			}
			stopped = out.Tasks[0]
			return nil
		})
		con := stopped.Containers[0]
		if stopped.StopCode != ecstypes.TaskStopCodeEssentialContainerExited || aws.ToInt32(con.ExitCode) != c.code || !strings.Contains(aws.ToString(con.Reason), c.reason) {
			t.Errorf("%s: task ended with %s, container with %d %q", c.name, stopped.StopCode, aws.ToInt32(con.ExitCode), aws.ToString(con.Reason))
		}
		after := mustIdentities(t, p, "web", 2)
		kept := 0
		for _, id := range after {
			if slices.Contains(before, id) {
				kept++
			}
		}
		if kept != 1 {
			t.Errorf("%s: %d of the containers before go on, want 1\nbefore:\n%s\nafter:\n%s", c.name, kept, strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
		eventually(t, 3*patience, p.settled)
		eventually(t, patience, func() error { _, err := p.balanced("web"); return err })
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, p)
}

// TestDockerKill: on a Docker engine, too, containers outlive kill -9 of the platform and are taken over; Ctrl-C removes them.
func TestDockerKill(t *testing.T) {
	probe, err := docker.New(docker.Config{Dir: t.TempDir(), ID: "probe"})
	if err != nil {
		t.Fatal(err)
	}
	if lacks := probe.Check(t.Context()); len(lacks) > 0 {
		t.Skip(lacks[0])
	}
	p := newPlatform(t, "--runtime", "docker")
	p.start()
	p.deploy("web", 2)
	steady := mustIdentities(t, p, "web", 2)
	for range 3 {
		p.kill()
		p.start()
		if now := mustIdentities(t, p, "web", 2); !slices.Equal(steady, now) {
			t.Fatalf("containers before:\n%s\nafter:\n%s\n%s", strings.Join(steady, "\n"), strings.Join(now, "\n"), p.stopped())
		}
		eventually(t, patience, func() error { _, err := p.balanced("web"); return err })
	}
	tasks, err := p.tasks("web")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.end(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if id, err := identity(task); err == nil && slices.Contains(steady, id) { // the port may be another program's by now
			t.Errorf("after the platform's end a container still answers: %s", id)
		}
	}
	p.start()
	now := mustIdentities(t, p, "web", 2)
	for _, id := range now {
		if slices.Contains(steady, id) {
			t.Errorf("container %q outlived the platform", id)
		}
	}
}
