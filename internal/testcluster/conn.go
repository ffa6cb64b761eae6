package testcluster

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const sendBuffer = 4 << 20 // bytes under way in one direction before a writer waits

// conn is one end of a connection.
type conn struct {
	network       *Network
	local, remote string
	in, out       *half
	peer          *conn
	once          sync.Once
}

// half is one direction of a connection.
type half struct {
	link *link

	mu     sync.Mutex
	chunks []chunk
	size   int
	ended  bool          // nothing more is written
	broken bool          // nothing more is read either
	change chan struct{} // closed by the next change of the above

	read, write deadline
}

type chunk struct {
	bytes []byte
	at    time.Time // of arrival
}

func newHalf(l *link) *half {
	h := &half{link: l, change: make(chan struct{})}
	h.read.init()
	h.write.init()
	return h
}

// changed is for the holder of mu.
func (h *half) changed() {
	close(h.change)
	h.change = make(chan struct{})
}

func (c *conn) Read(p []byte) (int, error) {
	h := c.in
	for {
		var arrival <-chan time.Time
		cut, _, _, link := h.link.get()
		h.mu.Lock()
		switch {
		case h.broken:
			h.mu.Unlock()
			return 0, net.ErrClosed
		case h.read.passed():
			h.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case cut:
		case len(h.chunks) > 0:
			wait := time.Until(h.chunks[0].at)
			if wait <= 0 {
				n := copy(p, h.chunks[0].bytes)
				if h.chunks[0].bytes = h.chunks[0].bytes[n:]; len(h.chunks[0].bytes) == 0 {
					h.chunks = h.chunks[1:]
				}
				h.size -= n
				h.changed()
				h.mu.Unlock()
				return n, nil
			}
			arrival = time.After(wait)
		case h.ended:
			h.mu.Unlock()
			return 0, io.EOF
		}
		change := h.change
		h.mu.Unlock()
		select {
		case <-change:
		case <-link:
		case <-arrival:
		case <-h.read.wait():
		}
	}
}

func (c *conn) Write(p []byte) (int, error) {
	h := c.out
	_, delay, loss, _ := h.link.get()
	if loss > 0 && c.network.roll(loss) {
		c.Close()
		return 0, net.ErrClosed
	}
	for {
		h.mu.Lock()
		switch {
		case h.ended || h.broken:
			h.mu.Unlock()
			return 0, net.ErrClosed
		case h.write.passed():
			h.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case h.size < sendBuffer:
			h.chunks = append(h.chunks, chunk{append([]byte(nil), p...), time.Now().Add(delay)})
			h.size += len(p)
			h.changed()
			h.mu.Unlock()
			return len(p), nil
		}
		change := h.change
		h.mu.Unlock()
		select {
		case <-change:
		case <-h.write.wait():
		}
	}
}

// Close ends both directions at this end. The other end still reads what was written, and then the end of it.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.out.mu.Lock()
		c.out.ended = true
		c.out.changed()
		c.out.mu.Unlock()
		c.in.mu.Lock()
		c.in.ended, c.in.broken = true, true
		c.in.changed()
		c.in.mu.Unlock()
		c.network.mu.Lock()
		defer c.network.mu.Unlock()
		delete(c.network.conns, c)
	})
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return addr(c.local) }
func (c *conn) RemoteAddr() net.Addr { return addr(c.remote) }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.read.set(t)
	c.out.write.set(t)
	return nil
}
func (c *conn) SetReadDeadline(t time.Time) error  { c.in.read.set(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.out.write.set(t); return nil }

// deadline is one that can be moved while others wait for it.
type deadline struct {
	mu    sync.Mutex
	at    time.Time
	timer *time.Timer
	done  chan struct{} // closed when at has come, or is moved
}

func (d *deadline) init() { d.done = make(chan struct{}) }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	d.wake()
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.wake()
		})
	}
}

func (d *deadline) wake() {
	close(d.done)
	d.done = make(chan struct{})
}

func (d *deadline) passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.at.IsZero() && !time.Now().Before(d.at)
}

// wait must be called before passed is asked again: what it returns is closed by any change since.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.at.IsZero() && !time.Now().Before(d.at) {
		return closedChan
	}
	return d.done
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()
