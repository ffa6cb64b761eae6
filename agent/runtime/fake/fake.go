// Package fake is a driver that runs nothing: tasks take the time and come to the end that a script says. It serves scale
// tests and simulations, where ten thousand hosts share one process, and it passes the part of runtimetest that does not
// look inside a container.
//
// Its tasks live in memory, or in a folder when one is given: then they survive the process as real ones do, their ends
// computed from the clock.
package fake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Behaviour is what a container does.
type Behaviour struct {
	Pull     time.Duration // how long its image takes
	PullErr  *runtime.PullError
	Start    time.Duration // until its process runs
	StartErr *runtime.StartError
	RunFor   time.Duration // 0: until it is stopped
	Exit     runtime.Exit  // how it ends by itself; At is filled in
	Stop     time.Duration // how long it takes after the stop signal; longer than the timeout means it is killed
	Output   []string      // lines written at start
	// Exec is what a command run in the container does. nil: cat copies its input, others say their words, and all succeed.
	Exec func(ctx context.Context, c runtime.Command) (code int, err error)
}

// Config of a fake host. The zero value runs every container until it is stopped, at once and without a folder.
type Config struct {
	Dir    string // where tasks are kept; empty: in memory
	Script func(image string) Behaviour
	Clock  clock.Clock
	Subnet netip.Prefix // of task addresses; zero: 10.64.0.0/16
	Ports  [2]uint32    // first and last dynamic host port; zero: 32768–60999
}

// Driver implements runtime.Driver.
type Driver struct {
	cfg Config

	mu    sync.Mutex
	tasks map[string]*task
	addrs map[netip.Addr]bool
	ports map[string]bool              // "tcp/32768"
	logs  map[string][]runtime.LogLine // "task/container"; kept until RemoveLogs
}

type task struct {
	runtime.Task
	box        runtime.Sandbox
	secrets    map[string]runtime.Secrets
	containers map[string]*container
}

type container struct {
	started runtime.Started
	failed  *runtime.StartError // it could not be started
	exit    *runtime.Exit       // set before done is closed
	done    chan struct{}
	stop    chan struct{} // closed by the first Stop
	once    sync.Once
}

// New makes a driver.
func New(cfg Config) *Driver {
	if cfg.Script == nil {
		cfg.Script = func(string) Behaviour { return Behaviour{} }
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if !cfg.Subnet.IsValid() {
		cfg.Subnet = netip.MustParsePrefix("10.64.0.0/16")
	}
	if cfg.Ports == [2]uint32{} {
		cfg.Ports = [2]uint32{32768, 60999}
	}
	return &Driver{cfg: cfg, tasks: map[string]*task{}, addrs: map[netip.Addr]bool{}, ports: map[string]bool{}, logs: map[string][]runtime.LogLine{}}
}

// Name is "fake".
func (d *Driver) Name() string { return "fake" }

// Check finds nothing missing.
func (d *Driver) Check(context.Context) []string { return nil }

// Gateway is an address of the subnet that nothing listens on.
func (d *Driver) Gateway(context.Context) (netip.Addr, error) {
	return d.cfg.Subnet.Masked().Addr().Next(), nil
}

// LinkLocal is not to be had: there is no network.
func (d *Driver) LinkLocal(context.Context) (net.Listener, error) { return nil, nil }

// Stats of a process that does not exist are zero.
// CheckStorage: nothing is written, so nothing is lacking.
func (d *Driver) CheckStorage() []string { return nil }

// RoutesLogs: nothing is written, so there is nothing to route.
func (d *Driver) RoutesLogs() {}

// Storage is what a task asked for, none of it used.
func (d *Driver) Storage(_ context.Context, taskID string) (runtime.Storage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[taskID]; t != nil && t.Task.Spec.GetEphemeralStorageMib() > 0 {
		return runtime.Storage{Reserved: uint64(t.Task.Spec.EphemeralStorageMib) << 20}, nil
	}
	return runtime.Storage{}, fmt.Errorf("ephemeral storage of task %s: %w", taskID, runtime.ErrNotFound)
}

func (d *Driver) Stats(_ context.Context, taskID, name string) (runtime.Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[taskID]; t != nil {
		if c := t.containers[name]; c != nil && c.exit == nil && c.failed == nil {
			return runtime.Stats{Read: d.cfg.Clock.Now().UTC()}, nil
		}
	}
	return runtime.Stats{}, fmt.Errorf("container %s of task %s does not run: %w", name, taskID, runtime.ErrNotFound)
}

// Pull takes the scripted time.
func (d *Driver) Pull(ctx context.Context, req runtime.PullRequest) (runtime.Image, error) {
	b := d.cfg.Script(req.Image)
	if err := d.sleep(ctx, b.Pull); err != nil {
		return runtime.Image{}, err
	}
	if b.PullErr != nil {
		return runtime.Image{}, b.PullErr
	}
	return runtime.Image{Digest: digest(req.Image), StopSignal: "SIGTERM"}, nil
}

func (d *Driver) sleep(ctx context.Context, t time.Duration) error {
	if t <= 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.cfg.Clock.After(t):
		return nil
	}
}

