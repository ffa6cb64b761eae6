//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

var _ runtime.Warming = (*Driver)(nil)

const (
	warmPrefix = "warm-"          // of the names of sandboxes that are made ahead
	warmIdle   = 10 * time.Minute // for how long a shape is kept warm after its last task
	warmTend   = 10 * time.Second
	warmShort  = time.Minute           // for how long none are made after the host was short of memory
	warmQuiet  = 50 * time.Millisecond // without a start, before sandboxes are made
	warmGuess  = 16 << 20              // what a sandbox may take, until one of its shape was measured
)

// pool has the sandboxes that were made ahead. It is filled by KeepWarm and emptied at its end; tasks take from it.
//
// Invariant: what waits in the pool has a folder without record.json, which to a later process is a leftover. It becomes a task's by
// that file.
type pool struct {
	most  int       // of a shape
	bytes int64     // of memory, all together
	short time.Time // when the host last was short of memory; KeepWarm's own

	mu       sync.Mutex
	kept     map[string]*keptShape
	boxes    map[string]*warmBox // by name: those that wait, and those that tasks have taken over
	of       map[string]string   // shape by task
	starts   int                 // under way
	lastTime time.Time           // that one ended
	wake     chan struct{}
}

type keptShape struct {
	*shape
	used   time.Time // by a task
	cost   int64     // bytes of memory of one sandbox
	failed time.Time // when none could be made: the next attempt is much later
}

type warmBox struct {
	shape   string
	ready   bool   // it waits for a task
	sandbox *task  // as which it was made; nil: by a former process
	owner   *task  // that has taken it over
	release func() // lets go of its layers
}

func newPool(cfg Config) *pool {
	return &pool{most: cfg.Warm, bytes: cfg.WarmMemory, kept: map[string]*keptShape{}, boxes: map[string]*warmBox{}, of: map[string]string{}, wake: make(chan struct{}, 1)}
}

// starting says that a start begins; what it returns, that it has ended.
func (p *pool) starting() func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.starts--
		p.lastTime = time.Now()
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// note says that a task of this shape runs here.
func (p *pool) note(t *task) {
	if t.shape == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.kept[t.shape.key]
	if k == nil {
		k = &keptShape{shape: t.shape, cost: warmGuess}
		p.kept[t.shape.key] = k
	}
	k.used = time.Now()
	p.of[t.id] = t.shape.key
}

// owner is the task that has taken over a sandbox of this name, if any has; known: the sandbox is this process's.
func (p *pool) owner(box string) (t *task, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.boxes[box]
	if b == nil {
		return nil, false
	}
	return b.owner, true
}

// own notes whose a sandbox is that was made ahead.
func (p *pool) own(t *task) {
	if t.box == t.id {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.boxes[t.box] = &warmBox{owner: t}
}

// forget is called once a sandbox is gone.
func (p *pool) forget(t *task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.boxes, t.box)
	if key, ok := p.of[t.id]; ok {
		delete(p.of, t.id)
		if k := p.kept[key]; k != nil {
			k.used = time.Now()
		}
	}
}

// take is a sandbox of this shape for a task, whose it is from now on; nil: there is none.
func (p *pool) take(t *task) *warmBox {
	if t.shape == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.boxes {
		if b.ready && b.shape == t.shape.key {
			b.ready, b.owner = false, t
			return b
		}
	}
	return nil
}

// takeOver gives the task a sandbox that was made ahead. When there is none, or it does not do, the task gets one in the usual way.
func (d *Driver) takeOver(ctx context.Context, t *task) (bool, error) {
	b := d.warm.take(t)
	if b == nil {
		return false, nil
	}
	t.box, t.dir, t.shim = b.sandbox.box, b.sandbox.dir, b.sandbox.shim
	err := d.becomeOf(ctx, t, *b.sandbox.sandbox)
	b.release() // the task's record names the layers
	if err == nil {
		return true, nil
	}
	if ctx.Err() == nil {
		d.cfg.Logger.Warn("a sandbox that was made ahead cannot be used", "task", t.id, "error", err)
	}
	return false, d.clear(context.WithoutCancel(ctx), t)
}

