package agent

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// tended is a driver whose images, disk and complaints the test decides.
type tended struct {
	runtime.Driver
	mu     sync.Mutex
	free   uint64
	frees  uint64 // by the next clean-up
	lacks  []string
	cleans []runtime.Cleanup
}

func (d *tended) Check(context.Context) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lacks
}

func (d *tended) CleanImages(_ context.Context, c runtime.Cleanup) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cleans = append(d.cleans, c)
	if d.frees == 0 {
		return nil, nil
	}
	d.free, d.frees = d.free+d.frees, 0
	return []string{"old:1"}, nil
}

func (d *tended) diskFree() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.free, nil
}

func (d *tended) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// health lets time go by until the host says something new of itself.
func (h *host) health(now *clock.Fake) (said *agentapi.HostHealth) {
	h.t.Helper()
	waitFor(h.t, "the host says how it is", func() bool {
		for len(h.ups) > 0 {
			if u := <-h.ups; u.GetHost() != nil {
				said = u.GetHost()
			}
		}
		now.Advance(time.Second)
		return said != nil
	})
	return said
}

// A host that is short of disk first removes images, then says so, and says when it has room again.
func TestHostShortOfDisk(t *testing.T) {
	now := clock.NewFake(time.Unix(1e9, 0))
	d := &tended{Driver: fake.New(fake.Config{Dir: t.TempDir()}), free: 90 << 20, frees: 20 << 20}
	dir := t.TempDir()
	cfg := Config{Dir: dir, Driver: d, Clock: now, Upkeep: Upkeep{DiskMinimum: 100 << 20, DiskFree: d.diskFree}}
	h := connectHost(t, cfg, "i1")
	if hello := h.hello(); hello.Health.GetDisk() != "" {
		t.Errorf("hello with %v", hello.Health)
	}
	waitFor(t, "images are removed", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return slices.Equal(d.cleans, []runtime.Cleanup{{MinimumAge: pressedAge}})
	})
	d.set(func() { d.free = 99 << 20 })
	if said := h.health(now); said.Disk != "99 MiB of disk, of the 100 MiB that must be" || said.Runtime != "" {
		t.Errorf("short: %v", said)
	}
	// It has to have some more before it counts as having enough; until then it has nothing new to say.
	d.set(func() { d.free, d.lacks = 124<<20, []string{"cgroup controller memory is gone", "so is pids"} })
	if said := h.health(now); said.Disk == "" || said.Runtime != "cgroup controller memory is gone; so is pids" {
		t.Errorf("with a runtime that is out of order: %v", said)
	}
	// Another process says it at once.
	d.set(func() { d.lacks, d.free = nil, 99<<20 })
	h.stop()
	h = connectHost(t, cfg, "i1")
	said := h.hello().Health
	if said.GetDisk() == "" { // it had not looked yet
		said = h.health(now)
	}
	if said.Disk == "" {
		t.Errorf("after a restart: %v", said)
	}
	// What hello has said may come once more, if it was found while hello was made.
	d.set(func() { d.free = 125 << 20 })
	for said.Disk != "" {
		said = h.health(now)
	}
	if said.Runtime != "" {
		t.Errorf("with room again: %v", said)
	}
}

// Unused images go at intervals, as the ECS agent's options say.
func TestImageCleanupInterval(t *testing.T) {
	for name, c := range map[string]struct {
		upkeep Upkeep
		within time.Duration
		want   []runtime.Cleanup
	}{
		"defaults": {Upkeep{}, time.Hour + time.Minute, []runtime.Cleanup{{MinimumAge: time.Hour, Most: 5}, {MinimumAge: time.Hour, Most: 5}}},
		"options": {Upkeep{ImageCleanup: 40 * time.Minute, ImageAge: 2 * time.Hour, ImagesPerCleanup: 3}, time.Hour,
			[]runtime.Cleanup{{MinimumAge: 2 * time.Hour, Most: 3}}},
		"never": {Upkeep{ImageCleanup: -1}, 2 * time.Hour, nil},
	} {
		t.Run(name, func(t *testing.T) {
			now := clock.NewFake(time.Unix(1e9, 0))
			d := &tended{Driver: fake.New(fake.Config{Dir: t.TempDir()})}
			a, err := New(Config{Dir: t.TempDir(), Driver: d, Clock: now, Upkeep: c.upkeep, NodeID: "n", Client: agentapi.NewDispatcherClient(nil)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				a.tendHost(ctx)
			}()
			for passed := time.Duration(0); passed < c.within; passed += diskEvery {
				waitFor(t, "it waits", func() bool { return now.Waiters() == 1 })
				now.Advance(diskEvery)
			}
			waitFor(t, "it waits", func() bool { return now.Waiters() == 1 })
			cancel()
			<-done
			if diff := cmp.Diff(c.want, d.cleans); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A process says of itself once that it has started: a deregistered host is a member again then, and not when its session was lost.
func TestFirstHelloOfAProcess(t *testing.T) {
	dir, d := t.TempDir(), fake.New(fake.Config{Dir: t.TempDir()})
	for range 2 {
		h := newHost(t, dir, d, "i1")
		if hello := h.hello(); !hello.Started {
			t.Error("the first hello does not say that the process has started")
		}
		h.downs <- nil // the server ends the session
		if hello := h.hello(); hello.Started {
			t.Error("a later hello says that the process has started")
		}
		h.stop()
	}
}
