package raft

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// repeatAfter is how often raft's complaint about the same thing is passed on. It makes several a second for as long as a server is gone.
const repeatAfter = time.Minute

// maxRepeats bounds what is remembered of it.
const maxRepeats = 256

// hclog passes what raft logs on to slog. Its chatter about elections and snapshots is for debugging.
func (e *Engine) hclog() hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Output: io.Discard, Level: hclog.Debug})
	l.RegisterSink(&sink{logger: e.logger, clock: e.opts.Clock, of: map[string]*repeated{}})
	return l
}

type sink struct {
	logger *slog.Logger
	clock  clock.Clock

	mu sync.Mutex
	of map[string]*repeated
}

// repeated is one complaint.
type repeated struct {
	passed time.Time // on last
	held   int       // since
}

func (s *sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn:
		to = slog.LevelWarn
	case hclog.Error:
		to = slog.LevelError
	}
	if to != slog.LevelDebug {
		held, pass := s.pass(subject(msg, args))
		if !pass {
			to = slog.LevelDebug
		} else if held > 0 {
			args = append(args[:len(args):len(args)], "times_before", held)
		}
	}
	s.logger.Log(context.Background(), to, msg, args...)
}

// subject is what a complaint is about: its words and the server that they name, but not how often and why.
func subject(msg string, args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "peer", "target", "server-id", "from":
			return msg + "\x00" + strings.TrimSpace(fmt.Sprint(args[i+1]))
		}
	}
	return msg
}

// pass says whether a complaint is passed on, and how many alike were not since the last.
func (s *sink) pass(subject string) (held int, pass bool) {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.of[subject]
	if r != nil && now.Sub(r.passed).Abs() < repeatAfter {
		r.held++
		return 0, false
	}
	if r == nil {
		if len(s.of) == maxRepeats {
			clear(s.of)
		}
		r = &repeated{}
		s.of[subject] = r
	}
	held, *r = r.held, repeated{passed: now}
	return held, true
}
