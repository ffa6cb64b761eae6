package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxDrain is how much of a body that nobody wanted is read over to keep its connection.
	maxDrain = 256 << 10
	// maxLinger is how long a connection that ends with unread input is read over, lest the answer be lost to a reset.
	maxLinger = 500 * time.Millisecond
)

// conn is one connection of a client. Its goroutine runs one exchange after the other; only the sender of a request's body reads
// beside it, and only what is atomic is touched by others.
type conn struct {
	tcp   *socket
	front *front
	br    *bufio.Reader
	state atomic.Int32
	// waiting is what ends the wait for a target; nil: there is none.
	waiting atomic.Pointer[interruption]
	gone    atomic.Bool // the client has left

	readUntil, writeUntil time.Time // the deadlines that are set

	x    exchange
	in   requestBody
	keep bool // the client and we want another exchange on this connection
	over bool // hijacked or aborted

	out      []byte // of the answer, not yet written
	chunking bool   // the answer's body goes in chunks
	begun    bool   // something of the answer was written
	err      error  // of writing
}

const (
	stateIdle int32 = iota
	stateBusy
	stateClosed
)

// serveHTTP serves a connection to an HTTP listener's socket.
func (f *front) serveHTTP(accepted *net.TCPConn) {
	defer accepted.Close()
	tcp, err := newSocket(accepted)
	if err != nil {
		return
	}
	c := &conn{tcp: tcp, front: f, br: bufio.NewReaderSize(tcp, 4<<10)}
	if a, ok := tcp.RemoteAddr().(*net.TCPAddr); ok {
		c.x.r.client = a.AddrPort().Addr().Unmap().WithZone("")
	}
	defer f.open.add(c)()
	defer func() {
		if p := recover(); p != nil { // one request's trouble must not be every load balancer's
			f.proxy.log.Error("serve request", "panic", p, "stack", string(debug.Stack()))
			c.abort()
		}
	}()
	for c.await() && c.exchange() {
	}
}

// Close ends the connection whatever it does.
func (c *conn) Close() error {
	c.gone.Store(true)
	if i := c.waiting.Swap(nil); i != nil {
		i.act()
	}
	return c.tcp.Close()
}

// await returns true with a request's first byte. The order decides: we become idle, then look whether the front closes; a
// shutdown says that it closes, then looks who is idle.
func (c *conn) await() bool {
	idle := c.front.routes.Load().idle
	now := c.x.end // of the exchange before, a moment ago
	if now.IsZero() {
		now = time.Now()
	}
	// The deadline is for the whole head, and moved only when an eighth of it has passed: that costs more than a look at the clock.
	if left := c.readUntil.Sub(now); left < idle || left > idle+idle/8 {
		c.readUntil = now.Add(idle + idle/8)
		if c.tcp.SetReadDeadline(c.readUntil) != nil {
			return false
		}
	}
	if c.br.Buffered() > 0 {
		return !c.front.open.closing.Load()
	}
	c.state.Store(stateIdle)
	if c.front.open.closing.Load() {
		return false
	}
	_, err := c.br.Peek(1)
	return c.state.CompareAndSwap(stateIdle, stateBusy) && err == nil
}

// closeIdle closes the connection unless it has a request or one is about to be read.
func (c *conn) closeIdle() {
	if quiet(c.tcp.raw) && c.state.CompareAndSwap(stateIdle, stateClosed) {
		c.tcp.Close()
	}
}

// exchange reads one request and answers it; more says that there may be another.
func (c *conn) exchange() (more bool) {
	head, err := c.readHead()
	if head == "" && err == nil {
		return true
	}
	x := &c.x
	now := time.Now()
	*x = exchange{c: c, front: c.front, start: now, now: now, r: request{client: x.r.client, header: x.r.header}}
	c.keep = true
	if err == nil {
		err = x.r.parse(head)
	}
	if err != nil {
		c.refuse(err)
		return false
	}
	c.keep = !x.r.close
	c.in.reset(&x.r, c.br)
	x.run()
	x.r = request{client: x.r.client, header: x.r.header.forget()} // an idle connection keeps no text
	return c.settle()
}

// readHead reads a request's head or, as old clients send it after a body, an empty line: then the head is empty.
func (c *conn) readHead() (string, error) {
	switch b, err := c.br.Peek(1); {
	case err != nil:
		return "", err
	case tokenByte[b[0]]:
		return readHead(c.br, maxRequestHead)
	case b[0] == '\r':
		if b, err = c.br.Peek(2); err != nil {
			return "", err
		} else if b[1] == '\n' {
			c.br.Discard(2)
			return "", nil
		}
	}
	return "", refuse(http.StatusBadRequest, "does not begin with a method")
}

// refuse answers what is no request, if there is somebody to answer.
func (c *conn) refuse(err error) {
	c.keep = false
	var r *refusal
	switch {
	case errors.As(err, &r):
		c.x.fail(r.status)
	case errors.Is(err, errLineLimit):
		c.x.fail(http.StatusRequestURITooLong)
	case errors.Is(err, errHeadLimit), errors.Is(err, errBareLF):
		c.x.fail(http.StatusBadRequest)
	case isTimeout(err):
		c.x.fail(http.StatusRequestTimeout)
	default:
		return // the client has left
	}
	c.linger()
}

// settle ends an exchange: what is left of the request's body is read over, or the connection ends.
func (c *conn) settle() (more bool) {
	switch {
	case c.over:
		return false
	case !c.keep || c.err != nil:
		if c.err == nil && (!c.in.done.Load() || c.br.Buffered() > 0 || !quiet(c.tcp.raw)) {
			c.linger()
		}
		return false
	case c.in.done.Load():
		return true
	}
	c.readUntil = time.Now().Add(c.front.routes.Load().idle)
	c.tcp.SetReadDeadline(c.readUntil)
	_, err := io.Copy(io.Discard, &c.in)
	return err == nil
}

// linger ends our direction and reads over the client's for a moment.
func (c *conn) linger() {
	if c.tcp.CloseWrite() != nil {
		return
	}
	c.tcp.SetReadDeadline(time.Now().Add(maxLinger))
	io.CopyN(io.Discard, c.tcp, maxDrain)
}

// quiet looks, without waiting, whether the peer has neither ended its direction nor sent anything.
func quiet(raw syscall.RawConn) bool {
	ok := false
	var b [1]byte
	err := raw.Control(func(fd uintptr) {
		_, _, e := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		ok = e == syscall.EAGAIN
	})
	return err == nil && ok
}

func (c *conn) waits() bool { return c.waiting.Load() != nil }

// sweep interrupts the wait for a target when the client has left. Bytes of a next request mean that it has not.
func (c *conn) sweep() {
	i := c.waiting.Load()
	if i == nil || !ended(c.tcp.raw) {
		return
	}
	c.gone.Store(true)
	if c.waiting.CompareAndSwap(i, nil) {
		i.act()
	}
}

// ended looks, without waiting, whether the peer has ended its direction or the connection is broken, whatever is still unread.
func ended(raw syscall.RawConn) bool {
	over := false
	err := raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		_, err := unix.Poll(p, 0)
		over = err == nil && p[0].Revents != 0
	})
	return err != nil || over
}
