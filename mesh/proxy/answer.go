package proxy

import (
	"bufio"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// maxBuffered is how much of an answer is put together before it is written.
const maxBuffered = 16 << 10

// requestBody reads the body that follows a request's head.
type requestBody struct {
	br      *bufio.Reader
	left    int64 // of a body with a length
	chunked bool
	chunks  chunkReader
	trailer header
	expects bool        // the client waits for 100
	begun   bool        // somebody reads
	done    atomic.Bool // nothing of it is left on the connection
}

func (b *requestBody) reset(r *request, br *bufio.Reader) {
	b.br, b.left, b.chunked, b.trailer, b.expects, b.begun = br, r.length, r.length < 0, nil, r.expects, false
	b.done.Store(r.length == 0)
	if b.chunked {
		b.chunks = chunkReader{br: br}
	}
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.done.Load() {
		return 0, io.EOF
	}
	if b.chunked {
		n, err := b.chunks.Read(p)
		if err == io.EOF {
			if b.trailer, err = readTrailer(b.br); err == nil {
				b.done.Store(true)
				err = io.EOF
			}
		}
		return n, err
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.br.Read(p)
	if b.left -= int64(n); b.left == 0 {
		b.done.Store(true)
	}
	return n, unexpected(err)
}

// What follows makes conn the client of an exchange.

func (c *conn) watch(i *interruption) {
	c.waiting.Store(i)
	if c.gone.Load() { // Close came before
		i.act()
	}
}

func (c *conn) unwatch() bool { return c.waiting.Swap(nil) != nil }

func (c *conn) left() bool { return c.gone.Load() }

func (c *conn) wholeBody() []byte {
	n := int(min(c.x.r.length, maxBuffered))
	if n <= 0 || int64(n) != c.x.r.length || c.in.begun || c.br.Buffered() < n {
		return nil
	}
	b, _ := c.br.Peek(n)
	c.br.Discard(n) // b holds until the next read, which is after the request was written
	c.in.done.Store(true)
	return b
}

func (c *conn) body() io.Reader {
	c.in.begun = true
	c.readUntil = time.Time{} // the deadline is the body's now
	if c.in.expects && !c.in.done.Load() {
		c.in.expects = false
		c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
	return &c.in
}

func (c *conn) trailer() header { return c.in.trailer }

func (c *conn) SetReadDeadline(t time.Time) error { return c.tcp.SetReadDeadline(t) }

func (c *conn) hint(status int, h header) error {
	c.out = appendStatus(c.out, status)
	for i := range h {
		c.out = appendField(c.out, h[i].name, h[i].value)
	}
	c.out = append(c.out, "\r\n"...)
	return c.Flush()
}

// keeps says whether the connection goes on after the answer that now begins: what is left of the request's body must be
// little and on its way.
func (c *conn) keeps() bool {
	if !c.keep || c.front.open.closing.Load() {
		return false
	}
	return c.in.done.Load() || (!c.in.begun && !c.in.expects && !c.in.chunked && c.in.left <= maxDrain)
}

func (c *conn) answer(status int, h header, f framing, last bool) error {
	http10 := c.x.r.minor == 0
	unknown := f == bodyChunked || f == bodyUntilClose
	c.keep = c.keeps() && !last && !(unknown && http10)
	c.chunking, c.begun = unknown && !http10, false
	b := appendStatus(c.out, status)
	dated := false
	for i := range h {
		dated = dated || h[i].kind == fieldDate
		b = appendField(b, h[i].name, h[i].value)
	}
	if !dated {
		b = append(append(append(b, "Date: "...), c.front.dates.at(c.x.start)...), "\r\n"...)
	}
	switch {
	case !c.keep:
		b = append(b, "Connection: close\r\n"...)
	case http10:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	if c.chunking {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	c.out = append(b, "\r\n"...)
	return nil
}

func appendStatus(b []byte, status int) []byte {
	b = strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(status), 10)
	return append(append(append(b, ' '), http.StatusText(status)...), "\r\n"...)
}

func (c *conn) Write(b []byte) (int, error) {
	switch {
	case len(b) == 0 || c.err != nil:
		return 0, c.err
	case len(c.out)+len(b) > maxBuffered:
		c.writing()
		if c.chunking {
			_, c.err = c.tcp.writeChunk(c.out, b)
		} else {
			_, c.err = c.tcp.writeAll(c.out, b, nil)
		}
		c.out = c.out[:0]
	case c.chunking:
		c.out = appendChunk(c.out, b)
	default:
		c.out = append(c.out, b...)
	}
	return len(b), c.err
}

// writeChunk writes what is before and then b as one chunk.
func (s *socket) writeChunk(before, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil // an empty chunk would end the body
	}
	line := append(strconv.AppendInt(before, int64(len(b)), 16), "\r\n"...)
	if _, err := s.writeAll(line, b, chunkEnd); err != nil {
		return 0, err
	}
	return len(b), nil
}

var chunkEnd = []byte("\r\n")

func (c *conn) Flush() error {
	if len(c.out) > 0 && c.err == nil {
		c.write(c.out)
		c.out = c.out[:0]
	}
	return c.err
}

func (c *conn) finish(trailer header) error {
	if c.chunking {
		c.out, c.chunking = appendLastChunk(c.out, trailer), false
	}
	err := c.Flush()
	if cap(c.out) > 2*maxBuffered {
		c.out = nil
	}
	return err
}

// abort resets the connection: its plain end would pass for the end of an answer without a length.
func (c *conn) abort() {
	c.over = true
	c.tcp.SetLinger(0)
	c.tcp.Close()
}

func (c *conn) hijack() (duplex, *bufio.Reader, error) {
	c.over = true
	return hijacked{c}, c.br, c.tcp.SetReadDeadline(time.Time{})
}

// write sends b at once. A client that does not read must not hold a request, and with it a target's drain, for ever.
func (c *conn) write(b []byte) {
	if c.err == nil {
		c.writing()
		_, c.err = c.tcp.Write(b)
	}
}

// writing moves the deadline of writes as await does that of reads.
func (c *conn) writing() {
	now := c.x.now // a moment ago, when the answer begins
	if c.begun {
		now = time.Now()
	}
	c.begun = true
	idle := c.front.routes.Load().idle
	if left := c.writeUntil.Sub(now); left < idle || left > idle+idle/8 {
		c.writeUntil = now.Add(idle + idle/8)
		c.tcp.SetWriteDeadline(c.writeUntil)
	}
}

// hijacked is a connection in the hands of a tunnel.
type hijacked struct{ c *conn }

func (h hijacked) Write(b []byte) (int, error) {
	h.c.write(b)
	return len(b), h.c.err
}

func (h hijacked) CloseWrite() error { return h.c.tcp.CloseWrite() }
func (h hijacked) Close() error      { return h.c.tcp.Close() }

// dates keeps the Date of the current second.
type dates struct{ last atomic.Pointer[date] }

type date struct {
	second int64
	text   string
}

func (d *dates) at(t time.Time) string {
	second := t.Unix()
	if l := d.last.Load(); l != nil && l.second == second {
		return l.text
	}
	l := &date{second, t.UTC().Format(http.TimeFormat)}
	d.last.Store(l)
	return l.text
}
