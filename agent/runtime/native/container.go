//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/logs"
	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/volume"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/logtag"
)

// Start starts one container by way of the task's shim.
func (d *Driver) Start(ctx context.Context, id, name string) (runtime.Started, error) {
	t, err := d.task(id)
	if err != nil {
		return runtime.Started{}, err
	}
	defer d.warm.starting()()
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.spec(name)
	if c == nil || t.removed {
		return runtime.Started{}, fmt.Errorf("container %s of task %s: %w", name, id, runtime.ErrNotFound)
	}
	if t.sandbox == nil || !t.sandbox.Complete {
		return runtime.Started{}, fmt.Errorf("task %s is not created", id)
	}
	if s, e, err := t.state(name); err != nil {
		return runtime.Started{}, err
	} else if s != nil {
		return s.started(), nil
	} else if e != nil {
		return runtime.Started{}, &runtime.StartError{Reason: e.Reason}
	}
	b, err := d.bundle(t, c)
	if err != nil {
		return runtime.Started{}, t.failStart(name, err)
	}
	if err := writeRecord(filepath.Join(t.container(name), "bundle.json"), b); err != nil {
		return runtime.Started{}, err
	}
	req := shimRequest{Op: "start", Container: name}
	if secrets, ok := t.secrets[name]; ok {
		req.Secrets = &secrets
	}
	res, err := t.call(ctx, req, nil)
	switch {
	case errors.Is(err, errNoShim):
		if err := d.bury(t); err != nil {
			return runtime.Started{}, err
		}
		return runtime.Started{}, t.failStart(name, err)
	case err != nil:
		return runtime.Started{}, err
	case res.Exit != nil:
		return runtime.Started{}, &runtime.StartError{Reason: res.Exit.Reason}
	}
	delete(t.secrets, name) // the shim has them
	d.warm.note(t)
	return res.Started.started(), nil
}

// Confide keeps what it is told until each container is started.
func (d *Driver) Confide(_ context.Context, id string, secrets map[string]runtime.Secrets) error {
	t, err := d.task(id)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.secrets = maps.Clone(secrets)
	return nil
}

// failStart records a start that never reached the shim's hands.
func (t *task) failStart(name string, err error) error {
	exit := startFailure(err)
	if err := writeRecord(filepath.Join(t.container(name), "exit.json"), exit); err != nil {
		return err
	}
	return &runtime.StartError{Reason: exit.Reason, Err: err}
}