// Create gives the task an address and its host ports.
func (d *Driver) Create(ctx context.Context, t runtime.Task) (runtime.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return runtime.Sandbox{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.tasks[t.ID]; old != nil {
		return old.box, nil
	}
	n := &task{Task: t, containers: map[string]*container{}}
	if err := d.allocate(n); err != nil {
		d.release(n)
		return runtime.Sandbox{}, err
	}
	d.tasks[t.ID] = n
	return n.box, d.keep(n)
}

func (d *Driver) allocate(t *task) error {
	gw, _ := d.Gateway(context.Background())
	t.box = runtime.Sandbox{Ports: map[string][]*agentapi.PortBinding{}}
	mode := t.Spec.GetNetworkMode()
	if mode != "host" && mode != "none" {
		t.box.Gateway = gw.String()
		for a := gw.Next(); t.box.Address == ""; a = a.Next() {
			if !d.cfg.Subnet.Contains(a) {
				return fmt.Errorf("no address is free in %s", d.cfg.Subnet)
			}
			if !d.addrs[a] {
				d.addrs[a] = true
				t.box.Address = a.String()
			}
		}
	}
	for _, c := range t.Spec.GetContainers() {
		for _, p := range c.Ports {
			host, err := d.port(mode, p)
			if err != nil {
				return err
			}
			t.box.Ports[c.Name] = append(t.box.Ports[c.Name], &agentapi.PortBinding{ContainerPort: p.ContainerPort, HostPort: host, Count: p.Count, Protocol: protocol(p), BindIp: "0.0.0.0"})
		}
	}
	return nil
}

func (d *Driver) port(mode string, p *agentapi.PortMapping) (uint32, error) {
	if mode == "awsvpc" || mode == "none" {
		return p.ContainerPort, nil
	}
	if p.HostPort != 0 {
		k := fmt.Sprintf("%s/%d", protocol(p), p.HostPort)
		if d.ports[k] {
			return 0, fmt.Errorf("host port %s is taken", k)
		}
		d.ports[k] = true
		return p.HostPort, nil
	}
	count := max(p.Count, 1)
	for first := d.cfg.Ports[0]; first+count-1 <= d.cfg.Ports[1]; first++ {
		free := true
		for n := first; n < first+count; n++ {
			free = free && !d.ports[fmt.Sprintf("%s/%d", protocol(p), n)]
		}
		if !free {
			continue
		}
		for n := first; n < first+count; n++ {
			d.ports[fmt.Sprintf("%s/%d", protocol(p), n)] = true
		}
		return first, nil
	}
	return 0, fmt.Errorf("no host port is free in %d–%d", d.cfg.Ports[0], d.cfg.Ports[1])
}

func protocol(p *agentapi.PortMapping) string {
	if p.Protocol == "" {
		return "tcp"
	}
	return p.Protocol
}

// release takes back what allocate gave; mu is held.
func (d *Driver) release(t *task) {
	if a, err := netip.ParseAddr(t.box.Address); err == nil {
		delete(d.addrs, a)
	}
	for _, ports := range t.box.Ports {
		for _, p := range ports {
			for n := range max(p.Count, 1) {
				delete(d.ports, fmt.Sprintf("%s/%d", p.Protocol, p.HostPort+n))
			}
		}
	}
}

// Confide remembers what it was told, for Confided.
func (d *Driver) Confide(_ context.Context, taskID string, secrets map[string]runtime.Secrets) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tasks[taskID]
	if t == nil {
		return runtime.ErrNotFound
	}
	t.secrets = secrets
	return nil
}

