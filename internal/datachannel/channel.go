package datachannel

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/id"
)

// Window is how many messages of a stream may wait for their acknowledgement.
const Window = 32

// maxAcks is how many acknowledgements may wait to be written; one that is left out is asked for again.
const maxAcks = 1024

// When what was not acknowledged is sent again: twice the time that acknowledgements took lately, within these.
const (
	minResend = 200 * time.Millisecond
	maxResend = time.Second
)

// frames is what a channel needs of a connection.
type frames interface {
	readMessage(ctx context.Context) ([]byte, error)
	write(ctx context.Context, b []byte) error
}

// Channel streams messages both ways over a connection whose first message has passed.
type Channel struct {
	frames frames
	out    string // type of what is sent
	in     string // and of what comes
	clock  clock.Clock

	sending chan struct{}        // capacity 1: held by who sends
	acks    chan acknowledgement // to be written
	kick    chan struct{}        // capacity 1: what was sent again has arrived

	expected int64 // sequence number of the next message to be taken; only Run's

	mu      sync.Mutex
	next    int64 // sequence number of the next message sent
	waiting []sent
	trip    time.Duration // smoothed time until an acknowledgement
	paused  bool          // the other end wants nothing just now
	blocked bool          // a Send waits for room
	full    chan struct{} // closed while blocked
	changed chan struct{} // closed and made anew with every acknowledgement
}

// sent is a message that has not been acknowledged.
type sent struct {
	sequence  int64
	text      []byte
	first, at time.Time
}

// NewServer is the end that sends output.
func NewServer(c *Conn, k clock.Clock) *Channel { return newChannel(c, OutputStream, InputStream, k) }

// NewClient is the end that sends input.
func NewClient(c *Conn, k clock.Clock) *Channel { return newChannel(c, InputStream, OutputStream, k) }

func newChannel(f frames, out, in string, k clock.Clock) *Channel {
	return &Channel{frames: f, out: out, in: in, clock: k, sending: make(chan struct{}, 1), acks: make(chan acknowledgement, maxAcks), kick: make(chan struct{}, 1),
		full: make(chan struct{}), changed: make(chan struct{})}
}

