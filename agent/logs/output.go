package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Dial makes the connections of drivers that send, from the host's network.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// line is one line, or a part of a long one. Its text is valid during a call.
type line struct {
	at     time.Time
	stderr bool
	text   []byte
	goesOn bool  // the line does
	part   *part // of a long line; nil: it is whole
}

// part says which one of a long line's.
type part struct {
	id      string
	ordinal int
}

// sink is a driver that sends lines away.
type sink interface {
	// send returns once the other side has the line, or with the reason why it is lost. It ends with ctx.
	send(ctx context.Context, l line) error
	// close is called once, when nothing is sent any more.
	close()
}

// batcher is a sink that sends many lines at once rather than each: so many.
type batcher interface {
	sink
	most() int
	// sendAll is send of lines: all of them are lost, or none.
	sendAll(ctx context.Context, lines []line) error
}

// Output is where the output of one run of a container goes: to the log on this host, and to the driver's own place.
//
// In mode blocking a line is with both before the next is read, so that a driver that is slow, or whose other side is gone, holds up who
// writes; what waits in between is a pipe, and a buffer of two lines. In mode non-blocking lines wait for the driver in a queue, and what finds it full is dropped,
// counted, and said in the log on this host.
type Output struct {
	Writer
	driver string
	sink   sink   // nil: there is only the log on this host
	queue  *queue // nil: mode blocking
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when the queue has ended

	turn    sync.Mutex // of who sends, in mode blocking
	lost    atomic.Int64
	told    atomic.Int64 // of lost
	toldAt  atomic.Int64
	lastErr atomic.Pointer[string]
}

const (
	tellEvery  = 10 * time.Second
	queueGrace = 5 * time.Second // for what waits, when the container has ended
	lineCost   = 64              // of a line in a queue, beside its text
)

// Start opens the log on this host and what the driver needs. Its error is for who wrote the options.
func Start(c Config, dial Dial) (*Output, error) {
	o, err := c.read()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	out := &Output{driver: c.Driver, ctx: ctx, cancel: cancel, done: make(chan struct{})}
	out.Writer.ended = make(chan struct{})
	if c.Driver != DriverNone {
		size, older := c.layout(o)
		if err := out.Writer.open(c.Path, size, older); err != nil {
			cancel()
			return nil, fmt.Errorf("open log: %w", err)
		}
	}
	switch c.Driver {
	case DriverJSONFile:
		out.attrs = jsonAttributes(c.Attrs)
		out.json = true
	case DriverAWSLogs:
		out.shipping, out.waits = true, !o.queued
		o.queued = false // the file is the queue
	case DriverFluentd:
		out.sink, err = newFluentd(ctx, c, o, dial)
		if o.async && !o.queued {
			o.queued = true
		}
	case DriverSyslog:
		out.sink, err = newSyslog(ctx, c, o, dial)
	case DriverGELF:
		out.sink, err = newGelf(ctx, c, o, dial)
	case DriverSplunk:
		out.sink, err = newSplunk(ctx, c, o, dial)
	case DriverJournald:
		out.sink, err = newJournald(ctx, c, dial)
	}
	if err != nil {
		cancel()
		out.Writer.Close()
		return nil, fmt.Errorf("failed to initialize logging driver: %w", err)
	}
	if o.queued && (out.sink != nil || c.Driver == DriverJSONFile) {
		out.queue = newQueue(o.buffer)
		go out.work()
	} else {
		close(out.done)
	}
	return out, nil
}

// Copy takes what r yields, line by line, until it ends. Lines carry the time at which they were read, or one a little later.
func (o *Output) Copy(r io.Reader, stderr bool) {
	if o.sink == nil && o.queue == nil {
		o.Writer.Copy(r, stderr)
		return
	}
	buf := make([]byte, 0, 2*MaxLine)
	var records bytes.Buffer
	var lines []line
	var long *part
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		rest := buf
		o.mu.Lock()
		lines = lines[:0]
		for {
			var l line
			if l.text, rest, l.goesOn = cutLine(rest, err != nil); l.text == nil {
				break
			}
			l.at, l.stderr = o.tick(), stderr
			if l.goesOn && long == nil {
				long = &part{id: fmt.Sprintf("%016x", l.at.UnixNano())}
			}
			if long != nil {
				long.ordinal++
				p := *long
				l.part = &p
				if !l.goesOn {
					long = nil
				}
			}
			if o.sink != nil {
				o.record(&records, l.at, stderr, l.text, l.goesOn)
			}
			if o.queue == nil {
				lines = append(lines, l)
			} else if !o.queue.add(l) {
				o.lost.Add(1)
			}
		}
		o.write(records.Bytes())
		o.mu.Unlock()
		records.Reset()
		for rest := lines; len(rest) > 0; {
			n := min(o.batch(), len(rest))
			o.turn.Lock()
			o.deliver(rest[:n])
			o.turn.Unlock()
			rest = rest[n:]
		}
		o.tell(false)
		buf = buf[:copy(buf, rest)]
		if err != nil {
			return
		}
	}
}