func (t *task) spec(name string) *agentapi.ContainerSpec {
	for _, c := range t.task.Spec.GetContainers() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// state reads what is recorded of a container's newest run.
func (t *task) state(name string) (*startedRecord, *exitRecord, error) {
	var s startedRecord
	var e exitRecord
	started, err := readRecord(filepath.Join(t.container(name), "started.json"), &s)
	if err != nil {
		return nil, nil, err
	}
	ended, err := readRecord(filepath.Join(t.container(name), "exit.json"), &e)
	if err != nil {
		return nil, nil, err
	}
	var sp *startedRecord
	var ep *exitRecord
	if started {
		sp = &s
	}
	if ended && e.Run >= s.Run {
		ep = &e
	}
	return sp, ep, nil
}

// bundle merges task definition and image into what the shim needs.
func (d *Driver) bundle(t *task, c *agentapi.ContainerSpec) (*bundle, error) {
	img := t.record.Images[c.Name].Config
	spec := t.task.Spec
	b := &bundle{
		User: c.User, Cwd: c.WorkingDirectory, Hostname: hostname(t, c), ReadonlyRoot: c.ReadonlyRoot, Privileged: c.Privileged,
		Cgroup: d.taskCgroup(t.box) + "/" + c.Name,
		Memory: int64(c.MemoryMib) << 20, Reservation: int64(c.MemoryReservationMib) << 20, Shares: uint64(max(c.CpuUnits, 2)),
		SecretFiles: c.SecretFiles, Filters: filepath.Join(d.cfg.Dir, "bin", "filters"), // goes with the program
		RuntimeID: fmt.Sprintf("%s-%010d", t.id, crc32.ChecksumIEEE([]byte(c.Name))),
	}
	if err := b.confine(spec, c); err != nil {
		return nil, err
	}
	if spec.EphemeralStorageMib > 0 {
		b.Writable = filepath.Join("..", "..", storageFolder, "containers", c.Name)
	}
	for _, diffID := range img.DiffIDs {
		b.Layers = append(b.Layers, d.images.layer(diffID))
	}
	// The task's limits hold for its containers together; set on each as well, so that programs which look see them.
	if b.Memory == 0 {
		b.Memory = int64(spec.MemoryMib) << 20
	}
	if spec.CpuUnits > 0 {
		b.Quota = cpuQuota(spec.CpuUnits)
	}
	if b.User == "" {
		b.User = img.User
	}
	if b.Cwd == "" {
		b.Cwd = img.WorkingDir
	}
	b.Cwd = path.Join("/", b.Cwd)
	// As with docker run --entrypoint: an entry point of one's own drops the image's command too.
	entry, command := c.EntryPoint, c.Command
	if len(entry) == 0 {
		entry = img.Entrypoint
		if len(command) == 0 && !c.CommandSet {
			command = img.Cmd
		}
	}
	if b.Args = slices.Concat(entry, command); len(b.Args) == 0 {
		return nil, errors.New("no command specified")
	}
	b.Env = environment(img.Env, t.task.Environment, c.Environment, b.Hostname)
	var err error
	if b.Output, err = d.output(t, c, b); err != nil {
		return nil, err
	}
	dir := t.container(c.Name)
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		b.Mounts = append(b.Mounts, bundleMount{Source: filepath.Join(dir, name), Target: "/etc/" + name, ReadOnly: c.ReadonlyRoot})
	}
	if c.FireLens != nil {
		b.Mounts = append(b.Mounts, t.routerMounts(c)...)
	}
	for _, m := range c.Mounts {
		v := volumeNamed(spec, m.Volume)
		if v == nil {
			return nil, fmt.Errorf("mount point %s: no volume %q", m.ContainerPath, m.Volume)
		}
		source, err := d.volumePath(t.volumes(), v)
		if err != nil {
			return nil, err
		}
		if !path.IsAbs(m.ContainerPath) {
			return nil, fmt.Errorf("invalid mount path %q: mount path must be absolute", m.ContainerPath)
		}
		local, err := volume.LocalOf(v)
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		b.Mounts = append(b.Mounts, bundleMount{Source: source, Target: path.Clean(m.ContainerPath), ReadOnly: m.ReadOnly || local.ReadOnly, Fill: v.HostPath == "", Tmpfs: local.Tmpfs})
	}
	return b, nil
}

// output is what becomes of the container's output.
func (d *Driver) output(t *task, c *agentapi.ContainerSpec, b *bundle) (o logs.Config, err error) {
	o = logs.Config{Driver: c.GetLog().GetDriver(), Options: c.GetLog().GetOptions(), Path: d.logPath(t.id, c.Name), Limit: d.cfg.LogLimit,
		ID: b.RuntimeID, Name: "/" + c.Name}
	if o.Driver == logs.DriverFireLens {
		o.Driver, o.Options = logs.DriverFluentd, t.toRouter(o.Options)
	}
	host, err := os.Hostname()
	if err != nil {
		return o, err
	}
	if o.Tag, err = logtag.Render(o.Options["tag"], logtag.Container{
		ContainerID: o.ID, ContainerName: o.Name, ContainerEntrypoint: b.Args[0], ContainerArgs: b.Args[1:], ContainerImageID: t.record.Images[c.Name].Digest,
		ContainerImageName: c.Image, DaemonName: "neargate", Host: host,
	}); err != nil {
		return o, err
	}
	if o.Driver == logs.DriverGELF || o.Driver == logs.DriverJournald {
		o.Image = logs.Image{ID: t.record.Images[c.Name].Digest, Name: c.Image, Command: strings.Join(b.Args, " "), Created: time.Now().UTC()}
	}
	o.Attrs, err = logs.Attributes(o.Options, c.Labels, b.Env)
	if _, ok := o.Options["tag"]; ok && o.Driver == logs.DriverJSONFile {
		o.Attrs["tag"] = o.Tag
	}
	return o, err
}

func volumeNamed(spec *agentapi.TaskSpec, name string) *agentapi.VolumeSpec {
	for _, v := range spec.Volumes {
		if v.Name == name {
			return v
		}
	}
	return nil
}