// becomeOf makes the sandbox of t's box the task's. Until record.json it is a leftover to whoever finds it after a crash. What is done after that
// is done anew then, for sandbox.json says that it is not complete.
func (d *Driver) becomeOf(ctx context.Context, t *task, sb sandboxRecord) error {
	spec := t.task.Spec
	reserved, err := d.reservePorts(&sb, spec)
	defer closeAll(reserved) // the shim has its own copies
	if err != nil {
		return err
	}
	t.sandbox = &sb
	if len(sb.Ports) > 0 {
		sb.Complete = false
		if err := writeRecord(filepath.Join(t.dir, "sandbox.json"), &sb); err != nil {
			return err
		}
	}
	for _, c := range spec.Containers { // again: the host's name servers may have changed, and there are logs now
		if err := d.makeContainerFolder(t, c); err != nil {
			return err
		}
	}
	if c, err := t.dial(ctx); err != nil { // a shim that died is noticed here
		return err
	} else {
		c.Close()
	}
	for rest := reserved; len(rest) > 0; {
		n := min(len(rest), maxFiles)
		if _, err := t.call(ctx, shimRequest{Op: "hold"}, nil, rest[:n]...); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if err := d.net.AwaitGroups(ctx, sb.Groups); err != nil {
		return err
	}
	if err := writeRecord(filepath.Join(t.dir, "record.json"), t.record); err != nil || sb.Complete {
		return err
	}
	if err := d.net.Forward(t.box, sb.forwards()); err != nil {
		return err
	}
	return t.complete()
}

// KeepWarm makes sandboxes ahead until ctx ends; then it removes those that wait.
func (d *Driver) KeepWarm(ctx context.Context) error {
	if d.warm.most <= 0 {
		return nil
	}
	tick := time.NewTicker(warmTend)
	defer tick.Stop()
	for ctx.Err() == nil {
		if d.warm.quiet(ctx) {
			d.tendWarm(ctx)
		}
		select {
		case <-ctx.Done():
		case <-d.warm.wake:
		case <-tick.C:
		}
	}
	return d.dropWarm(context.WithoutCancel(ctx), d.warm.beyond(nil))
}

// quiet returns once nothing starts, or after a second all the same.
func (p *pool) quiet(ctx context.Context) bool {
	for deadline := time.Now().Add(time.Second); ; {
		p.mu.Lock()
		still := p.starts == 0 && time.Since(p.lastTime) >= warmQuiet
		p.mu.Unlock()
		if still || time.Now().After(deadline) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(warmQuiet / 2):
		}
	}
}

// tendWarm makes what is wanted and not there, and removes what is there and not wanted.
func (d *Driver) tendWarm(ctx context.Context) {
	wanted := map[string]int{}
	if now := time.Now(); memoryShort() {
		d.warm.short = now
	} else if now.Sub(d.warm.short) > warmShort {
		wanted = d.warm.wanted(now)
	}
	gone := d.warm.beyond(wanted)
	for _, b := range d.warm.waiting() {
		if _, err := b.sandbox.call(ctx, shimRequest{Op: "status"}, nil); errors.Is(err, errNoShim) && d.warm.withdraw(b) {
			gone = append(gone, b)
			continue
		}
		d.warm.measured(b, d.memoryOf(b.sandbox))
	}
	if err := d.dropWarm(context.WithoutCancel(ctx), gone); err != nil && ctx.Err() == nil {
		d.cfg.Logger.Error("remove a sandbox that was made ahead", "error", err)
	}
	for s := d.warm.lacking(wanted); s != nil && ctx.Err() == nil; s = d.warm.lacking(wanted) {
		if err := d.makeWarm(ctx, s); err != nil && ctx.Err() == nil {
			d.warm.fail(s)
			delete(wanted, s.key)
			d.cfg.Logger.Warn("tasks start cold: no sandbox can be made ahead", "error", err)
		}
	}
}

// wanted is how many sandboxes of each shape there are to be: of those used last, as many as the memory allows. Shapes of which there has
// been no task for long are forgotten.
func (p *pool) wanted(now time.Time) map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range p.of {
		if k := p.kept[key]; k != nil {
			k.used = now
		}
	}
	var list []*keptShape
	for key, k := range p.kept {
		if now.Sub(k.used) > warmIdle {
			delete(p.kept, key)
		} else if now.Sub(k.failed) > warmIdle {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b *keptShape) int {
		if c := b.used.Compare(a.used); c != 0 {
			return c
		}
		return strings.Compare(a.key, b.key)
	})
	out, left := map[string]int{}, p.bytes
	for range p.most { // one of each first
		for _, k := range list {
			if k.cost <= left {
				out[k.key]++
				left -= k.cost
			}
		}
	}
	return out
}

// beyond takes out of the pool what waits beyond what is wanted.
func (p *pool) beyond(wanted map[string]int) (list []*warmBox) {
	p.mu.Lock()
	defer p.mu.Unlock()
	have := map[string]int{}
	for _, b := range p.boxes {
		if !b.ready {
			continue
		}
		if have[b.shape]++; have[b.shape] > wanted[b.shape] {
			b.ready = false
			list = append(list, b)
		}
	}
	return list
}

func (p *pool) waiting() (list []*warmBox) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.boxes {
		if b.ready {
			list = append(list, b)
		}
	}
	return list
}

// withdraw takes one out of the pool, unless a task was quicker.
func (p *pool) withdraw(b *warmBox) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := b.ready
	b.ready = false
	return was
}

