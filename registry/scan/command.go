package scan

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxAnswer bounds what another program answers.
const maxAnswer = 64 << 20

// Command asks a program: it gets the bill of materials (CycloneDX) on its standard input, the image's name and digest as NEARGATE_IMAGE and
// NEARGATE_IMAGE_DIGEST, and writes what it found, as CycloneDX or SARIF, to its standard output. Of the environment it sees PATH, HOME, TMPDIR,
// proxies and nothing of the platform's own. It ends within the scan's time or is killed, with all that it started.
type Command struct {
	Args []string // the program and its arguments
}

// Version implements Scanner: what the program knows may change at any time.
func (*Command) Version() (string, error) { return "", nil }

var passedOn = []string{"PATH", "HOME", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}

// Scan implements Scanner.
func (c *Command) Scan(ctx context.Context, image Image, i *Inventory) (*Report, error) {
	materials, err := i.Materials(image)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env = []string{"NEARGATE_IMAGE=" + image.Name, "NEARGATE_IMAGE_DIGEST=" + image.Digest}
	for _, name := range passedOn {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	out, complaint := &bounded{most: maxAnswer, full: cancel}, &tail{most: 512}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(materials), out, complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if cmd.Process != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) { // which says that something left behind held on to the output
		return nil, fmt.Errorf("%s: %w", complaint.of(filepath.Base(c.Args[0])), cmp.Or(out.err, ctx.Err(), err))
	}
	r, err := readReport(out.text.Bytes(), i)
	if err != nil {
		return nil, fmt.Errorf("what %s answers is %w", filepath.Base(c.Args[0]), err)
	}
	return r, nil
}

// bounded is a buffer that takes so much; then it calls full and fails.
type bounded struct {
	text bytes.Buffer // not embedded: its ReadFrom would go around Write
	most int
	full func()
	err  error
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.text.Len()+len(p) > b.most {
		b.err = errors.New("it answers too much")
		b.full()
		return 0, b.err
	}
	return b.text.Write(p)
}

// tail keeps the end of what is written to it.
type tail struct {
	most int
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if over := len(t.text) - t.most; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

// of is who complains, with the last line of the complaint.
func (t *tail) of(who string) string {
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(t.text), "")), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return who + " says " + fmt.Sprintf("%q", last)
	}
	return who
}
