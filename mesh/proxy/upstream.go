package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxIdlePerEndpoint bounds the connections kept for one target.
const maxIdlePerEndpoint = 512

// maxIdleAge is how long a connection is kept for the next request; the target's own Keep-Alive header shortens it.
const maxIdleAge = 60 * time.Second

// upstream is one connection to a target. One request at a time uses it.
type upstream struct {
	*socket
	br        *bufio.Reader
	wb        []byte // the request head is built here
	reused    bool   // it has carried a request before
	idleSince time.Time
	keep      time.Duration // how long it may lie idle
	touched   atomic.Int64  // when touch last moved the deadline, in Unix nanoseconds; sender and receiver both touch

	response     response // to the request it carries
	chunks       chunkReader
	interruption interruption // closes it
}

func (e *endpoint) dial(ctx context.Context) (*upstream, error) {
	c, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	s, err := newSocket(c.(*net.TCPConn))
	if err != nil {
		c.Close()
		return nil, err
	}
	u := &upstream{socket: s, br: bufio.NewReaderSize(s, 8<<10), wb: make([]byte, 0, 2<<10), keep: maxIdleAge}
	u.interruption.act = func() { u.Close() }
	return u, nil
}

// touch moves the connection's deadline to idle from now or up to an eighth later, but only when that eighth has passed since it was
// moved last: a clock reading is cheaper than a timer.
func (u *upstream) touch(idle time.Duration) { u.touchAt(time.Now(), idle) }

func (u *upstream) touchAt(now time.Time, idle time.Duration) {
	if n := now.UnixNano(); n-u.touched.Load() > int64(idle/8) {
		u.touched.Store(n)
		u.SetDeadline(now.Add(idle + idle/8))
	}
}

// alive looks, without waiting, whether the target has closed the connection or sent something unasked.
func (u *upstream) alive() bool {
	if u.br.Buffered() > 0 {
		return false
	}
	return quiet(u.raw)
}

// connPool keeps idle connections, the newest on top: the oldest may then expire.
type connPool struct {
	mu     sync.Mutex
	idle   []*upstream
	closed bool
}

// get is an idle connection or nil. With verified it is known to be open a moment ago: what carries a request that
// cannot be repeated asks for that.
func (p *connPool) get(verified bool, now time.Time) *upstream {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		u := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if now.Sub(u.idleSince) < u.keep && (!verified || u.alive()) {
			return u
		}
		u.Close()
	}
}

// put keeps u for another request, unless the endpoint takes none any more.
func (p *connPool) put(u *upstream, now time.Time) {
	u.reused, u.idleSince = true, now
	u.response.header = u.response.header.forget()
	if cap(u.wb) > 16<<10 {
		u.wb = nil
	}
	var old *upstream
	p.mu.Lock()
	switch {
	case p.closed || len(p.idle) >= maxIdlePerEndpoint:
		old = u
	default:
		p.idle = append(p.idle, u)
		// The bottom of the stack is the oldest: one look a put keeps the pool from holding what a peak left.
		if o := p.idle[0]; u.idleSince.Sub(o.idleSince) > o.keep {
			old = o
			p.idle = append(p.idle[:0], p.idle[1:]...)
		}
	}
	p.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

func (p *connPool) open() {
	p.mu.Lock()
	p.closed = false
	p.mu.Unlock()
}

// close drops what is idle and keeps nothing more until open.
func (p *connPool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, u := range idle {
		u.Close()
	}
}

// copyBuffers are for bodies; most answers fit into the reader's own buffer.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copyTouching copies src to dst until EOF, calling touch before every read, so that both sides' deadlines follow the data. Failures
// of the destination, touch's included, are writeErrors.
func copyTouching(dst io.Writer, src io.Reader, touch func() error) (int64, error) {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	var n int64
	for {
		if err := touch(); err != nil {
			return n, writeError{err}
		}
		k, err := src.Read(buf[:])
		if k > 0 {
			m, werr := dst.Write(buf[:k])
			n += int64(m)
			if werr != nil {
				return n, writeError{werr}
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// writeError tells the destination's failures from the source's.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }
