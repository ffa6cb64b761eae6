package crash

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestTwoInstances: two platforms on one machine, each with a load balancer on port 80 of an address of its own. The one that comes
// second cannot have 127.0.0.1:80, says so and goes on. The end of one does not cost the other a request.
func TestTwoInstances(t *testing.T) {
	first, second := newPlatform(t), newPlatform(t)
	first.start()
	first.deploy("web", 2)
	second.start()
	second.deploy("web", 2)
	mine, theirs := first.ownAddress(t), second.ownAddress(t)
	if mine == theirs {
		t.Fatalf("both have the address %s", mine)
	}
	if b := first.bridge(t); b == second.bridge(t) {
		t.Fatalf("both have the bridge %s", b)
	}
	if first.shares(t) && second.shares(t) {
		t.Fatal("both have 127.0.0.1:80")
	}
	served := func(p *platform, at netip.Addr) error {
		ids, err := p.identities("web", 2)
		if err != nil {
			return err
		}
		body, err := get("http://"+netip.AddrPortFrom(at, 80).String()+"/web", "")
		if err == nil && !slices.ContainsFunc(ids, func(id string) bool { return strings.HasSuffix(id, body) }) {
			err = fmt.Errorf("%s is answered by %q, which is not one of %q", at, body, ids)
		}
		return err
	}
	eventually(t, patience, func() error { return served(first, mine) })
	eventually(t, patience, func() error { return served(second, theirs) })

	var requests, failures atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			requests.Add(1)
			if _, err := get("http://"+netip.AddrPortFrom(theirs, 80).String()+"/web", ""); err != nil {
				failures.Add(1)
				t.Errorf("request to the second: %v", err)
			}
		}
	}()
	asked := func() { stop(); <-done }
	defer asked()
	before := mustIdentities(t, second, "web", 2)
	if err := first.end(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, first)
	first.start() // and its return disturbs no more
	mustIdentities(t, first, "web", 2)
	asked()
	t.Logf("%d requests to the second while the first ended and came back, %d failed", requests.Load(), failures.Load())
	if now := mustIdentities(t, second, "web", 2); !slices.Equal(before, now) {
		t.Fatalf("containers of the second before:\n%s\nafter:\n%s\n%s", strings.Join(before, "\n"), strings.Join(now, "\n"), second.stopped())
	}
	eventually(t, patience, func() error { return served(first, mine) })
	if err := second.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, second)
	eventually(t, patience, func() error { return served(first, mine) })
}

func (p *platform) bridge(t *testing.T) string { return instance(t, p.dir).Bridge() }

// ownAddress is the loopback address that only this platform's load balancer has.
func (p *platform) ownAddress(t *testing.T) (own netip.Addr) {
	t.Helper()
	eventually(t, patience, func() error {
		for _, a := range p.listening(t, 80) {
			if a.IsLoopback() && a != netip.MustParseAddr("127.0.0.1") {
				own = a
				return nil
			}
		}
		return fmt.Errorf("no load balancer has an address of its own: %v", p.listening(t, 80))
	})
	return own
}

// shares waits until the platform has 127.0.0.1:80, or says that it could not: a program of another test may have had it, too.
func (p *platform) shares(t *testing.T) (has bool) {
	t.Helper()
	eventually(t, patience, func() error {
		has = slices.Contains(p.listening(t, 80), netip.MustParseAddr("127.0.0.1"))
		if out := p.out.String(); !has && (!strings.Contains(out, "127.0.0.1:80") || !strings.Contains(out, "address already in use")) {
			return fmt.Errorf("it does not say that it could not have 127.0.0.1:80:\n%s", out)
		}
		return nil
	})
	return has
}

// listening is where the process listens on a port, by what the kernel says.
func (p *platform) listening(t *testing.T, port uint16) (at []netip.Addr) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	inodes := map[string]bool{}
	fds, _ := filepath.Glob(proc + "fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:[") {
			inodes[strings.Trim(to, "socket:[]")] = true
		}
	}
	f, err := os.Open(proc + "net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		// sl local rem st tx:rx tr:when retrnsmt uid timeout inode
		w := strings.Fields(s.Text())
		if len(w) < 10 || w[3] != "0A" || !inodes[w[9]] {
			continue
		}
		host, portText, _ := strings.Cut(w[1], ":")
		b, err := hex.DecodeString(host)
		n, err2 := strconv.ParseUint(portText, 16, 16)
		if err != nil || err2 != nil || uint16(n) != port {
			continue
		}
		slices.Reverse(b)
		a, _ := netip.AddrFromSlice(b)
		at = append(at, a)
	}
	return at
}
