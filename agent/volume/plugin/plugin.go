// Package plugin has a program of the host's owner mount the file systems that tasks' volumes name and that this platform knows nothing of:
// those of EFS, and NFS by way of Docker's local driver.
//
// The program is called as PROGRAM mount and PROGRAM unmount, with a Request as JSON on its standard input. To mount, it makes the file system
// appear at the request's target, an empty folder, and exits with 0; anything else is a failure, and what it wrote is the task's reason to stop. What it leaves
// running (a FUSE daemon, a tunnel) must have a session of its own.
//
// A mount is of one task. Its life is told by the folder DIR/TASK/VOLUME: request.json is there before the program is first called
// and says when it was done, target is where the file system appears. So whoever finds the folder after a crash can undo all of it.
//
// Invariants: nothing below a target is ever deleted; only the empty target itself is. No mount outlives Release, whatever the program does
// or fails to do: what it has not unmounted is detached.
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Config of a plug-in.
type Config struct {
	Program string        // a path, or a name to look up; empty: there is none, and no volume can be mounted, but what an earlier one mounted is released
	Dir     string        // of the mounts
	Timeout time.Duration // of one call; 0: a minute
	Logger  *slog.Logger  // nil: slog.Default
}

// Capabilities are the attributes of a host that has a program. The last is this platform's own.
var Capabilities = []string{"ecs.capability.efs", "ecs.capability.efsAuth", "neargate.capability.nfs"}

// Plugin mounts and releases. Calls for one task come one at a time.
type Plugin struct {
	cfg Config

	mu       sync.Mutex // guards Dir's own mount
	mounting int        // how many are about to be mounted below it
}

// New makes a plug-in. It fails over a program that is none.
func New(cfg Config) (*Plugin, error) {
	if cfg.Program != "" {
		path, err := exec.LookPath(cfg.Program)
		if err == nil {
			cfg.Program, err = filepath.Abs(path)
		}
		if err != nil {
			return nil, fmt.Errorf("the program that mounts volumes: %w", err)
		}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of mounted volumes: %w", err)
	}
	real, err := filepath.EvalSymlinks(cfg.Dir) // as the kernel lists it
	if err != nil {
		return nil, fmt.Errorf("folder of mounted volumes: %w", err)
	}
	cfg.Dir = real
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Plugin{cfg: cfg}, nil
}

// Available says whether there is a program.
func (p *Plugin) Available() bool { return p.cfg.Program != "" }

// Place makes folders of the host of the volumes that are the plug-in's: where Mount makes them appear. spec is changed.
func (p *Plugin) Place(taskID string, spec *agentapi.TaskSpec) {
	for i, v := range spec.Volumes {
		if Wants(v) {
			spec.Volumes[i] = &agentapi.VolumeSpec{Name: v.Name, Scope: v.Scope, HostPath: p.target(taskID, v.Name)}
		}
	}
}

func (p *Plugin) folder(taskID, volume string) string {
	return filepath.Join(p.cfg.Dir, taskID, volume)
}

func (p *Plugin) target(taskID, volume string) string {
	return filepath.Join(p.folder(taskID, volume), "target")
}

