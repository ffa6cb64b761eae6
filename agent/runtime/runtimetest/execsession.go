package runtimetest

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// session runs commands that somebody talks to, through pipes and on a terminal.
func (s *suite) session(t *testing.T) {
	h := s.host(t)
	spec := command("serve", ":8080", "inside")
	spec.User, spec.MemoryMib = "alice", 64
	task, _ := h.task("bridge", spec)
	h.start(task, "main")
	h.until(task, "main", "serving")

	t.Run("InputEnds", func(t *testing.T) {
		text := strings.Repeat("much input ", 20_000)
		var out, errs said
		code, err := h.Exec(t.Context(), task.ID, "main", runtime.Command{Args: []string{"/prog", "copy"}, Input: strings.NewReader(text), Output: &out, Errors: &errs})
		if err != nil || code != 0 || out.String() != text || !strings.HasPrefix(errs.String(), "copied 220000") {
			t.Errorf("code %d, %v, %d bytes of %d, stderr %q", code, err, len(out.String()), len(text), errs.String())
		}
	})
	t.Run("AsRoot", func(t *testing.T) {
		var out said
		code, err := h.Exec(t.Context(), task.ID, "main", runtime.Command{Args: []string{"/prog", "id", "then", "env"}, Output: &out, Root: true, Environment: []string{"TERM=xterm"}})
		if err != nil || code != 0 || !strings.HasPrefix(out.String(), "0 0 ") || !strings.Contains(out.String(), "\nTERM=xterm\n") ||
			!strings.Contains(out.String(), "\nHOME=/") || strings.Contains(out.String(), "alice") {
			t.Errorf("code %d, %v, output %q", code, err, out.String())
		}
	})
	t.Run("SlowReader", func(t *testing.T) {
		// What the command wrote is taken long after it has ended.
		r, w := io.Pipe()
		defer r.Close()
		ended := make(chan error, 1)
		go func() {
			_, err := h.Exec(t.Context(), task.ID, "main", runtime.Command{Args: []string{"/prog", "lines", "3000"}, Output: w})
			w.Close()
			ended <- err
		}()
		lines, b := 0, make([]byte, 512)
		for {
			n, err := r.Read(b)
			lines += strings.Count(string(b[:n]), "\n")
			if err != nil {
				break
			}
			if lines < 30 {
				time.Sleep(20 * time.Millisecond) // a slow reader is what is tested
			}
		}
		if err := <-ended; err != nil || lines != 3000 {
			t.Errorf("%d lines, %v", lines, err)
		}
	})
	t.Run("Terminal", func(t *testing.T) {
		c := h.talk(task, &runtime.Terminal{Size: runtime.Size{Columns: 101, Rows: 33}}, "/prog", "lines-of-input", "then", "terminal", "101 columns and 33 rows", "then", "exit", "7")
		c.say("hello\r")
		c.until("hello\r\n") // the terminal's echo
		c.until(`got "hello"`)
		c.say("bye\r")
		c.until("terminal of 101 columns and 33 rows\r\n")
		if code, err := c.end(); code != 7 || err != nil {
			t.Errorf("code %d, %v: %q", code, err, c.out.String())
		}
	})
	t.Run("EndOfFileOnATerminal", func(t *testing.T) {
		c := h.talk(task, &runtime.Terminal{}, "/prog", "lines-of-input")
		c.say("one\r")
		c.until(`got "one"`)
		c.say("\x04")
		if code, err := c.end(); code != 0 || err != nil {
			t.Errorf("code %d, %v: %q", code, err, c.out.String())
		}
	})
	t.Run("Resize", func(t *testing.T) {
		sizes := make(chan runtime.Size)
		c := h.talk(task, &runtime.Terminal{Size: runtime.Size{Columns: 80, Rows: 24}, Resize: sizes}, "/prog", "terminal-changed", "132 columns and 50 rows")
		c.until("watching")
		sizes <- runtime.Size{Columns: 132, Rows: 50}
		c.until("now 132 columns and 50 rows")
		if code, err := c.end(); code != 0 || err != nil {
			t.Errorf("code %d, %v", code, err)
		}
	})
	t.Run("InterruptKey", func(t *testing.T) {
		c := h.talk(task, &runtime.Terminal{}, "/prog", "print", "ready", "then", "sleep", "1h")
		c.until("ready")
		c.say("\x03")
		if code, err := c.end(); code == 0 || err != nil {
			t.Errorf("code %d, %v", code, err)
		}
	})
	t.Run("WhoLeavesKillsIt", func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		c := h.talkUntil(ctx, task, &runtime.Terminal{}, "/prog", "print", "ready", "then", "child", "ignore")
		c.until("ready")
		leave()
		if _, err := c.end(); !errors.Is(err, context.Canceled) {
			t.Errorf("exec = %v", err)
		}
		for end := time.Now().Add(time.Minute); strings.Contains(h.processes(task), "ignore"); {
			if time.Now().After(end) {
				t.Fatalf("still there: %q", h.processes(task))
			}
		}
	})
	t.Run("CannotStartOnATerminal", func(t *testing.T) {
		c := h.talk(task, &runtime.Terminal{}, "nope")
		if code, err := c.end(); err != nil || code != 126 && code != 127 || c.out.String() == "" {
			t.Errorf("code %d, %v: %q", code, err, c.out.String())
		}
	})
	t.Run("EndsWithTheContainer", func(t *testing.T) {
		c := h.talk(task, &runtime.Terminal{}, "/prog", "print", "ready", "then", "sleep", "1h")
		c.until("ready")
		if err := h.Stop(t.Context(), task.ID, "main", time.Second); err != nil {
			t.Fatal(err)
		}
		if code, err := c.end(); err == nil && code == 0 {
			t.Errorf("code %d", code)
		}
	})
}

// talking is a command that runs.
type talking struct {
	t     testing.TB
	in    *io.PipeWriter
	out   said
	ended chan struct{}
	code  int
	err   error
}

func (h *host) talk(task runtime.Task, terminal *runtime.Terminal, args ...string) *talking {
	return h.talkUntil(context.Background(), task, terminal, args...)
}

func (h *host) talkUntil(ctx context.Context, task runtime.Task, terminal *runtime.Terminal, args ...string) *talking {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	r, w := io.Pipe()
	c := &talking{t: h.t, in: w, ended: make(chan struct{})}
	c.out.more = make(chan struct{}, 1)
	go func() {
		defer close(c.ended)
		defer cancel()
		defer r.Close()
		c.code, c.err = h.Exec(ctx, task.ID, "main", runtime.Command{Args: args, Input: r, Output: &c.out, Terminal: terminal})
	}()
	return c
}

func (c *talking) say(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, text); err != nil {
		c.t.Fatalf("say %q: %v", text, err)
	}
}

// until waits for the words.
func (c *talking) until(words string) {
	c.t.Helper()
	for !strings.Contains(c.out.String(), words) {
		select {
		case <-c.out.more:
		case <-c.ended:
			if !strings.Contains(c.out.String(), words) {
				c.t.Fatalf("ended (%d, %v) without %q: %q", c.code, c.err, words, c.out.String())
			}
		}
	}
}

func (c *talking) end() (int, error) {
	<-c.ended
	return c.code, c.err
}

// said is what a command has written so far.
type said struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{} // nil: nobody waits
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	s.text.Write(b)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}
