package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxTries bounds how many targets a request is offered to.
const maxTries = 3

// forward carries the request to a target of the group that the action chooses.
func (x *exchange) forward(a action) {
	g := x.chooseGroup(a)
	if g == nil {
		x.fail(http.StatusServiceUnavailable)
		return
	}
	x.r.dropNominated()
	var room [maxTries]*endpoint
	tried := room[:0]
	var last error
	for len(tried) < maxTries {
		e := x.chooseEndpoint(g, tried)
		if e == nil {
			break
		}
		tried = append(tried, e)
		again, err := x.try(e)
		if !again {
			return
		}
		g.stats.connectErrors.Add(1)
		last = err
	}
	var timeout net.Error
	switch {
	case last == nil:
		x.fail(http.StatusServiceUnavailable)
	case x.c.left(): // while we connected
		x.clientLeft()
	case errors.As(last, &timeout) && timeout.Timeout():
		x.fail(http.StatusGatewayTimeout)
	default:
		x.fail(http.StatusBadGateway)
	}
}

// try offers the request to e. again says that nothing of it was sent, so another target may have it.
func (x *exchange) try(e *endpoint) (again bool, err error) {
	defer e.leave()
	if t := e.group.table.Load(); t.http2 && x.r.upgrade == "" {
		return x.tryHTTP2(e)
	}
	repeatable := x.r.length == 0 && idempotent(x.r.method)
	for {
		u := e.pool.get(!repeatable, x.now)
		if u == nil {
			if u, err = x.dial(e); err != nil {
				return true, err
			}
		}
		// A client that leaves ends the request at the target.
		x.c.watch(&u.interruption)
		done, stale := x.carry(e, u, repeatable && u.reused)
		if !x.c.unwatch() || !done {
			u.Close()
		} else {
			e.pool.put(u, x.now)
		}
		if !stale {
			return false, nil
		}
		// The target closed an idle connection under us: the next one, at last a new one.
	}
}

// dial connects to e for as long as the client waits.
func (x *exchange) dial(e *endpoint) (*upstream, error) {
	ctx, cancel := context.WithCancel(x.front.proxy.base)
	defer cancel()
	x.c.watch(&interruption{cancel})
	defer x.c.unwatch()
	u, err := e.dial(ctx)
	x.now = time.Now()
	return u, err
}

