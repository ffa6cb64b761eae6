package crash

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime/native"
	"github.com/seed-2f228079/neargate/client"
)

// program and server are the paths of the built binaries.
var program, server string

var built = flag.String("neargate", "", "path of a neargate that is built already")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "neargate-crash-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program, server = filepath.Join(dir, "neargate"), filepath.Join(dir, "server")
		if *built != "" {
			program = *built
		}
		tags, err := os.ReadFile("../../scripts/tags")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		for _, b := range [][]string{
			{"CGO_ENABLED=1", "-tags", strings.TrimSpace(string(tags)), "-o", program, "../../cmd/neargate"},
			{"CGO_ENABLED=0", "-o", server, "./server"},
		} {
			if b[len(b)-2] == *built {
				continue
			}
			c := exec.Command("go", append([]string{"build"}, b[1:]...)...)
			c.Env = append(os.Environ(), b[0])
			if out, err := c.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n%s", c, err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

// platform is one data directory and the process that uses it, if one does now.
type platform struct {
	t      *testing.T
	dir    string
	listen string
	args   []string // beyond data directory and addresses
	env    []string
	*client.Client

	cmd  *exec.Cmd
	done chan struct{} // closed once cmd has ended
	out  *output
}

// newPlatform has a data directory and a port of its own; nothing runs yet. Whatever of it is left at the test's end goes.
func newPlatform(t *testing.T, args ...string) *platform {
	t.Helper()
	if lacks := native.Check(); len(lacks) > 0 {
		t.Skipf("the native driver cannot run here:\n%s", strings.Join(lacks, "\n"))
	}
	p := &platform{t: t, dir: filepath.Join(t.TempDir(), "data"), listen: freeAddress(t), args: args}
	c, err := client.New(client.Config{Endpoint: "http://" + p.listen, Region: "us-east-1", AccessKey: "test", SecretKey: "test"})
	if err != nil {
		t.Fatal(err)
	}
	p.Client = c
	t.Cleanup(func() {
		if t.Failed() && p.out != nil {
			t.Logf("the last process wrote:\n%s", p.out)
		}
		if p.cmd == nil {
			return
		}
		p.cleanUp()
	})
	return p
}

// cleanUp ends everything by the program's own means, so that a failed test does not disturb the next one.
func (p *platform) cleanUp() {
	if !p.ended() {
		p.kill()
	}
	p.args = withoutKeep(p.args)
	if err := p.tryStart(); err != nil {
		p.kill()
		p.t.Errorf("the platform does not start again for the clean-up: %v\n%s", err, p.out)
		return
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		p.t.Errorf("clean-up: %v", err)
	}
}

func withoutKeep(args []string) []string {
	var kept []string
	for _, a := range args {
		if a != "--keep-tasks" {
			kept = append(kept, a)
		}
	}
	return kept
}

// freeAddress is a loopback address whose port nobody uses now, and the kernel gives to nobody who asks for any: other tests ask all the
// time, also while a platform is dead.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// launch starts the process and does not wait.
func (p *platform) launch() {
	p.t.Helper()
	p.out = &output{}
	p.cmd = exec.Command(program, append([]string{"dev", "--data", p.dir, "--listen", p.listen, "--dns", "127.0.0.1:0", "--api-read-rate", "0", "--api-write-rate", "0"}, p.args...)...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // signals to the test's terminal are not for it
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	p.done = done
	cmd := p.cmd
	go func() {
		cmd.Wait()
		close(done)
	}()
}

func (p *platform) ready(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within) // the test's own is over when it cleans up
	defer cancel()
	done := p.done // the next launch makes another
	go func() {
		select {
		case <-ctx.Done():
		case <-done:
			cancel()
		}
	}()
	if err := p.WaitReady(ctx); err != nil {
		if p.ended() {
			return errors.New("it ended")
		}
		return err
	}
	return nil
}

// start launches the process and returns once it is ready.
func (p *platform) start() {
	p.t.Helper()
	if err := p.tryStart(); err != nil {
		p.t.Fatalf("start: %v; it wrote:\n%s", err, p.out)
	}
}

// tryStart tries again where the port became somebody else's for a while, when the process was dead.
func (p *platform) tryStart() error {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		p.launch()
		err := p.ready(patience)
		if err == nil || !p.ended() || !strings.Contains(p.out.String(), "address already in use") || time.Now().After(end) {
			return err
		}
	}
}

func (p *platform) ended() bool {
	if p.done == nil {
		return true
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill is kill -9.
func (p *platform) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// end sends a signal and waits for an orderly end.
func (p *platform) end(s os.Signal) error {
	if p.ended() {
		return fmt.Errorf("the process had ended by itself: %s", p.cmd.ProcessState)
	}
	p.cmd.Process.Signal(s)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.cmd.Process.Signal(syscall.SIGQUIT) // it prints what it waits for
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
		}
		p.kill()
		return fmt.Errorf("the process did not end within %v of %s:\n%s", patience, s, p.out)
	}
	if !p.cmd.ProcessState.Success() {
		return fmt.Errorf("the process ended with %s:\n%s", p.cmd.ProcessState, p.out)
	}
	return nil
}

// output is what a process writes; it may be read meanwhile.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// patience is how long a test waits for what is to come, on a machine that has much else to do.
const patience = time.Minute

// eventually waits until f returns nil.
func eventually(t *testing.T, within time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v still: %v", within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
