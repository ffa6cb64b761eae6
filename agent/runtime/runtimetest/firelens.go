package runtimetest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// routerConfig is as the control plane writes it.
const routerConfig = `
[INPUT]
    Name forward
    unix_path /var/run/fluent.sock

[INPUT]
    Name forward
    Listen 127.0.0.1
    Port 24224

[FILTER]
    Name record_modifier
    Match *
    Record ecs_cluster default
    Record ecs_task_definition app:7

[OUTPUT]
    Name stdout
    Match app-firelens*
`

// fireLens: a container's lines come to its task's log router by the socket that it makes in /var/run, whoever the router runs as.
func (h *host) fireLens(t *testing.T) {
	ctx := context.Background()
	const path = "/fluent-bit/etc/fluent-bit.conf"
	router := func(words ...string) *agentapi.ContainerSpec {
		c := command(words...)
		c.Name, c.FireLens = "router", &agentapi.FireLens{ConfigPath: path, Config: routerConfig}
		return c
	}
	app := func(words ...string) *agentapi.ContainerSpec {
		c := command(words...)
		c.Name, c.Log = "app", &agentapi.LogConfiguration{Driver: "awsfirelens",
			Options: map[string]string{"tag": "app-firelens-0123", "fluentd-async": "true", "fluentd-sub-second-precision": "true"}}
		return c
	}
	end := func(task runtime.Task) {
		if err := h.Remove(ctx, task.ID); err != nil {
			t.Error(err)
		}
	}
	for _, user := range []string{"", "alice"} {
		r := router("route", path)
		r.User = user
		task, _ := h.task("none", r, app("lines", "300", "then", "warn", "last"))
		h.start(task, "app") // before anybody listens: what it writes waits
		h.start(task, "router")
		if e := h.wait(task, "app"); e.Code != 0 {
			t.Errorf("ended with %+v", e)
		}
		for _, want := range []string{"log=line 0 ", "log=line 299 ", "log=last source=stderr"} {
			h.until(task, "router", want)
		}
		var lines []string
		for line := range strings.Lines(h.output(task, "router")) {
			if strings.HasPrefix(line, "app-") && strings.Contains(line, "source=stdout") {
				lines = append(lines, line)
			}
		}
		if len(lines) != 300 {
			t.Errorf("%d lines of stdout have come", len(lines))
		}
		for i, line := range lines {
			want := fmt.Sprintf(" container_name=/app ecs_cluster=default ecs_task_definition=app:7 log=line %d source=stdout\n", i)
			if !strings.HasPrefix(line, "app-firelens-0123 container_id="+task.ID+"-") || !strings.HasSuffix(line, want) {
				t.Fatalf("record %d is %q", i, line)
			}
		}
		if kept := h.lines(task, "app", runtime.LogOptions{}); len(kept) != 301 {
			t.Errorf("%d lines are kept here", len(kept))
		}
		if err := h.Stop(ctx, task.ID, "router", 10*time.Second); err != nil {
			t.Error(err)
		}
		if e := h.wait(task, "router"); e.Code != 0 {
			t.Errorf("the router ended with %+v", e)
		}
		end(task)
	}

	// Only the router has the folder, and none can change the configuration.
	other := command("ls", "/var/run")
	other.Name = "other"
	task, _ := h.task("none", router("write", path, "mine"), other)
	h.start(task, "router")
	if e := h.wait(task, "router"); e.Code == 0 {
		t.Error("the router has written its configuration")
	}
	h.start(task, "other")
	if e, out := h.wait(task, "other"), h.output(task, "other"); e.Code == 0 || !strings.Contains(out, "no such file") {
		t.Errorf("another container sees %q: %+v", out, e)
	}
	end(task)
}
