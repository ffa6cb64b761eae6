package tasks

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

func script(output ...string) func(string) fake.Behaviour {
	return func(image string) fake.Behaviour {
		if image == "short" {
			return fake.Behaviour{Output: output, RunFor: time.Millisecond}
		}
		return fake.Behaviour{Output: output}
	}
}

func TestLogs(t *testing.T) {
	p := newPlatform(t)
	p.join(fake.New(fake.Config{Script: script("one", "two", "three")}))
	task := p.task("a", "nginx", "envoy")
	p.untilState(task, agentapi.TaskState_RUNNING)

	lines := p.lines(task, "")
	got := said(lines)
	slices.Sort(got) // the containers' order is chance
	want := []string{"a stdout one", "a stdout three", "a stdout two", "b stdout one", "b stdout three", "b stdout two"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if lines[0].Time.IsZero() {
		t.Error("a line without a time")
	}
	for query, want := range map[string][]string{
		"?container=b&tail=2":                     {"b stdout two", "b stdout three"},
		"?container=b&since=2999-01-01T00:00:00Z": nil,
		"?container=b&since=2000-01-01T00:00:00Z": {"b stdout one", "b stdout two", "b stdout three"},
	} {
		if diff := cmp.Diff(want, said(p.lines(task, query))); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	ctx := t.Context()
	arn := strings.ReplaceAll(task.ARN(), "/", "%2F")
	if resp := p.get(ctx, "test", "default", arn, "logs"); resp.StatusCode != 200 {
		t.Errorf("by ARN: HTTP %d", resp.StatusCode)
	}
	refused(t, p.get(ctx, "test", "default", task.Id, "logs?container=c"), 400, "InvalidParameterException", "The task has no container c.")
	refused(t, p.get(ctx, "test", "default", strings.Repeat("f", 32), "logs"), 400, "InvalidParameterException", "The referenced task was not found.")
	refused(t, p.get(ctx, "test", "nowhere", task.Id, "logs"), 400, "ClusterNotFoundException", "Cluster not found.")
	// Another account has nothing of it, by id or by ARN.
	refused(t, p.get(ctx, "other", "default", task.Id, "logs"), 400, "ClusterNotFoundException", "Cluster not found.")
	p.change(func(tx *state.Tx) {
		controlplane.Clusters.Put(tx, &controlplane.Cluster{Account: "111111111111", Region: scope.Region, Name: "default", Status: "ACTIVE"})
	})
	for _, ref := range []string{task.Id, arn} {
		refused(t, p.get(ctx, "other", "default", ref, "logs"), 400, "InvalidParameterException", "The referenced task was not found.")
		refused(t, p.get(ctx, "other", "default", ref, "placement"), 400, "InvalidParameterException", "The referenced task was not found.")
	}
	refused(t, p.get(ctx, "nobody", "default", task.Id, "logs"), 401, "UnrecognizedClientException", "")
}

// Lines come when they are written, one container's beside the other's; who leaves ends the reading on the host.
func TestFollow(t *testing.T) {
	p := newPlatform(t)
	write := map[string]chan runtime.LogLine{"a": make(chan runtime.LogLine), "b": make(chan runtime.LogLine)}
	gone := make(chan struct{}, 2)
	p.join(lively{fake.New(fake.Config{}), func(ctx context.Context, container string, opt runtime.LogOptions) (runtime.LogReader, error) {
		if !opt.Follow {
			return nil, runtime.ErrNotFound
		}
		left := make(chan struct{})
		go func() { <-left; gone <- struct{}{} }()
		return written{ctx: ctx, lines: write[container], gone: left}, nil
	}})
	task := p.task("a", "nginx", "envoy") // not started yet: that is waited for
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	resp := p.get(ctx, "test", "default", task.Id, "logs?follow=true")
	body := bufio.NewReader(resp.Body)
	next := func() string {
		text, err := body.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var l LogLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		return said([]LogLine{l})[0]
	}
	at := time.Unix(1, 0)
	write["b"] <- runtime.LogLine{At: at, Text: "first of b"}
	if got := next(); got != "b stdout first of b" {
		t.Error(got)
	}
	// A long line is put together, even when the other stream's comes in between; what is no UTF-8 passes.
	write["a"] <- runtime.LogLine{At: at, Text: "long ", Partial: true}
	write["a"] <- runtime.LogLine{At: at, Text: "wor", Stderr: true, Partial: true}
	write["a"] <- runtime.LogLine{At: at, Text: "line <&>"}
	if got := next(); got != "a stdout long line <&>" {
		t.Error(got)
	}
	write["a"] <- runtime.LogLine{At: at, Text: "d\xff", Stderr: true}
	if got := next(); got != "a stderr word�" {
		t.Error(got)
	}
	leave()
	<-gone
	<-gone
}

func TestFollowEndsWithTheContainers(t *testing.T) {
	p := newPlatform(t)
	d := fake.New(fake.Config{Script: script("one")})
	p.join(d)
	task := p.task("a", "nginx", "envoy")
	p.untilState(task, agentapi.TaskState_RUNNING) // an essential container that ends sooner may keep the other from starting
	resp := p.get(t.Context(), "test", "default", task.Id, "logs?follow=true")
	if err := d.Stop(t.Context(), task.Id, "a", 0); err != nil {
		t.Fatal(err)
	}
	got := said(p.read(resp))
	slices.Sort(got)
	if diff := cmp.Diff([]string{"a stdout one", "b stdout one"}, got); diff != "" {
		t.Error(diff)
	}
}

// Much output comes in messages that the transport takes.
func TestLargeOutput(t *testing.T) {
	p := newPlatform(t)
	const count = 1000
	lines := make(chan runtime.LogLine, count)
	for range count {
		lines <- runtime.LogLine{Text: strings.Repeat("x", 16<<10)}
	}
	close(lines)
	p.join(lively{fake.New(fake.Config{}), func(ctx context.Context, _ string, _ runtime.LogOptions) (runtime.LogReader, error) {
		return written{ctx: ctx, lines: lines}, nil
	}})
	task := p.task("a", "nginx")
	p.untilState(task, agentapi.TaskState_RUNNING)
	all := p.lines(task, "")
	if len(all) != count || len(all[count-1].Message) != 16<<10 {
		t.Errorf("%d lines, the last: %.200q %q", len(all), all[len(all)-1].Message, all[len(all)-1].Error)
	}
}

// What goes wrong on the host in the middle is the last line.
func TestFailureIsTheLastLine(t *testing.T) {
	p := newPlatform(t)
	lines := make(chan runtime.LogLine, 2)
	lines <- runtime.LogLine{Text: "one"}
	lines <- runtime.LogLine{Text: "unfinished", Partial: true}
	close(lines)
	p.join(lively{fake.New(fake.Config{}), func(ctx context.Context, _ string, _ runtime.LogOptions) (runtime.LogReader, error) {
		return written{ctx: ctx, lines: lines, fail: errDisk}, nil
	}})
	task := p.task("a", "nginx")
	p.untilState(task, agentapi.TaskState_RUNNING)
	all := p.lines(task, "")
	if diff := cmp.Diff([]string{"a stdout one", "a stdout unfinished", "a platform the logs of container a can be read no further: the disk is on fire"}, said(all)); diff != "" {
		t.Fatal(diff)
	}
	if all[2].Error == "" || all[2].Message != "" {
		t.Errorf("last line %+v", all[2])
	}
}

// A host that is gone has taken the log with it; of ended containers the last lines are kept.
func TestLastLinesAreKept(t *testing.T) {
	p := newPlatform(t)
	leave := p.join(fake.New(fake.Config{Script: script("one", "two", "three")}))
	ended, running := p.task("a", "short"), p.task("a", "nginx")
	waiting := p.task("", "nginx")
	p.untilState(ended, agentapi.TaskState_STOPPED)
	p.untilState(running, agentapi.TaskState_RUNNING)
	leave()
	p.until("the session has ended", func() bool {
		resp := p.get(t.Context(), "test", "default", running.Id, "logs")
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode == 503
	})
	refused(t, p.get(t.Context(), "test", "default", running.Id, "logs"), 503, "TargetNotConnectedException", "The logs of container a are out of reach: the node is not connected.")
	remark := "a platform The full log is out of reach (the node is not connected); these are the last lines that were kept."
	for query, want := range map[string][]string{
		"":                            {remark, "a stdout one", "a stdout two", "a stdout three"},
		"?follow=true&tail=1":         {remark, "a stdout three"},
		"?since=2999-01-01T00:00:00Z": {"a platform The log is out of reach (the node is not connected) and no lines of it were kept."},
	} {
		if diff := cmp.Diff(want, said(p.lines(ended, query))); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	if lines := p.lines(waiting, ""); len(lines) != 0 {
		t.Errorf("a task that was never started wrote %v", lines)
	}
}

// The log itself may be gone from the host.
func TestRemovedLogs(t *testing.T) {
	p := newPlatform(t)
	d := fake.New(fake.Config{Script: script("one")})
	p.join(d)
	task := p.task("a", "short")
	p.untilState(task, agentapi.TaskState_STOPPED)
	p.until("the task is removed", func() bool { // the log of what is there is only empty
		_, err := d.Wait(t.Context(), task.Id, "a")
		return err != nil
	})
	if err := d.RemoveLogs(t.Context(), task.Id); err != nil {
		t.Fatal(err)
	}
	want := []string{"a platform The full log is out of reach (no such task or container); these are the last lines that were kept.", "a stdout one"}
	if diff := cmp.Diff(want, said(p.lines(task, ""))); diff != "" {
		t.Error(diff)
	}
}

func TestJoinerIsBounded(t *testing.T) {
	j := joiner{container: "a"}
	part := &agentapi.LogLine{Text: strings.Repeat("x", 16<<10), Partial: true}
	var lines []LogLine
	for range 200 {
		lines = append(lines, j.join([]*agentapi.LogLine{part})...)
	}
	lines = append(lines, j.rest()...)
	total := 0
	for _, l := range lines {
		if total += len(l.Message); len(l.Message) > maxLine {
			t.Errorf("a line of %d bytes", len(l.Message))
		}
	}
	if len(lines) != 4 || total != 200*16<<10 || j.rest() != nil {
		t.Errorf("%d lines of %d bytes", len(lines), total)
	}
}