// environment merges from the weakest to the strongest.
func environment(image []string, task, container map[string]string, hostname string) []string {
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": hostname}
	for _, e := range image {
		k, v, _ := strings.Cut(e, "=")
		env[k] = v
	}
	maps.Copy(env, task)
	maps.Copy(env, container)
	out := make([]string, 0, len(env)+1)
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

// Stop sends the stop signal, waits and kills.
func (d *Driver) Stop(ctx context.Context, id, name string, timeout time.Duration) error {
	t, err := d.task(id)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	c := t.spec(name)
	if c == nil {
		return nil
	}
	sig := stopSignal(c.StopSignal, t.record.Images[name].Config.StopSignal)
	if timeout <= 0 {
		sig = unix.SIGKILL
	}
	patience, cancel := context.WithTimeout(ctx, max(timeout, 0))
	defer cancel()
	res, err := t.call(ctx, shimRequest{Op: "signal", Container: name, Signal: int(sig)}, nil)
	if errors.Is(err, errNoShim) {
		return d.bury(t)
	}
	if err != nil {
		return err
	}
	if res.NotFound {
		return nil // never started
	}
	if sig != unix.SIGKILL {
		_, err := d.Wait(patience, id, name)
		if err == nil || errors.Is(err, runtime.ErrNotFound) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := t.call(ctx, shimRequest{Op: "signal", Container: name, Signal: int(unix.SIGKILL)}, nil); err != nil && !errors.Is(err, errNoShim) {
			return err
		}
	}
	if _, err := d.Wait(ctx, id, name); err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return err
	}
	return nil
}

// stopSignal takes the first that is a signal: "SIGINT", "INT" or a number.
func stopSignal(names ...string) unix.Signal {
	for _, n := range names {
		if v, err := strconv.Atoi(n); err == nil && v > 0 && v < 65 {
			return unix.Signal(v)
		}
		n = upper(n)
		if !strings.HasPrefix(n, "SIG") {
			n = "SIG" + n
		}
		if rt, ok := strings.CutPrefix(n, "SIGRTMIN+"); ok {
			if v, err := strconv.Atoi(rt); err == nil && v >= 0 && v <= 30 {
				return unix.Signal(34 + v)
			}
		}
		if s := unix.SignalNum(n); s != 0 {
			return s
		}
	}
	return unix.SIGTERM
}

// Wait blocks until the container has ended.
func (d *Driver) Wait(ctx context.Context, id, name string) (runtime.Exit, error) {
	t, err := d.task(id)
	if err != nil {
		return runtime.Exit{}, err
	}
	notFound := fmt.Errorf("container %s of task %s: %w", name, id, runtime.ErrNotFound)
	for {
		s, e, err := t.state(name)
		if err != nil {
			return runtime.Exit{}, err
		}
		if e != nil {
			return e.exit(), nil
		}
		if s == nil {
			return runtime.Exit{}, notFound
		}
		res, err := t.call(ctx, shimRequest{Op: "wait", Container: name}, nil)
		switch {
		case errors.Is(err, errNoShim):
			// Either it ended in order, after the record was written, or it died.
			if _, e, err := t.state(name); err != nil || e != nil {
				continue
			}
			if _, err := d.task(id); err != nil {
				return runtime.Exit{}, notFound
			}
			t.mu.Lock()
			err := d.bury(t)
			t.mu.Unlock()
			if err != nil {
				return runtime.Exit{}, err
			}
		case err != nil:
			return runtime.Exit{}, err
		case res.Exit != nil:
			return res.Exit.exit(), nil
		default:
			return runtime.Exit{}, notFound
		}
	}
}

// bury ends what a dead shim's containers left and records their end. Nobody can say how they would have ended.
func (d *Driver) bury(t *task) error {
	if err := killCgroup(d.taskCgroup(t.box)); err != nil {
		return err
	}
	for _, c := range t.task.Spec.GetContainers() {
		s, e, err := t.state(c.Name)
		if err != nil {
			return err
		}
		if s == nil || e != nil {
			continue
		}
		if err := writeRecord(filepath.Join(t.container(c.Name), "exit.json"), exitRecord{Code: 137, Signal: "SIGKILL", At: time.Now().UTC(), Run: s.Run,
			Reason: "ContainerRuntimeError: the process that watched over the task's containers is gone"}); err != nil {
			return err
		}
	}
	return nil
}
