package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
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
	x.r.upgrade = upgradeOf(x.r.Request)
	dropNominated(x.r.Header)
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
	case x.r.Context().Err() != nil: // the client left while we connected
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
	hasBody := x.r.ContentLength != 0
	repeatable := !hasBody && idempotent(x.r.Method)
	for {
		u := e.pool.get(!repeatable)
		if u == nil {
			if u, err = e.dial(x.r.Context()); err != nil {
				return true, err
			}
		}
		stale := x.carry(e, u, repeatable && u.reused)
		if !stale {
			return false, nil
		}
		// The target closed an idle connection under us: the next one, at last a new one.
	}
}

func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// carry runs the exchange over u and gives u back to the pool or closes it. With mayBeStale it answers true, and nothing
// else has happened, when the target had closed u before it answered a byte.
func (x *exchange) carry(e *endpoint, u *upstream, mayBeStale bool) (stale bool) {
	// A client that leaves ends the request at the target.
	stop := context.AfterFunc(x.r.Context(), func() { u.Close() })
	defer stop()
	u.touch(x.idle)
	var body *bodySender
	err := x.writeHead(u)
	if err == nil && x.r.ContentLength != 0 {
		body = x.sendBody(u)
	}
	var res *response
	if err == nil {
		res, err = x.readResponse(u)
	}
	if err != nil {
		u.Close()
		body.abort(x.w)
		if mayBeStale && !isTimeout(err) && !errors.Is(err, errMalformed) && x.r.Context().Err() == nil {
			return true
		}
		x.upstreamFailed(e, err, body)
		return false
	}
	x.status = res.status
	e.group.stats.observe(res.status, time.Since(x.start))
	if res.status == http.StatusSwitchingProtocols {
		x.tunnel(e, u, res)
		return false
	}
	early := !body.settle()
	err = x.passOn(e, u, res, early)
	if err != nil || !body.finished() {
		u.Close() // broken, or answered without reading all: it cannot be used again
		body.abort(x.w)
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the client must see that the answer is cut short
	}
	if !res.keep || !body.finished() || body.failed() || u.br.Buffered() > 0 || !stop() {
		u.Close()
		return false
	}
	u.keep = maxIdleAge
	if res.keepFor > 0 {
		u.keep = min(maxIdleAge, res.keepFor-min(time.Second, res.keepFor/2))
	}
	e.pool.put(u)
	return false
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func (x *exchange) upstreamFailed(e *endpoint, err error, body *bodySender) {
	switch {
	case x.r.Context().Err() != nil:
		x.status = 460 // Elastic Load Balancing's word in its logs for a client that left
		panic(http.ErrAbortHandler)
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
func (x *exchange) readResponse(u *upstream) (*response, error) {
	for range 16 {
		u.touch(x.idle)
		head, err := readHead(u.br)
		if err != nil {
			return nil, err
		}
		res, err := parseHead(head, x.r.Method)
		if err != nil {
			return nil, err
		}
		if res.status >= 200 {
			return res, nil
		}
		if res.status == http.StatusSwitchingProtocols {
			if x.r.upgrade == "" {
				return nil, malformed("switches protocols unasked")
			}
			return res, nil
		}
		if res.status == http.StatusEarlyHints && x.r.ProtoAtLeast(1, 1) {
			h := x.w.Header()
			h["Link"] = res.header["Link"]
			x.w.WriteHeader(http.StatusEarlyHints)
			delete(h, "Link")
		}
	}
	return nil, malformed("too many interim responses")
}

// passOn gives the client the answer; with an error it was cut short.
func (x *exchange) passOn(e *endpoint, u *upstream, res *response, early bool) error {
	h := x.w.Header()
	for k, v := range res.header {
		h[k] = v
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // net/http must not guess one
	}
	if early {
		h["Connection"] = []string{"close"}
	}
	x.sticky.setCookies(h, e)
	x.w.WriteHeader(res.status)
	if res.framing == bodyNone {
		return nil
	}
	return x.copyBody(u, res)
}

func (x *exchange) copyBody(u *upstream, res *response) error {
	if u.br.Buffered() == 0 { // the body may be long in coming
		if err := http.NewResponseController(x.w).Flush(); err != nil {
			return err
		}
	}
	switch res.framing {
	case bodyLength:
		return x.copyLength(u, res.length)
	case bodyChunked:
		_, err := copyTouching(x.flushing(u), httputil.NewChunkedReader(u.br), func() { u.touch(x.idle) })
		if err != nil {
			return err
		}
		trailers, err := readTrailers(u.br)
		for k, v := range trailers {
			x.w.Header()[http.TrailerPrefix+k] = v
		}
		return err
	default:
		_, err := copyTouching(x.flushing(u), u.br, func() { u.touch(x.idle) })
		return err
	}
}

// copyLength writes what is already here in one piece; only an answer that is still on its way is flushed as it comes.
func (x *exchange) copyLength(u *upstream, left int64) error {
	if n := min(left, int64(u.br.Buffered())); n > 0 {
		b, _ := u.br.Peek(int(n))
		if _, err := x.w.Write(b); err != nil {
			return err
		}
		u.br.Discard(int(n))
		left -= n
	}
	if left == 0 {
		return nil
	}
	if err := http.NewResponseController(x.w).Flush(); err != nil {
		return err
	}
	n, err := copyTouching(x.flushing(u), io.LimitReader(u.br, left), func() { u.touch(x.idle) })
	if err == nil && n < left {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// flushWriter flushes after each write unless the target's next bytes are here already.
type flushWriter struct {
	w http.ResponseWriter
	u *upstream
}

func (x *exchange) flushing(u *upstream) io.Writer { return flushWriter{x.w, u} }

func (f flushWriter) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err != nil {
		return n, err
	}
	switch k := f.u.br.Buffered(); {
	case k == 0:
	case k <= 7: // perhaps the end mark of the chunks: then the handler's return flushes
		if rest, _ := f.u.br.Peek(k); strings.HasSuffix(string(rest), "0\r\n\r\n") {
			return n, nil
		}
	case k >= 512:
		return n, nil
	}
	return n, http.NewResponseController(f.w).Flush()
}

// writeHead sends the request line and the header. net/http has parsed them, so that what is written is well-formed.
func (x *exchange) writeHead(u *upstream) error {
	r := x.r.Request
	b := append(u.wb[:0], r.Method...)
	b = append(b, ' ')
	b = append(b, requestURI(r)...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, x.listener.host(r.Host)...)
	b = append(b, "\r\n"...)
	for k, vs := range r.Header {
		switch k {
		case "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Amzn-Trace-Id":
			continue
		}
		if hopByHop(k) {
			continue
		}
		for _, v := range vs {
			b = appendField(b, k, v)
		}
	}
	b = x.appendForwarded(b)
	switch {
	case x.r.upgrade != "":
		b = appendField(append(b, "Connection: Upgrade\r\n"...), "Upgrade", x.r.upgrade)
	case r.ContentLength > 0:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), r.ContentLength, 10), "\r\n"...)
	case r.ContentLength < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for k := range r.Trailer {
			b = appendField(b, "Trailer", k)
		}
	case r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	b = append(b, "\r\n"...)
	u.wb = b
	_, err := u.Write(b)
	return err
}

// appendForwarded adds the fields a load balancer adds.
func (x *exchange) appendForwarded(b []byte) []byte {
	r := x.r.Request
	b = append(b, "X-Forwarded-For: "...)
	for _, v := range r.Header["X-Forwarded-For"] {
		b = append(append(b, v...), ", "...)
	}
	b = x.r.client.AppendTo(b)
	b = append(b, "\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: "...)
	b = append(b, x.front.port...)
	b = append(b, "\r\nX-Amzn-Trace-Id: "...)
	b = appendTrace(b, r.Header.Get("X-Amzn-Trace-Id"), x.start)
	return append(b, "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}
