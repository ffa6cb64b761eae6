package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/client"
)

var (
	binary   string // the neargate under test
	services string // folder with the binaries of the microservices example
	repo     string // root of the repository
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "neargate-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if repo, err = filepath.Abs("../.."); err == nil {
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build makes the binaries once for all tests.
func build(dir string) error {
	binary, services = filepath.Join(dir, "neargate"), filepath.Join(dir, "services")
	tags, err := os.ReadFile(filepath.Join(repo, "scripts/tags"))
	if err != nil {
		return err
	}
	if out, err := goBuild("1", "-tags", strings.TrimSpace(string(tags)), "-ldflags", `-extldflags "-static"`, "-o", binary, "./cmd/neargate"); err != nil {
		return fmt.Errorf("build neargate: %w\n%s", err, out)
	}
	for _, s := range []string{"users", "threads", "posts"} {
		if out, err := goBuild("0", "-o", filepath.Join(services, s), "./examples/microservices/"+s); err != nil {
			return fmt.Errorf("build %s: %w\n%s", s, err, out)
		}
	}
	return nil
}

func goBuild(cgo string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Dir, cmd.Env = repo, append(os.Environ(), "CGO_ENABLED="+cgo)
	return cmd.CombinedOutput()
}

// platform is a running `neargate dev`.
type platform struct {
	t        *testing.T
	cmd      *exec.Cmd
	out      *output
	done     chan struct{} // closed when the process has ended, after err is set
	err      error
	driver   string
	data     string
	listen   string // host:port of the one port
	dns      string
	endpoint string
	extra    []string // further environment of clients
	args     []string // further arguments of the platform
}

// output collects what a process writes.
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

// start runs a platform on the native driver, stops it at the end of the test and checks that nothing is left.
func start(t *testing.T, env ...string) *platform { return startOn(t, "native", env...) }

func startOn(t *testing.T, driver string, env ...string) *platform {
	t.Helper()
	return startWith(t, driver, nil, env...)
}

func startWith(t *testing.T, driver string, args []string, env ...string) *platform {
	t.Helper()
	if driver == "native" && os.Geteuid() != 0 {
		t.Skip("the native driver needs root")
	}
	p := &platform{t: t, driver: driver, data: t.TempDir(), args: args}
	p.begin(env...)
	return p
}

// begin runs the platform, stops it at the end of the test and checks that nothing is left.
func (p *platform) begin(env ...string) {
	p.t.Helper()
	p.run(env...)
	p.t.Cleanup(func() {
		p.stop()
		p.nothingLeft()
	})
}

// freePort is a port that nobody has just now, for TCP and UDP, and the kernel gives to nobody who asks for any.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(10000 + rand.IntN(20000))
		l, err := net.Listen("tcp", "0.0.0.0:"+port)
		if err != nil {
			continue
		}
		c, err := net.ListenPacket("udp", "0.0.0.0:"+port)
		l.Close()
		if err == nil {
			c.Close()
			return port
		}
	}
	t.Fatal("no port is free for both TCP and UDP")
	return ""
}

// run starts the process and waits until it is ready. A port may be taken between looking for it and using it, so it tries again.
func (p *platform) run(env ...string) {
	p.t.Helper()
	for try := 1; ; try++ {
		p.listen, p.dns = "127.0.0.1:"+freePort(p.t), "127.0.0.1:"+freePort(p.t)
		p.endpoint = "http://" + p.listen
		p.out, p.done = &output{}, make(chan struct{})
		p.cmd = exec.Command(binary, "dev", "--data", p.data, "--listen", p.listen, "--dns", p.dns, "--runtime", p.driver)
		p.cmd.Args = append(p.cmd.Args, p.args...)
		p.cmd.Env = append(os.Environ(), env...)
		p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
		if err := p.cmd.Start(); err != nil {
			p.t.Fatal(err)
		}
		go func(cmd *exec.Cmd, done chan struct{}) {
			p.err = cmd.Wait()
			close(done)
		}(p.cmd, p.done)
		err := p.waitReady(2 * time.Minute)
		if err == nil {
			return
		}
		p.stop()
		if try == 3 || !strings.Contains(p.out.String(), "address already in use") {
			p.t.Fatalf("neargate dev: %v\n%s", err, p.out)
		}
	}
}

