package crash

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func mustBeGone(t *testing.T, p *platform) {
	t.Helper()
	if left := leftovers(t, p.dir); len(left) > 0 {
		t.Fatalf("left behind:\n%s\nThe process wrote:\n%s", strings.Join(left, "\n"), p.out)
	}
}

// TestInterrupt: Ctrl-C and SIGTERM leave nothing on the machine, also when the process that made it all was killed, and the next
// start brings the services back.
func TestInterrupt(t *testing.T) {
	lo := loopbackAddresses(t)
	p := newPlatform(t)
	p.start()
	p.deploy("web", 2)
	before := mustIdentities(t, p, "web", 2)
	for _, how := range []string{"SIGINT", "SIGTERM", "SIGTERM after kill -9", "two SIGINT at once"} {
		sig := syscall.SIGINT
		switch how {
		case "SIGTERM":
			sig = syscall.SIGTERM
		case "SIGTERM after kill -9":
			sig = syscall.SIGTERM
			p.kill()
			p.start()
		case "two SIGINT at once":
			p.cmd.Process.Signal(sig)
		}
		if err := p.end(sig); err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		mustBeGone(t, p)
		if now := loopbackAddresses(t); !slices.Equal(lo, now) {
			t.Fatalf("%s: addresses of lo are %v, were %v", how, now, lo)
		}
		p.start()
		if n, err := p.desired("web"); err != nil || n != 2 {
			t.Fatalf("%s: the next start has the service at %d tasks, %v", how, n, err)
		}
		now := mustIdentities(t, p, "web", 2)
		for _, id := range now {
			if slices.Contains(before, id) {
				t.Fatalf("%s: container %q outlived the platform", how, id)
			}
		}
		before = now
		eventually(t, 20*time.Second, func() error { _, err := p.balanced("web"); return err })
	}
}

// TestKeepTasks: with --keep-tasks an orderly end leaves the containers, which answer meanwhile, and the next start takes them over.
func TestKeepTasks(t *testing.T) {
	p := newPlatform(t, "--keep-tasks")
	p.start()
	p.deploy("web", 2)
	before := mustIdentities(t, p, "web", 2)
	tasks, err := p.tasks("web")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.end(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		id, err := identity(task)
		if err != nil || !slices.Contains(before, id) {
			t.Fatalf("without the platform, a task's host port answers %q, %v", id, err)
		}
	}
	p.start()
	if now := mustIdentities(t, p, "web", 2); !slices.Equal(before, now) {
		t.Fatalf("containers before:\n%s\nafter:\n%s\n%s", strings.Join(before, "\n"), strings.Join(now, "\n"), p.stopped())
	}
	eventually(t, 20*time.Second, func() error { _, err := p.balanced("web"); return err })
	p.kill()
	p.args = nil
	p.start()
	if err := p.end(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, p)
}

// TestInterruptWhileStarting ends the platform at every stage of bringing tasks up.
func TestInterruptWhileStarting(t *testing.T) {
	p := newPlatform(t)
	p.start()
	p.deploy("web", 3)
	if err := p.end(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for delay := time.Duration(0); delay < 600*time.Millisecond; delay += 40 * time.Millisecond {
		p.launch()
		time.Sleep(delay) // the stage is the point
		// Before its handler stands, the signal ends it as any program.
		if err := p.end(syscall.SIGINT); err != nil && !strings.Contains(err.Error(), "signal: interrupt") {
			t.Fatal(fmt.Errorf("after %v: %w", delay, err))
		}
		if left := leftovers(t, p.dir); len(left) > 0 {
			t.Fatalf("ended %v after its start it left behind:\n%s\nIt wrote:\n%s", delay, strings.Join(left, "\n"), p.out)
		}
	}
	p.start()
	mustIdentities(t, p, "web", 3)
}
