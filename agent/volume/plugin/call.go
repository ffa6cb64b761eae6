package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// call runs the program within the timeout. It dies with this process: a later one must not meet it at work.
func (p *Plugin) call(ctx context.Context, verb string, r Request) error {
	r.Mounted = false
	var input bytes.Buffer
	plain := json.NewEncoder(&input)
	plain.SetEscapeHTML(false) // programs that take JSON apart by hand are to find & as it is
	if err := plain.Encode(r); err != nil {
		return err
	}
	// A file, not a pipe: what the program leaves running may keep it open.
	path := filepath.Join(p.folder(r.Task.ID, r.Volume), "output")
	output, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("volume %s: %w", r.Volume, err)
	}
	defer output.Close()
	limited, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	err = run(limited, p.cfg.Program, verb, &input, output)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil && err != nil:
		return r.failure(strings.TrimSpace(said(path)+" it has not ended within "+p.cfg.Timeout.String()), -1)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return r.failure(said(path), exit.ExitCode())
	}
	if err != nil {
		return r.failure(err.Error(), -1)
	}
	return nil
}

func run(ctx context.Context, program, verb string, input io.Reader, output *os.File) error {
	c := exec.CommandContext(ctx, program, verb)
	c.Stdin, c.Stdout, c.Stderr = input, output, output
	c.Dir = "/"
	c.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "NEARGATE_") }) // tokens may be among them
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	c.Cancel = func() error { return unix.Kill(-c.Process.Pid, unix.SIGKILL) }
	c.WaitDelay = time.Second // for the input, if nobody reads it
	runtime.LockOSThread()    // the child would get its death signal when the thread that made it ends
	defer runtime.UnlockOSThread()
	err := c.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it has ended well; its input was not read
	}
	return err
}

// maxSaid is how much of what the program wrote becomes a reason.
const maxSaid = 512

// said is the end of what the program wrote, in one line.
func said(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > maxSaid {
		f.Seek(-maxSaid, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, maxSaid))
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(b), "")), " ")
}

// failure is why a volume can not be had, in ECS's words for EFS.
func (r Request) failure(said string, code int) error {
	if r.EFS != nil {
		return fmt.Errorf("failed to invoke EFS utils commands to set up EFS volumes: stderr: %s : unsuccessful EFS utils command execution; code: %d", said, code)
	}
	return fmt.Errorf("failed to mount local volume %s: stderr: %s; code: %d", r.Volume, said, code)
}
