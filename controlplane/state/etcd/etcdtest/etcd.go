// Package etcdtest starts etcd for tests: a process of its own on ports of its own, which ends with the test.
package etcdtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is an etcd of one member.
type Server struct {
	// Endpoint is where clients find it; the same after Restart.
	Endpoint string

	t    testing.TB
	dir  string
	args []string
	peer string
	tls  *tls.Config // by which its health is asked for; nil: plain

	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	log  *output
}

// Start runs etcd with args besides those that say where it is. The test is skipped where etcd is not installed.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, nil, args)
}

// StartTLS is Start for an etcd that args make speak TLS.
func StartTLS(t testing.TB, client *tls.Config, args ...string) *Server {
	t.Helper()
	return start(t, client, args)
}

func start(t testing.TB, client *tls.Config, args []string) *Server {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("etcd is not installed (Debian's etcd-server): ", err)
	}
	scheme := "http"
	if client != nil {
		scheme = "https"
	}
	s := &Server{t: t, dir: t.TempDir(), args: args, tls: client}
	t.Cleanup(s.Kill)
	// Ports are free when they are picked; another process may be faster.
	for attempt := 0; ; attempt++ {
		s.Endpoint, s.peer = fmt.Sprintf("%s://127.0.0.1:%d", scheme, freePort(t)), fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
		if s.run() {
			return s
		}
		if attempt == 5 {
			t.Fatalf("etcd does not start:\n%s", s.log)
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// run starts the process and returns whether it came to be healthy.
func (s *Server) run() bool {
	s.t.Helper()
	s.log = &output{}
	s.cmd = exec.Command("etcd", append([]string{
		"--name=test", "--data-dir=" + s.dir, "--listen-client-urls=" + s.Endpoint, "--advertise-client-urls=" + s.Endpoint,
		"--listen-peer-urls=" + s.peer, "--initial-advertise-peer-urls=" + s.peer, "--initial-cluster=test=" + s.peer,
	}, s.args...)...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, done := s.cmd, make(chan struct{})
	s.done = done
	go func() {
		cmd.Wait()
		close(done)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		if s.answers(ctx) {
			return true
		}
		select {
		case <-done:
			return false
		case <-ctx.Done():
			s.Kill()
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// answers says whether clients are served. Health itself may be bad: an alarm is.
func (s *Server) answers(ctx context.Context) bool {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{TLSClientConfig: s.tls, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/health", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := client.Do(request)
	if err != nil {
		return false
	}
	r.Body.Close()
	return true
}

// Kill ends it at once, as a crash does.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	s.cmd.Process.Kill()
	<-s.done
}

// Stop keeps the process from running, without ending it, until Continue.
func (s *Server) Stop() { s.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue undoes Stop.
func (s *Server) Continue() { s.cmd.Process.Signal(syscall.SIGCONT) }

// Restart runs it again on what it has kept, with other args if there are any.
func (s *Server) Restart(args ...string) {
	s.t.Helper()
	s.Kill()
	if len(args) > 0 {
		s.args = args
	}
	if !s.run() {
		s.t.Fatalf("etcd does not start again:\n%s", s.log)
	}
}

// output keeps what etcd says, for when it fails.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