// Mount mounts what of a task's volumes is the plug-in's. Repeated after a crash it completes what was begun. When it fails, what is mounted
// already waits for Release.
func (p *Plugin) Mount(ctx context.Context, taskID string, spec *agentapi.TaskSpec) error {
	for _, v := range spec.Volumes {
		if !Wants(v) {
			continue
		}
		if err := p.mount(ctx, request(taskID, spec, v, p.target(taskID, v.Name))); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plugin) mount(ctx context.Context, r Request) error {
	if filepath.Base(r.Volume) != r.Volume || r.Volume == "." || r.Volume == ".." {
		return fmt.Errorf("volume name %q is invalid", r.Volume)
	}
	if !p.Available() {
		return fmt.Errorf("volume %s needs a file system that nobody mounts on this host; its owner can name a program that does with --volume-command", r.Volume)
	}
	before, ok, err := p.record(r.Task.ID, r.Volume)
	if err != nil {
		return err
	}
	if ok && before.Mounted {
		if n, err := mountsAt(r.Target); err != nil || len(n) > 0 {
			return err
		}
	}
	if ok { // nobody knows how far an earlier process came
		if err := p.unmount(ctx, before); err != nil {
			return err
		}
	}
	if err := p.begin(); err != nil {
		return err
	}
	defer p.end()
	if err := os.MkdirAll(r.Target, 0o755); err != nil {
		return fmt.Errorf("volume %s: %w", r.Volume, err)
	}
	if err := p.write(r); err != nil {
		return fmt.Errorf("volume %s: %w", r.Volume, err)
	}
	if err := p.call(ctx, "mount", r); err != nil {
		return err
	}
	if n, err := mountsAt(r.Target); err != nil {
		return err
	} else if len(n) == 0 {
		return r.failure("nothing is mounted at "+r.Target, 0)
	}
	r.Mounted = true
	return p.write(r)
}

func (p *Plugin) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := share(p.cfg.Dir); err != nil {
		return fmt.Errorf("share the mounts below %s: %w", p.cfg.Dir, err)
	}
	p.mounting++
	return nil
}

func (p *Plugin) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mounting--
}

// tidy takes away Dir's own mount when nobody needs it.
func (p *Plugin) tidy() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mounting > 0 {
		return nil
	}
	return unshare(p.cfg.Dir)
}

// Release undoes all that was mounted for a task. A task of which nothing was is not an error.
func (p *Plugin) Release(ctx context.Context, taskID string) error {
	volumes, err := os.ReadDir(filepath.Join(p.cfg.Dir, taskID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	clean := true
	for _, v := range volumes {
		r, ok, err := p.record(taskID, v.Name())
		if err != nil {
			return err
		}
		if !ok {
			r.Target = p.target(taskID, v.Name())
		}
		if err := p.unmount(ctx, r); err != nil {
			return err
		}
		if err := p.removeFolder(taskID, v.Name()); err != nil {
			p.cfg.Logger.Error("a folder for a volume stays behind", "task", taskID, "volume", v.Name(), "error", err)
			clean = false
		}
	}
	if clean {
		if err := os.Remove(filepath.Join(p.cfg.Dir, taskID)); err != nil {
			return err
		}
	}
	return p.tidy()
}

// removeFolder removes what is this package's own. What somebody else has put there is not ours to delete.
func (p *Plugin) removeFolder(taskID, volume string) error {
	for _, name := range []string{"target", "request.json", "output", ""} {
		if err := os.Remove(filepath.Join(p.folder(taskID, volume), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// unmount has the program unmount, and sees to it that nothing is left.
func (p *Plugin) unmount(ctx context.Context, r Request) error {
	if p.Available() && r.Volume != "" {
		if err := p.call(ctx, "unmount", r); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p.cfg.Logger.Error("unmount a volume; it is detached", "task", r.Task.ID, "volume", r.Volume, "error", err)
		}
	}
	if err := detach(r.Target); err != nil {
		return fmt.Errorf("detach volume %s: %w", r.Volume, err)
	}
	return nil
}

// Sweep releases what an earlier process mounted for tasks that are no more.
func (p *Plugin) Sweep(ctx context.Context, lives func(taskID string) bool) error {
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !lives(e.Name()) {
			errs = append(errs, p.Release(ctx, e.Name()))
		}
	}
	return errors.Join(append(errs, p.tidy())...)
}

func (p *Plugin) record(taskID, volume string) (r Request, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(p.folder(taskID, volume), "request.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, fmt.Errorf("record of volume %s of task %s: %w", volume, taskID, err)
	}
	if json.Unmarshal(b, &r) != nil { // the host has crashed, and nothing is mounted any more
		return Request{}, false, nil
	}
	return r, true, nil
}

// write replaces a record, by rename.
func (p *Plugin) write(r Request) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(p.folder(r.Task.ID, r.Volume), "request.json")
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
