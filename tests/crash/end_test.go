package crash

import (
	"fmt"
	"os"
	"path/filepath"
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
		eventually(t, patience, func() error { _, err := p.balanced("web"); return err })
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
		mustAnswer(t, task, before)
	}
	p.start()
	if now := mustIdentities(t, p, "web", 2); !slices.Equal(before, now) {
		t.Fatalf("containers before:\n%s\nafter:\n%s\n%s", strings.Join(before, "\n"), strings.Join(now, "\n"), p.stopped())
	}
	eventually(t, patience, func() error { _, err := p.balanced("web"); return err })
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
		// Before its handler stands, the signal ends it as any program. SIGINT does not where these tests run in the background of a shell.
		if err := p.end(syscall.SIGTERM); err != nil && !strings.Contains(err.Error(), "signal: terminated") {
			t.Fatal(fmt.Errorf("after %v: %w", delay, err))
		}
		if left := leftovers(t, p.dir); len(left) > 0 {
			t.Fatalf("ended %v after its start it left behind:\n%s\nIt wrote:\n%s", delay, strings.Join(left, "\n"), p.out)
		}
	}
	p.start()
	mustIdentities(t, p, "web", 3)
}

// TestInterruptWhileWaiting: a platform that waits for the host's lock, which another one holds, is told to end, and does so in order. What
// the one before it left goes too.
func TestInterruptWhileWaiting(t *testing.T) {
	p := newPlatform(t)
	p.start()
	p.kill()
	lock, err := os.OpenFile("/run/neargate/lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	p.launch()
	eventually(t, patience, func() error {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && to == lock.Name() {
				return nil
			}
		}
		return fmt.Errorf("it does not wait for the lock (%v):\n%s", err, p.out)
	})
	p.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, patience, func() error {
		if !p.ended() && !strings.Contains(p.out.String(), "Stopping tasks") {
			return fmt.Errorf("it does not end:\n%s", p.out)
		}
		return nil
	})
	lock.Close()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("it does not end:\n%s", p.out)
	}
	if !p.cmd.ProcessState.Success() {
		t.Fatalf("it ended with %s:\n%s", p.cmd.ProcessState, p.out)
	}
	mustBeGone(t, p)
}
