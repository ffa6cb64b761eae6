package execute

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Limits of what is kept of a session's output.
const (
	// maxWaiting is how much output waits to be kept, beside the event that is under way.
	maxWaiting = 256 << 10
	// maxEvent is the length of an event, as AWS's agent has it.
	maxEvent = 200_000
	// gatherTime is how long output is gathered for one event: a key's echo is none of its own.
	gatherTime = time.Second
	// maxHeld is for how long a session waits for output to be kept. One that has waited in vain waits no more until something was kept.
	maxHeld = 2 * time.Second
	// keepTimeout is for one event, retryAfter the pause when it was not kept.
	keepTimeout = 10 * time.Second
	retryAfter  = time.Second
	// lastWords is how long the end of a session is tried to be kept once its client has left, and when the server shuts down.
	lastWords, shutdownWords = 15 * time.Second, 2 * time.Second
)

// transcript carries what a session shows into its log. The session adds to it and goes on; what the log does not take waits here, within
// bounds: a session is held up for as long as something is kept now and then, and for maxHeld when nothing is. What had no room is
// counted, and the log says how much is missing where it is missing.
type transcript struct {
	keep  func(ctx context.Context, events []*agentapi.ShipEvent, mark uint64) error
	clock clock.Clock
	log   *slog.Logger

	mu      sync.Mutex
	waiting []byte
	missing int           // bytes behind waiting that had no room
	stuck   bool          // the log has taken nothing for maxHeld
	over    bool          // nothing more is added; or nothing more is kept
	came    chan struct{} // holds one when there is something to do
	room    chan struct{} // closed, and made anew, when waiting was taken

	done chan struct{} // closed when run has returned
}

func newTranscript(c clock.Clock, log *slog.Logger, keep func(ctx context.Context, events []*agentapi.ShipEvent, mark uint64) error) *transcript {
	return &transcript{keep: keep, clock: c, log: log, came: make(chan struct{}, 1), room: make(chan struct{}), done: make(chan struct{})}
}

// add takes a part of the output.
func (t *transcript) add(ctx context.Context, data []byte) {
	var limit <-chan time.Time
	for {
		t.mu.Lock()
		n := min(len(data), maxWaiting-len(t.waiting))
		if t.over || len(data) == 0 {
			t.mu.Unlock()
			return
		}
		if t.missing == 0 { // otherwise what comes now would stand before what is missing
			t.waiting = append(t.waiting, data[:n]...)
			data = data[n:]
		}
		if len(data) > 0 && (t.stuck || t.missing > 0) {
			t.missing += len(data)
			data = nil
		}
		room := t.room
		t.mu.Unlock()
		t.wake()
		if len(data) == 0 {
			return
		}
		if limit == nil {
			limit = t.clock.After(maxHeld)
		}
		select {
		case <-room:
		case <-ctx.Done():
			t.giveUp()
		case <-limit:
			t.giveUp()
		}
	}
}

func (t *transcript) giveUp() {
	t.mu.Lock()
	t.stuck = true
	t.mu.Unlock()
}

func (t *transcript) wake() {
	select {
	case t.came <- struct{}{}:
	default:
	}
}

// run keeps what is added until finish was called and everything is kept, nothing can be, or ctx ends.
func (t *transcript) run(ctx context.Context) {
	defer close(t.done)
	mark := uint64(0)
	for {
		text, last := t.take()
		switch {
		case text == nil && last:
			return
		case text == nil:
			select {
			case <-t.came:
			case <-ctx.Done():
				t.abandon(ctx.Err())
				return
			}
			t.gather(ctx)
			continue
		}
		now := t.clock.Now()
		mark = max(mark+1, uint64(now.UnixNano()))
		if err := t.put(ctx, []*agentapi.ShipEvent{{TimeMillis: now.UnixMilli(), Text: string(text)}}, mark); err != nil {
			t.abandon(err)
			return
		}
	}
}

// gather waits for more output, unless there is an event's already or no more will come.
func (t *transcript) gather(ctx context.Context) {
	limit := t.clock.After(gatherTime)
	for {
		t.mu.Lock()
		enough := t.over || len(t.waiting) >= maxEvent
		t.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-limit:
			return
		case <-t.came:
		case <-ctx.Done():
			return
		}
	}
}

// take is the next event's text: whole lines, as AWS's agent makes them of a terminal's, but for one that is longer than an event and for what
// stands at the end. nil: there is nothing yet, or, with last, for ever.
func (t *transcript) take() (text []byte, last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(t.waiting), maxEvent)
	if n == 0 {
		return nil, t.over
	}
	if ends := n == len(t.waiting) && (t.over || t.missing > 0); !ends {
		switch i := bytes.LastIndexByte(t.waiting[:n], '\n'); {
		case i >= 0:
			n = i + 1
		case len(t.waiting) < maxEvent:
			return nil, false
		default:
			n -= unfinished(t.waiting[:n])
		}
	}
	text = bytes.ReplaceAll(t.waiting[:n], []byte("\r\n"), []byte("\n"))
	t.waiting = append([]byte(nil), t.waiting[n:]...)
	if len(t.waiting) == 0 && t.missing > 0 {
		text = fmt.Appendf(text, "\n[%d bytes of output are missing here: the log could not take them in time]\n", t.missing)
		t.missing = 0
	}
	close(t.room)
	t.room = make(chan struct{})
	if text = bytes.TrimSuffix(text, []byte("\n")); len(text) == 0 {
		text = []byte("\n") // there is no empty event
	}
	return bytes.ToValidUTF8(text, []byte("\uFFFD")), false
}

// unfinished is how many bytes at the end begin a character that is not all there.
func unfinished(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}

// put keeps one event, however often it has to be tried.
func (t *transcript) put(ctx context.Context, events []*agentapi.ShipEvent, mark uint64) error {
	for {
		limit, cancel := context.WithTimeout(ctx, keepTimeout)
		err := t.keep(limit, events, mark)
		cancel()
		switch status.Code(err) {
		case codes.OK:
			t.mu.Lock()
			t.stuck = false
			t.mu.Unlock()
			return nil
		case codes.NotFound, codes.PermissionDenied, codes.InvalidArgument:
			return err
		}
		select {
		case <-t.clock.After(retryAfter):
		case <-ctx.Done():
			return err
		}
	}
}

// abandon gives the rest up: as with AWS's agent, a session goes on without its log.
func (t *transcript) abandon(err error) {
	t.mu.Lock()
	lost := len(t.waiting) + t.missing
	t.over, t.waiting, t.missing = true, nil, 0
	close(t.room)
	t.room = make(chan struct{})
	t.mu.Unlock()
	t.log.Warn("the output of a session of ECS Exec is not kept any more", "bytes", lost, "error", err)
}

// finish says that nothing is added any more, and waits for what is there to be kept, but not longer than the limit.
func (t *transcript) finish(limit time.Duration, stop func()) {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	t.wake()
	select {
	case <-t.done:
	case <-t.clock.After(limit):
	}
	stop()
	<-t.done
}
