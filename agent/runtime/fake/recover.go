package fake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

func digest(image string) string {
	sum := sha256.Sum256([]byte(image))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Recover reads the tasks of an earlier process from the folder and lets them live on: one whose time has passed has
// ended when its script says.
func (d *Driver) Recover(context.Context) ([]runtime.Recovered, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cfg.Dir != "" {
		if err := d.read(); err != nil {
			return nil, err
		}
	}
	var out []runtime.Recovered
	for _, t := range d.tasks {
		r := runtime.Recovered{Task: t.Task, Sandbox: t.box, Containers: map[string]runtime.RecoveredContainer{}}
		for n, c := range t.containers {
			rc := runtime.RecoveredContainer{Started: c.started}
			select {
			case <-c.done:
				rc.Exit = c.exit
			default:
			}
			r.Containers[n] = rc
		}
		out = append(out, r)
	}
	return out, nil
}

func (d *Driver) read() error {
	if err := os.MkdirAll(d.cfg.Dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".new") || d.tasks[e.Name()] != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(d.cfg.Dir, e.Name()))
		if err != nil {
			return err
		}
		var k keptTask
		spec := &agentapi.TaskSpec{}
		if err := json.Unmarshal(b, &k); err != nil {
			return fmt.Errorf("task %s: %w", e.Name(), err)
		}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(k.Spec, spec); err != nil {
			return fmt.Errorf("task %s: %w", e.Name(), err)
		}
		d.adopt(e.Name(), spec, k)
	}
	return nil
}

func (d *Driver) adopt(id string, spec *agentapi.TaskSpec, k keptTask) {
	t := &task{Task: runtime.Task{ID: id, Spec: spec}, box: k.Box, containers: map[string]*container{}}
	if a, err := netip.ParseAddr(k.Box.Address); err == nil {
		d.addrs[a] = true
	}
	for _, ports := range k.Box.Ports {
		for _, p := range ports {
			for n := range max(p.Count, 1) {
				d.ports[fmt.Sprintf("%s/%d", p.Protocol, p.HostPort+n)] = true
			}
		}
	}
	for n, kc := range k.Containers {
		c := &container{started: kc.Started, done: make(chan struct{}), stop: make(chan struct{})}
		t.containers[n] = c
		if kc.Exit != nil {
			d.end(c, *kc.Exit)
			continue
		}
		b := d.cfg.Script(containerSpec(t, n).GetImage())
		go d.life(c, b, d.ownEnd(b, b.RunFor-d.cfg.Clock.Now().Sub(kc.Started.At)))
	}
	d.tasks[id] = t
}

// Logs yields the scripted lines.
func (d *Driver) Logs(ctx context.Context, taskID, name string, opt runtime.LogOptions) (runtime.LogReader, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines, ok := d.logs[taskID+"/"+name]
	t := d.tasks[taskID]
	if !ok && (t == nil || t.containers[name] == nil) {
		return nil, runtime.ErrNotFound
	}
	r := &logReader{ctx: ctx, lines: lines}
	for len(r.lines) > 0 && r.lines[0].At.Before(opt.Since) {
		r.lines = r.lines[1:]
	}
	if opt.Tail > 0 && len(r.lines) > opt.Tail {
		r.lines = r.lines[len(r.lines)-opt.Tail:]
	}
	if opt.Follow && t != nil && t.containers[name] != nil {
		r.done = t.containers[name].done
	}
	return r, nil
}

// RemoveLogs forgets the lines of a removed task.
func (d *Driver) RemoveLogs(_ context.Context, taskID string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k := range d.logs {
		if strings.HasPrefix(k, taskID+"/") {
			delete(d.logs, k)
		}
	}
	return nil
}

type logReader struct {
	ctx   context.Context // of the one Logs call, whose follow it bounds
	lines []runtime.LogLine
	done  <-chan struct{} // nil: no follow
}

func (r *logReader) Next() (runtime.LogLine, error) {
	if len(r.lines) > 0 {
		l := r.lines[0]
		r.lines = r.lines[1:]
		return l, nil
	}
	if r.done != nil {
		select {
		case <-r.done:
		case <-r.ctx.Done():
			return runtime.LogLine{}, r.ctx.Err()
		}
	}
	return runtime.LogLine{}, io.EOF
}

func (r *logReader) Close() error { return nil }