// batch is how many lines the driver is handed at once, at most.
func (o *Output) batch() int {
	if b, ok := o.sink.(batcher); ok {
		return b.most()
	}
	return 1
}

// deliver hands lines, no more than a batch, to the driver and counts them if they are lost.
func (o *Output) deliver(lines []line) {
	if o.sink == nil { // json-file
		l := lines[0]
		var b bytes.Buffer
		o.mu.Lock()
		o.record(&b, l.at, l.stderr, l.text, l.goesOn)
		o.write(b.Bytes())
		o.mu.Unlock()
		return
	}
	var err error
	if b, ok := o.sink.(batcher); ok {
		err = b.sendAll(o.ctx, lines)
	} else {
		err = o.sink.send(o.ctx, lines[0])
	}
	if err != nil {
		text := err.Error()
		o.lastErr.Store(&text)
		o.lost.Add(int64(len(lines)))
	}
}

// work delivers what waits: the next batch is what has come while the one before was on its way.
func (o *Output) work() {
	defer close(o.done)
	for {
		lines := o.queue.next(o.batch())
		if len(lines) == 0 {
			return
		}
		o.deliver(lines)
	}
}

// tell writes into the log on this host how many lines were lost, now and then, or what is not said yet.
func (o *Output) tell(last bool) {
	n, now := o.lost.Load(), time.Now().UnixNano()
	if n == o.told.Load() || !last && now-o.toldAt.Load() < int64(tellEvery) {
		return
	}
	o.toldAt.Store(now)
	more := n - o.told.Swap(n)
	if more <= 0 {
		return
	}
	why := "the buffer was full"
	if e := o.lastErr.Load(); e != nil {
		why = *e
	}
	var b bytes.Buffer
	o.mu.Lock()
	defer o.mu.Unlock()
	o.record(&b, o.tick(), true, fmt.Appendf(nil, "neargate: log driver %s lost %d lines: %s", o.driver, more, why), false)
	o.write(b.Bytes())
}

// GiveUp ends the driver's tries to send.
func (o *Output) GiveUp() { o.cancel() }

// Close ends the output: nobody waits for a driver any more, but for what is in its queue, and that not for long.
func (o *Output) Close() error {
	o.Ended()
	if o.queue != nil {
		o.queue.close()
		select {
		case <-o.done:
		case <-time.After(queueGrace):
		}
	}
	o.cancel()
	<-o.done
	o.turn.Lock() // who sends has been told
	if o.sink != nil {
		o.sink.close()
	}
	o.turn.Unlock()
	o.tell(true)
	return o.Writer.Close()
}

// queue is a bounded row of lines.
type queue struct {
	mu     sync.Mutex
	lines  []line
	bytes  int64
	limit  int64
	closed bool
	more   chan struct{} // holds a token when there may be more
}

func newQueue(limit int64) *queue { return &queue{limit: limit, more: make(chan struct{}, 1)} }

// add says whether there was room. A line that is longer than all of it is taken when it is alone.
func (q *queue) add(l line) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := int64(len(l.text) + lineCost)
	if q.closed || q.bytes > 0 && q.bytes+n > q.limit {
		return false
	}
	l.text = bytes.Clone(l.text)
	q.lines, q.bytes = append(q.lines, l), q.bytes+n
	q.wake()
	return true
}

func (q *queue) wake() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// next waits for lines, and takes so many at most; none: there will be no more.
func (q *queue) next(most int) []line {
	for {
		q.mu.Lock()
		if n := min(most, len(q.lines)); n > 0 {
			taken := slices.Clone(q.lines[:n])
			clear(q.lines[:n])
			q.lines = q.lines[n:]
			for _, l := range taken {
				q.bytes -= int64(len(l.text) + lineCost)
			}
			if len(q.lines) == 0 {
				q.lines = nil // what a burst took goes
			}
			q.mu.Unlock()
			return taken
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return nil
		}
		<-q.more
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}
