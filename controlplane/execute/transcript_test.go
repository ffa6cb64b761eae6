package execute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datachannel"
)

// keeper is a log in the test's hands.
type keeper struct {
	mu     sync.Mutex
	texts  []string
	marks  []uint64
	answer func(n int) error // of the n-th call; nil: all is kept
	calls  int
}

func (k *keeper) keep(_ context.Context, events []*agentapi.ShipEvent, mark uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	if k.answer != nil {
		if err := k.answer(k.calls); err != nil {
			return err
		}
	}
	for _, e := range events {
		k.texts = append(k.texts, e.Text)
	}
	k.marks = append(k.marks, mark)
	return nil
}

func (k *keeper) kept() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.texts)
}

// begin runs a transcript, and says how it is ended, with all that was kept.
func (k *keeper) begin(t *testing.T) (x *transcript, clk *clock.Fake, end func() []string) {
	t.Helper()
	clk = clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	x = newTranscript(clk, slog.New(slog.DiscardHandler), k.keep)
	ctx, stop := context.WithCancel(t.Context())
	go x.run(ctx)
	return x, clk, func() []string {
		t.Helper()
		done := make(chan struct{})
		go func() { x.finish(lastWords, stop); close(done) }()
		pass(t, clk, 100*time.Millisecond, 2, done) // finish waits, and who tries again
		return k.kept()
	}
}

// pass lets time pass until ready is closed, but only while so many wait for it: nobody's time is up because another one was slow.
func pass(t *testing.T, clk *clock.Fake, step time.Duration, waiters int, ready <-chan struct{}) {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case <-ready:
			return
		case <-limit:
			t.Fatal("it takes for ever")
		case <-time.After(time.Millisecond):
			if clk.Waiters() >= waiters {
				clk.Advance(step)
			}
		}
	}
}

// first lets time pass, by steps, until something was kept.
func (k *keeper) first(t *testing.T, clk *clock.Fake, step time.Duration) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); len(k.kept()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("nothing is kept")
		}
		clk.Advance(step)
	}
}

func TestTranscriptKeepsLines(t *testing.T) {
	k := &keeper{}
	x, clk, end := k.begin(t)
	x.add(t.Context(), []byte("sh# ls\r\n"))
	x.add(t.Context(), []byte("file\r\nsh# "))
	k.first(t, clk, 100*time.Millisecond) // all of a second in one event, and no part of a line
	x.add(t.Context(), []byte("ex\xffit\r\n"))
	if got, want := end(), []string{"sh# ls\nfile", "sh# ex\uFFFDit"}; !slices.Equal(got, want) {
		t.Errorf("kept %q, want %q", got, want)
	}
	if !slices.IsSorted(k.marks) || k.marks[0] == k.marks[1] {
		t.Errorf("the marks do not grow: %d", k.marks)
	}
}

func TestTranscriptCutsLongLinesBetweenCharacters(t *testing.T) {
	k := &keeper{}
	x, _, end := k.begin(t)
	x.add(t.Context(), []byte("x"+strings.Repeat("ä", maxEvent/2)))
	got := end()
	if len(got) != 2 || strings.Join(got, "") != "x"+strings.Repeat("ä", maxEvent/2) || strings.Contains(got[0], "\uFFFD") {
		t.Errorf("%d events", len(got))
	}
}

func TestTranscriptTriesAgain(t *testing.T) {
	k := &keeper{answer: func(n int) error {
		if n < 4 {
			return status.Error(codes.Unavailable, "there is no leader")
		}
		return nil
	}}
	x, _, end := k.begin(t)
	x.add(t.Context(), []byte("one\n"))
	if got := end(); !slices.Equal(got, []string{"one"}) {
		t.Errorf("kept %q", got)
	}
}

// A log that does not take anything holds a session up once, and then takes up what it can: it says what it lacks.
func TestTranscriptBoundsWhatWaits(t *testing.T) {
	var mu sync.Mutex
	broken := true
	k := &keeper{answer: func(int) error {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return errors.New("out of reach")
		}
		return nil
	}}
	x, clk, end := k.begin(t)
	line := []byte(strings.Repeat("0123456789abcde\n", 64)) // 1 KiB
	added := make(chan struct{})
	go func() {
		defer close(added)
		for range 2 * maxWaiting / len(line) {
			x.add(t.Context(), line)
		}
	}()
	began := clk.Now()
	pass(t, clk, 50*time.Millisecond, 0, added) // nothing waits for ever
	if took := clk.Now().Sub(began); took < maxHeld {
		t.Errorf("it was held up for %v, before anything was let go", took)
	}
	x.mu.Lock()
	waiting := len(x.waiting)
	x.mu.Unlock()
	if waiting > maxWaiting {
		t.Errorf("%d bytes wait", waiting)
	}
	mu.Lock()
	broken = false
	mu.Unlock()
	all := strings.Join(end(), "\n")
	var missing int
	if _, err := fmt.Sscanf(all[strings.LastIndex(all, "[")+1:], "%d bytes of output are missing here", &missing); err != nil {
		t.Fatalf("it does not say what is missing: %v, …%s", err, all[max(0, len(all)-200):])
	}
	if have := strings.Count(all, "\n0")*16 + 16; missing == 0 || have+missing < 2*maxWaiting-64 || have+missing > 2*maxWaiting+64 {
		t.Errorf("%d bytes are kept and %d missing of %d", have, missing, 2*maxWaiting)
	}
}

func TestTranscriptGivesUpWhereItMayNotWrite(t *testing.T) {
	for _, code := range []codes.Code{codes.NotFound, codes.PermissionDenied} {
		k := &keeper{answer: func(int) error { return status.Error(code, "no") }}
		x, _, end := k.begin(t)
		x.add(t.Context(), []byte("one\n"))
		if got := end(); len(got) > 0 || k.calls != 1 {
			t.Errorf("%v: kept %q after %d calls", code, got, k.calls)
		}
		x.add(t.Context(), []byte(strings.Repeat("x", 2*maxWaiting))) // into nothing, and at once
	}
}

// TestSessionIsKept: what the client is shown, by pipes or on the terminal that AWS's client gets, is in the log that the token names.
func TestSessionIsKept(t *testing.T) {
	for name, kind := range map[string]string{"pipes": datachannel.NonInteractive, "AWS's client": ""} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			k := &keeper{}
			var task string
			var to *agentapi.SessionLog
			s.Keep = func(ctx context.Context, id string, log *agentapi.SessionLog, events []*agentapi.ShipEvent, mark uint64) error {
				task, to = id, log
				return k.keep(ctx, events, mark)
			}
			s.log = &controlplane.SessionLog{Group: "audit", Region: "eu-west-1"}
			session := s.begin()
			u := s.connect(session, kind)
			<-u.shaken // which is waited for by the same clock
			advance(s, 100*time.Millisecond, s.node.asked)
			s.node.outputs <- &agentapi.ExecOutput{Output: []byte("out\r\n")}
			s.node.outputs <- &agentapi.ExecOutput{Errors: []byte("err\r\n")}
			s.node.outputs <- &agentapi.ExecOutput{Exit: &agentapi.ExecExit{}}
			for m := range u.got {
				if m.Type == datachannel.ChannelClosed {
					break
				}
			}
			k.first(t, s.clock, 0) // the session's end waits for nothing else
			if got := strings.Join(k.kept(), "\n"); got != "out\nerr" || task != "t" || to.Group != "audit" || to.Region != "eu-west-1" || to.Session != *session.SessionId {
				t.Errorf("%q of task %s is kept in %v", got, task, to)
			}
		})
	}
}