// lacking is a shape of which there are too few, nil: none.
func (p *pool) lacking(wanted map[string]int) *shape {
	p.mu.Lock()
	defer p.mu.Unlock()
	have := map[string]int{}
	for _, b := range p.boxes {
		if b.ready {
			have[b.shape]++
		}
	}
	var next *keptShape
	for key, n := range wanted {
		if k := p.kept[key]; k != nil && have[key] < n && (next == nil || k.used.After(next.used)) {
			next = k
		}
	}
	if next == nil {
		return nil
	}
	return next.shape
}

// measured notes what a sandbox takes once it has settled. What tasks take over is measured no more: that is theirs.
func (p *pool) measured(b *warmBox, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.kept[b.shape]; k != nil && b.ready && bytes > 0 {
		k.cost = max(bytes, 1<<20)
	}
}

func (p *pool) fail(s *shape) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.kept[s.key]; k != nil {
		k.failed = time.Now()
	}
}

// makeWarm makes one sandbox, with its containers up to their programs.
func (d *Driver) makeWarm(ctx context.Context, s *shape) error {
	t := d.newTask("", fmt.Sprintf("%s%016x", warmPrefix, rand.Uint64()))
	t.id, t.record, t.task = t.box, s.rec, s.task
	t.record.ID, t.task.ID = t.id, t.id
	b := &warmBox{shape: s.key, sandbox: t}
	d.warm.mu.Lock()
	d.warm.boxes[t.box] = b
	d.warm.mu.Unlock()
	var layers []string
	for _, i := range t.record.Images {
		layers = append(layers, i.Config.DiffIDs...)
	}
	release := d.images.hold(layers)
	err := func() error {
		for _, i := range t.record.Images {
			if !d.images.complete(i.Config) {
				return errNotPulled
			}
		}
		if err := os.MkdirAll(t.dir, 0o700); err != nil {
			return err
		}
		if err := d.makeSandbox(ctx, t); err != nil {
			return err
		}
		for _, c := range t.task.Spec.Containers {
			bundle, err := d.bundle(t, c)
			if err != nil {
				return err
			}
			if err := writeRecord(filepath.Join(t.container(c.Name), "bundle.json"), bundle); err != nil {
				return err
			}
			if _, err := t.call(ctx, shimRequest{Op: "prepare", Container: c.Name}, nil); err != nil {
				return err
			}
			if err := t.makeFilesAhead(c.Name); err != nil {
				return err
			}
		}
		if err := makeAhead(filepath.Join(t.dir, "record.json")); err != nil {
			return err
		}
		return t.complete()
	}()
	if err != nil {
		err = errors.Join(err, d.clear(context.WithoutCancel(ctx), t))
		d.warm.forget(t) // where there was no folder yet
		release()
		return err
	}
	d.warm.mu.Lock()
	defer d.warm.mu.Unlock()
	b.release, b.ready = release, true
	return nil
}

// makeFilesAhead makes the files that a task's start writes, but for record.json. The bundle by which the container was prepared is not needed any more.
func (t *task) makeFilesAhead(name string) error {
	bundle := filepath.Join(t.container(name), "bundle.json")
	if err := os.Rename(bundle, aheadOf(bundle)); err != nil {
		return err
	}
	if err := makeAhead(filepath.Join(t.container(name), "started.json")); err != nil {
		return err
	}
	log := t.logAhead(name)
	if err := os.Mkdir(log, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(log, name+".log"), nil, 0o600)
}

// logAhead is where the folder of a task's logs may be ready, with that of one container.
func (t *task) logAhead(name string) string { return filepath.Join(t.container(name), "log") }

// dropWarm removes what was taken out of the pool.
func (d *Driver) dropWarm(ctx context.Context, list []*warmBox) error {
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for _, b := range list {
		wg.Go(func() {
			err := d.clear(ctx, b.sandbox)
			d.warm.forget(b.sandbox) // where that failed, it is a leftover now
			b.release()
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// memoryOf is what the processes of a sandbox have written: the shim, and what waits in the containers.
func (d *Driver) memoryOf(t *task) (sum int64) {
	pids := []int{t.shim}
	if roots, err := cgroupRoots(); err == nil {
		for _, r := range roots {
			if more, err := cgroups.GetAllPids(filepath.Join(r, d.taskCgroup(t.box))); err == nil && len(more) > 0 {
				pids = append(pids, more...)
				break
			}
		}
	}
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
		f := strings.Fields(string(b))
		if err != nil || len(f) < 3 {
			continue
		}
		resident, _ := strconv.ParseInt(f[1], 10, 64)
		shared, _ := strconv.ParseInt(f[2], 10, 64)
		sum += (resident - shared) * int64(os.Getpagesize())
	}
	return sum
}

// memoryShort says whether the host has less than a tenth of its memory left.
func memoryShort() bool {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return false
	}
	var total, available int64
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total, _ = strconv.ParseInt(f[1], 10, 64)
		case "MemAvailable:":
			available, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	return available < total/10
}