// Send sends one message of the stream, once there is room for it. Safe for concurrent use.
func (c *Channel) Send(ctx context.Context, t PayloadType, flags uint64, payload []byte) error {
	select { // messages leave in the order of their numbers
	case c.sending <- struct{}{}:
		defer func() { <-c.sending }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := c.waitRoom(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	now := c.clock.Now()
	m := Message{Type: c.out, Created: now.UnixMilli(), Sequence: c.next, Flags: flags, ID: id.NewBinary(rand.Reader), PayloadType: t, Payload: payload}
	if c.next == 0 {
		m.Flags |= SYN
	}
	text := m.Marshal()
	c.waiting = append(c.waiting, sent{m.Sequence, text, now, now})
	c.next++
	c.mu.Unlock()
	return c.frames.write(ctx, text)
}

func (c *Channel) waitRoom(ctx context.Context) error {
	for {
		c.mu.Lock()
		if len(c.waiting) < Window && !c.paused {
			c.mu.Unlock()
			return nil
		}
		if !c.blocked {
			c.blocked = true
			close(c.full)
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Full is closed while a Send waits for acknowledgements. Who takes what comes must not wait then for what depends on the Send.
func (c *Channel) Full() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.full
}

// Flush returns once everything sent has been acknowledged.
func (c *Channel) Flush(ctx context.Context) error {
	for {
		c.mu.Lock()
		left, changed := len(c.waiting), c.changed
		c.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Announce sends a message that is not part of the stream.
func (c *Channel) Announce(ctx context.Context, kind string, payload []byte) error {
	return c.frames.write(ctx, c.message(kind, payload).Marshal())
}

func (c *Channel) message(kind string, payload []byte) *Message {
	return &Message{Type: kind, Created: c.clock.Now().UnixMilli(), Flags: SYN | FIN, ID: id.NewBinary(rand.Reader), Payload: payload}
}

// Run reads until the connection or ctx ends, or take fails; its error is never nil. take is given the messages of the other end's stream
// in order, and those outside of it (ChannelClosed). It says whether it took one: otherwise that one comes again. It must not wait
// for anything that a Send waited for would have to bring about: see Full.
//
// The reader writes nothing, so that two ends whose connection is full both ways still read.
func (c *Channel) Run(ctx context.Context, take func(*Message) (bool, error)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.read(ctx, take) })
	g.Go(func() error { return c.acknowledge(ctx) })
	g.Go(func() error { return c.resend(ctx) })
	return g.Wait()
}

func (c *Channel) read(ctx context.Context, take func(*Message) (bool, error)) error {
	for {
		b, err := c.frames.readMessage(ctx)
		if err != nil {
			return err
		}
		m, err := Parse(b)
		if err != nil {
			return err
		}
		switch m.Type {
		case c.in:
			if err := c.takeStream(m, take); err != nil {
				return err
			}
		case Acknowledge:
			var a acknowledgement
			if err := json.Unmarshal(m.Payload, &a); err != nil {
				return fmt.Errorf("an acknowledgement: %w", err)
			}
			c.acknowledged(a.Sequence)
		case PausePublication, StartPublication:
			c.pause(m.Type == PausePublication)
		case ChannelClosed:
			if _, err := take(m); err != nil {
				return err
			}
		}
		// Messages of other types are a newer version's.
	}
}

// takeStream hands out a message that is next, and acknowledges it, or one that was before.
func (c *Channel) takeStream(m *Message, take func(*Message) (bool, error)) error {
	if m.Sequence > c.expected {
		return nil // one before it was not taken: that one comes first, again
	}
	if m.Sequence == c.expected {
		if ok, err := take(m); !ok || err != nil {
			return err
		}
		c.expected++
	}
	select {
	case c.acks <- acknowledgement{m.Type, m.ID.String(), m.Sequence, true}: // which does not hold its payload
	default:
	}
	return nil
}

// acknowledgement is the payload of a message of that type.
type acknowledgement struct {
	Type       string `json:"AcknowledgedMessageType"`
	ID         string `json:"AcknowledgedMessageId"`
	Sequence   int64  `json:"AcknowledgedMessageSequenceNumber"`
	Sequential bool   `json:"IsSequentialMessage"`
}

func (c *Channel) acknowledge(ctx context.Context) error {
	for {
		select {
		case a := <-c.acks:
			payload, err := json.Marshal(a)
			if err == nil {
				err = c.Announce(ctx, Acknowledge, payload)
			}
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// acknowledged forgets a message that the other end has taken.
func (c *Channel) acknowledged(sequence int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.waiting, func(s sent) bool { return s.sequence == sequence })
	if i < 0 {
		return
	}
	s := c.waiting[i]
	c.waiting = slices.Delete(c.waiting, i, i+1)
	if s.at.Equal(s.first) { // otherwise nobody knows which one it is for
		c.trip += (c.clock.Now().Sub(s.at) - c.trip) / 8
	} else if len(c.waiting) > 0 && c.waiting[0].at.Before(s.at) { // it was left out with the other one
		c.waiting[0].at = time.Time{}
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
	c.wake()
}

func (c *Channel) pause(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = yes
	c.wake()
}

// wake tells those who wait that something changed. c.mu is held.
func (c *Channel) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
	if c.blocked {
		c.blocked, c.full = false, make(chan struct{})
	}
}

// resend sends the oldest message again that was not acknowledged in time. The others follow once it is.
func (c *Channel) resend(ctx context.Context) error {
	for {
		select {
		case <-c.clock.After(minResend / 2):
		case <-c.kick:
		case <-ctx.Done():
			return ctx.Err()
		}
		if b := c.late(); b != nil {
			if err := c.frames.write(ctx, b); err != nil {
				return err
			}
		}
	}
}

func (c *Channel) late() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		return nil
	}
	oldest, now := &c.waiting[0], c.clock.Now()
	if now.Sub(oldest.at) < min(max(2*c.trip, minResend), maxResend) {
		return nil
	}
	oldest.at = now
	return oldest.text
}
