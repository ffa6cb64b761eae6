// Package etcdtest starts etcd for tests: a process of its own on ports of its own, which ends with the test.
package etcdtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Server is a member of an etcd, most often the only one.
type Server struct {
	// Endpoint is where clients find it; the same after Restart.
	Endpoint string

	t       testing.TB
	name    string
	dir     string
	args    []string
	peer    string
	cluster string      // all members, NAME=PEER,…
	tls     *tls.Config // by which its health is asked for; nil: plain

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
	installed(t)
	scheme := "http"
	if client != nil {
		scheme = "https"
	}
	s := &Server{t: t, name: "test", dir: t.TempDir(), args: args, tls: client}
	t.Cleanup(s.Kill)
	// Ports are free when they are picked; another process may be faster.
	for attempt := 0; ; attempt++ {
		s.Endpoint, s.peer = fmt.Sprintf("%s://127.0.0.1:%d", scheme, freePort(t)), fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
		s.cluster = s.name + "=" + s.peer
		if s.run() {
			return s
		}
		if attempt == 5 {
			t.Fatalf("etcd does not start:\n%s", s.log)
		}
	}
}

func installed(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("etcd is not installed (Debian's etcd-server): ", err)
	}
}

// StartCluster runs an etcd of so many members.
func StartCluster(t testing.TB, members int, args ...string) []*Server {
	t.Helper()
	installed(t)
	for attempt := 0; ; attempt++ {
		var servers []*Server
		var cluster []string
		for i := range members {
			s := &Server{t: t, name: fmt.Sprint("m", i), dir: t.TempDir(), args: args}
			t.Cleanup(s.Kill)
			s.Endpoint, s.peer = fmt.Sprintf("http://127.0.0.1:%d", freePort(t)), fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
			servers, cluster = append(servers, s), append(cluster, s.name+"="+s.peer)
		}
		var failed atomic.Int32
		var group sync.WaitGroup
		for _, s := range servers {
			s.cluster = strings.Join(cluster, ",")
			group.Go(func() {
				if !s.run() {
					failed.Add(1)
				}
			})
		}
		group.Wait()
		if failed.Load() == 0 {
			return servers
		}
		for _, s := range servers {
			s.Kill()
		}
		if attempt == 5 {
			t.Fatalf("etcd does not start:\n%s", servers[0].log)
		}
	}
}

// freePort is none of those that the kernel gives to whoever wants any: a member that is down for a while finds its own free again.
func freePort(t testing.TB) int {
	t.Helper()
	const lowest = 10_000
	end := 32768
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(b), &end)
	}
	for range 100 {
		address := "127.0.0.1:0"
		if end > lowest+1000 {
			address = fmt.Sprint("127.0.0.1:", lowest+rand.IntN(end-lowest))
		}
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return l.Addr().(*net.TCPAddr).Port
		}
	}
	t.Fatal("there is no free port")
	return 0
}

// run starts the process and returns whether it came to be healthy.
func (s *Server) run() bool {
	s.t.Helper()
	s.log = &output{}
	s.cmd = exec.Command("etcd", append([]string{
		"--name=" + s.name, "--data-dir=" + s.dir, "--listen-client-urls=" + s.Endpoint, "--advertise-client-urls=" + s.Endpoint,
		"--listen-peer-urls=" + s.peer, "--initial-advertise-peer-urls=" + s.peer, "--initial-cluster=" + s.cluster,
	}, s.args...)...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Error(err)
		return false
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
	for end := time.Now().Add(time.Minute); !s.run(); time.Sleep(100 * time.Millisecond) { // its ports may be taken for a while
		if time.Now().After(end) {
			s.t.Fatalf("etcd does not start again:\n%s", s.log)
		}
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
