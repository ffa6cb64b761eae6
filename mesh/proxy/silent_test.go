package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"
)

// silent is a target that accepts no connection and refuses none, as one whose host is gone, until it is told to answer.
func silent(t *testing.T) (addr string, answer func()) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "silent")
	t.Cleanup(func() { f.Close() })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for failed := 0; failed < 3; { // until its queue is full; one alone may have failed for want of a processor
		c, err := net.DialTimeout("tcp", l.Addr().String(), 100*time.Millisecond)
		if err != nil {
			failed++
			continue
		}
		t.Cleanup(func() { c.Close() })
	}
	return l.Addr().String(), func() {
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "woken") })}
		t.Cleanup(func() { s.Close() })
		go s.Serve(l)
	}
}

// TestSilentTarget: a target that says nothing costs one request a moment, and then none; it is used again when it answers.
func TestSilentTarget(t *testing.T) {
	gone, answer := silent(t)
	b := newBed(t)
	b.targets(targetGroup(gone, echo(t)))
	g := b.proxy.groups[testGroup]
	ask := func() string {
		t.Helper()
		res, body := get(t, b.url("/"))
		if res.StatusCode != 200 {
			t.Fatalf("%d", res.StatusCode)
		}
		return body
	}
	for range 10 {
		ask()
	}
	if n := g.stats.connectErrors.Load(); n != 1 {
		t.Errorf("it was tried %d times", n)
	}
	e := g.table.Load().all[gone]
	e.silent.Store(1) // the time is over
	for range 10 {
		ask()
	}
	if n := g.stats.connectErrors.Load(); n != 2 {
		t.Errorf("it was tried %d times, the second time by more than one request", n)
	}
	answer()
	eventually(t, "it serves again", func() bool {
		e.silent.Store(1)
		return ask() == "woken"
	})
	if e.silent.Load() != 0 {
		t.Error("it is avoided still")
	}

	// Where there is no other, it is waited for.
	alone, _ := silent(t)
	b = newBedThatDials(t, 2*time.Second)
	b.targets(targetGroup(alone))
	began := time.Now()
	if res, _ := get(t, b.url("/")); res.StatusCode != 504 {
		t.Errorf("%d", res.StatusCode)
	}
	if took := time.Since(began); took < b.proxy.cfg.DialTimeout {
		t.Errorf("given up after %s", took)
	}
}
