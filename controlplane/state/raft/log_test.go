package raft

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// TestComplaintsAreNotRepeated: what raft says several times a second of a server that is gone is passed on once a minute, with how often it was said; of
// another server it is passed on at once.
func TestComplaintsAreNotRepeated(t *testing.T) {
	var out bytes.Buffer
	now := clock.NewFake(time.Unix(1, 0))
	s := &sink{logger: slog.New(slog.NewTextHandler(&out, nil)), clock: now, of: map[string]*repeated{}}
	complain := func(peer string) {
		s.Accept("", hclog.Error, "failed to heartbeat to", "peer", peer, "error", now.Now())
	}
	for range 500 {
		complain("one")
		complain("two")
		now.Advance(250 * time.Millisecond)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 6 { // at 0, 60 and 120 s
		t.Fatalf("%d lines:\n%s", len(lines), &out)
	}
	for i, l := range lines {
		if strings.Contains(l, "times_before=239") != (i >= 2) {
			t.Errorf("line %d is %s", i, l)
		}
	}
	for i := range 3 * maxRepeats {
		complain(strings.Repeat("x", i))
	}
	if len(s.of) > maxRepeats {
		t.Errorf("%d complaints are remembered", len(s.of))
	}
}