// Confided is what Confide was last told of the task by this process.
func (d *Driver) Confided(taskID string) map[string]runtime.Secrets {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[taskID]; t != nil {
		return t.secrets
	}
	return nil
}

// Start takes the scripted time, then the container runs.
func (d *Driver) Start(ctx context.Context, taskID, name string) (runtime.Started, error) {
	d.mu.Lock()
	t := d.tasks[taskID]
	if t == nil {
		d.mu.Unlock()
		return runtime.Started{}, runtime.ErrNotFound
	}
	spec := containerSpec(t, name)
	old := t.containers[name]
	d.mu.Unlock()
	switch {
	case spec == nil:
		return runtime.Started{}, runtime.ErrNotFound
	case old != nil && old.failed != nil:
		return runtime.Started{}, old.failed
	case old != nil:
		return old.started, nil
	}
	b := d.cfg.Script(spec.Image)
	if err := d.sleep(ctx, b.Start); err != nil {
		return runtime.Started{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.StartErr != nil {
		c := &container{done: make(chan struct{}), stop: make(chan struct{}), failed: b.StartErr}
		t.containers[name] = c
		d.end(c, runtime.Exit{Code: 128, Reason: b.StartErr.Reason, At: d.cfg.Clock.Now()})
		return runtime.Started{}, b.StartErr
	}
	c := &container{started: runtime.Started{RuntimeID: taskID[:min(12, len(taskID))] + "-" + name, At: d.cfg.Clock.Now()}, done: make(chan struct{}), stop: make(chan struct{})}
	t.containers[name] = c
	for i, l := range b.Output {
		if spec.GetLog().GetDriver() == "none" {
			break
		}
		k := taskID + "/" + name
		d.logs[k] = append(d.logs[k], runtime.LogLine{At: c.started.At.Add(time.Duration(i)), Text: l})
	}
	go d.life(c, b, d.ownEnd(b, b.RunFor))
	return c.started, d.keep(t)
}

// Restart runs an ended container once more.
func (d *Driver) Restart(ctx context.Context, taskID, name string, last runtime.Started) (runtime.Started, error) {
	if err := ctx.Err(); err != nil {
		return runtime.Started{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tasks[taskID]
	if t == nil || t.containers[name] == nil || t.containers[name].failed != nil {
		return runtime.Started{}, runtime.ErrNotFound
	}
	old := t.containers[name]
	select {
	case <-old.done:
	default:
		return old.started, nil
	}
	if old.started.At.After(last.At) {
		return old.started, nil
	}
	c := &container{started: old.started, done: make(chan struct{}), stop: make(chan struct{})}
	// Later than the last start, even if the clock stands still.
	c.started.At = later(d.cfg.Clock.Now(), old.started.At)
	t.containers[name] = c
	b := d.cfg.Script(containerSpec(t, name).Image)
	for _, l := range b.Output {
		k := taskID + "/" + name
		d.logs[k] = append(d.logs[k], runtime.LogLine{At: c.started.At, Text: l})
	}
	go d.life(c, b, d.ownEnd(b, b.RunFor))
	return c.started, d.keep(t)
}

func later(now, than time.Time) time.Time {
	if now.After(than) {
		return now
	}
	return than.Add(1)
}

// Exec does what the script says.
func (d *Driver) Exec(ctx context.Context, taskID, name string, cmd runtime.Command) (int, error) {
	c, t := d.find(taskID, name)
	if c == nil {
		return 0, runtime.ErrNotFound
	}
	select {
	case <-c.done:
		return 0, runtime.ErrNotFound
	default:
	}
	if exec := d.cfg.Script(containerSpec(t, name).Image).Exec; exec != nil {
		return exec(ctx, cmd)
	}
	return 0, command(ctx, cmd)
}

// command is what the simulated commands do.
func command(ctx context.Context, c runtime.Command) error {
	out := c.Output
	if out == nil {
		out = io.Discard
	}
	if c.Args[0] != "cat" || c.Input == nil {
		_, err := fmt.Fprintln(out, strings.Join(c.Args, " "))
		return errors.Join(err, ctx.Err())
	}
	copied := make(chan error, 1)
	go func() { _, err := io.Copy(out, c.Input); copied <- err }() // ends with the input
	select {
	case err := <-copied:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ownEnd tells when what has so much time left ends by itself, by the clock as it is now; nil: never.
func (d *Driver) ownEnd(b Behaviour, left time.Duration) <-chan time.Time {
	if b.RunFor <= 0 {
		return nil
	}
	return d.cfg.Clock.After(left)
}

// life ends c by itself or some time after Stop.
func (d *Driver) life(c *container, b Behaviour, own <-chan time.Time) {
	select {
	case at := <-own:
		e := b.Exit
		e.At = at
		d.end(c, e)
	case <-c.stop:
	}
}

func (d *Driver) end(c *container, e runtime.Exit) {
	c.once.Do(func() {
		c.exit = &e
		close(c.done)
	})
}

// Stop lets the container take its scripted time, at most timeout.
func (d *Driver) Stop(ctx context.Context, taskID, name string, timeout time.Duration) error {
	c, t := d.find(taskID, name)
	if c == nil {
		return nil // never started
	}
	b := d.cfg.Script(containerSpec(t, name).Image)
	select {
	case <-c.done:
		return nil
	case <-c.stop:
	default:
		d.mu.Lock()
		select {
		case <-c.stop:
		default:
			close(c.stop)
		}
		d.mu.Unlock()
	}
	if err := d.sleep(ctx, min(b.Stop, timeout)); err != nil {
		return err
	}
	e := runtime.Exit{Code: 143, Signal: "SIGTERM", At: d.cfg.Clock.Now()}
	if b.Stop > timeout {
		e.Code, e.Signal = 137, "SIGKILL"
	}
	d.end(c, e)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keep(t)
}

func (d *Driver) find(taskID, name string) (*container, *task) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[taskID]; t != nil {
		return t.containers[name], t
	}
	return nil, nil
}

// Wait blocks until the container has ended.
func (d *Driver) Wait(ctx context.Context, taskID, name string) (runtime.Exit, error) {
	c, _ := d.find(taskID, name)
	if c == nil {
		return runtime.Exit{}, runtime.ErrNotFound
	}
	select {
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	case <-c.done:
		return *c.exit, nil
	}
}

// Remove forgets the task; what runs is killed.
func (d *Driver) Remove(_ context.Context, taskID string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tasks[taskID]
	if t == nil {
		return nil
	}
	for _, c := range t.containers {
		d.end(c, runtime.Exit{Code: 137, Signal: "SIGKILL", At: d.cfg.Clock.Now()})
	}
	d.release(t)
	delete(d.tasks, taskID)
	if d.cfg.Dir == "" {
		return nil
	}
	if err := os.Remove(filepath.Join(d.cfg.Dir, taskID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Close ends nothing that is kept in a folder; with everything, it removes all tasks.
func (d *Driver) Close(ctx context.Context, everything bool) error {
	if !everything {
		return nil
	}
	d.mu.Lock()
	ids := make([]string, 0, len(d.tasks))
	for id := range d.tasks {
		ids = append(ids, id)
	}
	d.mu.Unlock()
	var errs []error
	for _, id := range ids {
		errs = append(errs, d.Remove(ctx, id))
	}
	return errors.Join(errs...)
}

func containerSpec(t *task, name string) *agentapi.ContainerSpec {
	for _, c := range t.Spec.GetContainers() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// keptTask is a task's file.
type keptTask struct {
	Spec       json.RawMessage
	Box        runtime.Sandbox
	Containers map[string]keptContainer
}

type keptContainer struct {
	Started runtime.Started
	Exit    *runtime.Exit
}

// keep writes the task's file; mu is held.
func (d *Driver) keep(t *task) error {
	if d.cfg.Dir == "" {
		return nil
	}
	spec, err := protojson.Marshal(t.Spec)
	if err != nil {
		return err
	}
	k := keptTask{Spec: spec, Box: t.box, Containers: map[string]keptContainer{}}
	for n, c := range t.containers {
		kc := keptContainer{Started: c.started}
		select {
		case <-c.done:
			kc.Exit = c.exit
		default:
		}
		k.Containers[n] = kc
	}
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	path := filepath.Join(d.cfg.Dir, t.ID)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