func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// carry runs the exchange over u. done says that u may carry another. With mayBeStale it answers stale, and nothing else has happened,
// when the target had closed u before it answered a byte.
func (x *exchange) carry(e *endpoint, u *upstream, mayBeStale bool) (done, stale bool) {
	u.touchAt(x.now, x.idle)
	var body *bodySender
	whole := x.c.wholeBody()
	err := x.writeHead(u, whole)
	if err == nil && x.r.length != 0 && whole == nil {
		body = x.sendBody(u)
	}
	if err == nil {
		err = x.readResponse(u)
	}
	res := &u.response
	if err != nil {
		u.Close()
		body.abort(x.c)
		if mayBeStale && !isTimeout(err) && !errors.Is(err, errMalformed) && !errors.As(err, new(writeError)) && !x.c.left() {
			return false, true
		}
		x.upstreamFailed(e, err, body)
		return false, false
	}
	x.status = res.status
	x.now = time.Now()
	e.group.stats.observe(res.status, x.now.Sub(x.start))
	if res.status == http.StatusSwitchingProtocols {
		if x.c.unwatch() { // from now on the tunnel sees who ends
			x.tunnel(u)
		}
		return false, false
	}
	early := !body.settle()
	err = x.passOn(e, u, early)
	if err != nil || !body.finished() {
		u.Close() // broken, or answered without reading all: it cannot be used again
		body.abort(x.c)
	}
	if err != nil {
		x.c.abort() // the client must see that the answer is cut short
		return false, false
	}
	if !res.keep || !body.finished() || body.failed() || u.br.Buffered() > 0 {
		return false, false
	}
	u.keep = maxIdleAge
	if res.keepFor > 0 {
		u.keep = min(maxIdleAge, res.keepFor-min(time.Second, res.keepFor/2))
	}
	return true, false
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// clientLeft ends an exchange that nobody waits for.
func (x *exchange) clientLeft() {
	x.status = 460 // Elastic Load Balancing's word in its logs
	x.c.abort()
}

func (x *exchange) upstreamFailed(e *endpoint, err error, body *bodySender) {
	switch {
	case x.c.left(), errors.As(err, new(writeError)):
		x.clientLeft()
		return
	case body != nil && body.clientFault:
		status := http.StatusBadRequest
		if isTimeout(body.err) {
			status = http.StatusRequestTimeout
		}
		x.fail(status)
		return
	}
	e.group.stats.failed.Add(1)
	x.front.proxy.log.Debug("target failed", "target_group", e.group.arn, "target", e.id, "error", err)
	if isTimeout(err) {
		x.fail(http.StatusGatewayTimeout)
		return
	}
	x.fail(http.StatusBadGateway)
}

// readResponse reads the final head; interim ones other than 101 are dropped but 103, which is passed on.
func (x *exchange) readResponse(u *upstream) error {
	res := &u.response
	for i := range 16 {
		if i > 0 {
			u.touch(x.idle)
		}
		head, err := readHead(u.br, maxResponseHead)
		if errors.Is(err, errHeadEnd) || errors.Is(err, errHeadLimit) || errors.Is(err, errLineLimit) || errors.Is(err, errBareLF) {
			err = malformed("%w", err)
		}
		if err != nil && i > 0 { // it has answered: the connection was not stale
			err = malformed("ends after an interim response: %w", err)
		}
		if err != nil {
			return err
		}
		if err := res.parse(head, x.r.method); err != nil {
			return err
		}
		if res.status >= 200 {
			return nil
		}
		if res.status == http.StatusSwitchingProtocols {
			if x.r.upgrade == "" {
				return malformed("switches protocols unasked")
			}
			return nil
		}
		if res.status == http.StatusEarlyHints && x.r.minor > 0 {
			links := res.header.without(func(f *field) bool { return !strings.EqualFold(f.name, "Link") })
			if err := x.c.hint(res.status, links); err != nil {
				return writeError{err}
			}
		}
	}
	return malformed("too many interim responses")
}

// passOn gives the client the answer; with an error it was cut short.
func (x *exchange) passOn(e *endpoint, u *upstream, early bool) error {
	res := &u.response
	res.header = x.sticky.appendCookies(res.header, e)
	if err := x.c.answer(res.status, res.header, res.framing, early); err != nil {
		return err
	}
	var trailer header
	var err error
	switch res.framing {
	case bodyLength:
		err = x.passLength(u, res.length)
	case bodyChunked:
		u.chunks = chunkReader{br: u.br}
		if err = x.passBody(u, &u.chunks); err == nil {
			trailer, err = readTrailer(u.br)
		}
	case bodyUntilClose:
		err = x.passBody(u, u.br)
	}
	if err != nil {
		return err
	}
	return x.c.finish(trailer)
}

// passLength writes what is already here in one piece.
func (x *exchange) passLength(u *upstream, left int64) error {
	if n := min(left, int64(u.br.Buffered())); n > 0 {
		b, _ := u.br.Peek(int(n))
		if _, err := x.c.Write(b); err != nil {
			return err
		}
		u.br.Discard(int(n))
		left -= n
	}
	if left == 0 {
		return nil
	}
	body := io.LimitedReader{R: u.br, N: left}
	if err := x.passBody(u, &body); err != nil {
		return err
	}
	if body.N > 0 {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// passBody copies. What was written for the client goes out when a read of the target's bytes would wait: nothing is held back, and
// what comes together is written together.
func (x *exchange) passBody(u *upstream, body io.Reader) error {
	u.beforeWait = x.c
	defer func() { u.beforeWait = nil }()
	_, err := copyTouching(x.c, body, func() error {
		u.touch(x.idle)
		return nil
	})
	x.now = time.Now()
	return err
}

// writeHead sends the request line and the header, and the body if there is one at hand: its fields are well-formed, and so is what is
// written.
func (x *exchange) writeHead(u *upstream, body []byte) error {
	u.wb = append(x.appendHead(u.wb[:0]), body...)
	_, err := u.Write(u.wb)
	return err
}

func (x *exchange) appendHead(b []byte) []byte {
	r := &x.r
	b = append(b, r.method...)
	b = append(b, ' ')
	b = append(b, r.target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = x.listener.appendHost(b, r.givenHost)
	b = append(b, "\r\n"...)
	for i := range r.header {
		if f := &r.header[i]; !f.kind.ofRequest() || (f.kind == fieldTrailer && r.length < 0) {
			b = appendField(b, f.name, f.value)
		}
	}
	b = x.appendForwarded(b)
	switch {
	case r.upgrade != "":
		b = appendField(append(b, "Connection: Upgrade\r\n"...), "Upgrade", r.upgrade)
	case r.length > 0:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), r.length, 10), "\r\n"...)
	case r.length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case r.method == http.MethodPost || r.method == http.MethodPut || r.method == http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	return append(b, "\r\n"...)
}

// appendForwarded adds the fields a load balancer adds.
func (x *exchange) appendForwarded(b []byte) []byte {
	trace := ""
	b = append(b, "X-Forwarded-For: "...)
	for i := range x.r.header {
		switch f := &x.r.header[i]; f.kind {
		case fieldForwardedFor:
			b = append(append(b, f.value...), ", "...)
		case fieldTraceID:
			trace = f.value
		}
	}
	b = x.r.client.AppendTo(b)
	b = append(b, "\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: "...)
	b = append(b, x.front.port...)
	b = append(b, "\r\nX-Amzn-Trace-Id: "...)
	b = appendTrace(b, trace, x.start)
	return append(b, "\r\n"...)
}