func (p *platform) waitReady(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := p.done
	go func() {
		select {
		case <-done: // no need to wait longer
			cancel()
		case <-ctx.Done():
		}
	}()
	return p.client().WaitReady(ctx)
}

// client is our own client with the root credentials.
func (p *platform) client() *client.Client {
	c, err := client.New(client.Config{Endpoint: p.endpoint, Region: "us-east-1", AccessKey: "test", SecretKey: "test"})
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// stop ends the platform as Ctrl-C does.
func (p *platform) stop() {
	select {
	case <-p.done:
		return
	default:
	}
	p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.done:
		if p.err != nil {
			p.t.Errorf("neargate dev ended with %v\n%s", p.err, p.out)
		}
	case <-time.After(time.Minute):
		p.cmd.Process.Signal(syscall.SIGQUIT) // it prints what it waits for
		<-p.done
		p.t.Errorf("neargate dev does not end on SIGINT\n%s", p.out)
	}
	if p.t.Failed() {
		p.t.Logf("the platform said:\n%s", p.out)
	}
}

// nothingLeft checks that the platform took everything with it that it had in the kernel. Files stay: they are its state.
func (p *platform) nothingLeft() {
	left := func(what string, found []string) {
		if len(found) > 0 {
			p.t.Errorf("left behind: %s: %s", what, strings.Join(found, ", "))
		}
	}
	left("processes", processesOf(p.data))
	left("mounts", linesWith("/proc/self/mountinfo", p.data))
	if p.driver != "native" {
		return
	}
	short := p.short()
	if _, err := net.InterfaceByName("ng-" + short); err == nil {
		left("bridge", []string{"ng-" + short})
	}
	for _, pattern := range []string{"/sys/fs/cgroup/neargate-" + short, "/sys/fs/cgroup/*/neargate-" + short} {
		groups, _ := filepath.Glob(pattern)
		left("cgroups", groups)
	}
	if nft, err := exec.LookPath("nft"); err == nil {
		tables, err := exec.Command(nft, "list", "tables").CombinedOutput()
		if err == nil && strings.Contains(string(tables), short) {
			left("nftables", []string{string(tables)})
		}
	}
}

// short is the part of the kernel objects' names that is this platform's own: docs/design/runtime.md.
func (p *platform) short() string {
	b, err := os.ReadFile(filepath.Join(p.data, "FORMAT"))
	if err != nil {
		p.t.Fatal(err)
	}
	id := regexp.MustCompile(`(?m)^id (\S+)`).FindSubmatch(b)
	if id == nil {
		p.t.Fatalf("FORMAT has no id:\n%s", b)
	}
	sum := sha256.Sum256(id[1])
	return hex.EncodeToString(sum[:4])
}

// processesOf are the processes whose command line names the folder.
func processesOf(dir string) (found []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err == nil && bytes.Contains(b, []byte(dir)) {
			found = append(found, filepath.Base(filepath.Dir(f))+" "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}

func linesWith(file, part string) (found []string) {
	b, _ := os.ReadFile(file)
	for l := range strings.Lines(string(b)) {
		if strings.Contains(l, part) {
			found = append(found, strings.TrimSpace(l))
		}
	}
	return found
}

// eventually waits for a condition; what it says at last is why it does not hold.
func eventually(t *testing.T, limit time.Duration, what string, holds func() (ok bool, why string)) {
	t.Helper()
	for end := time.Now().Add(limit); ; {
		ok, why := holds()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v: %s", what, limit, why)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
