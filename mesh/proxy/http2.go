package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// http2Transport speaks HTTP/2 without TLS to one target whose group says HTTP2 or GRPC; made when first used.
type http2Transport struct {
	mu sync.Mutex
	t  *http.Transport
}

func (h *http2Transport) get(e *endpoint) *http.Transport {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.t == nil {
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		h.t = &http.Transport{
			Protocols: protocols, DisableCompression: true, IdleConnTimeout: maxIdleAge,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				c, err := e.connect(ctx)
				if err != nil {
					return nil, dialError{err}
				}
				return c, nil
			},
		}
	}
	return h.t
}

func (h *http2Transport) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.t != nil {
		h.t.CloseIdleConnections()
	}
}

// dialError marks failures before anything was sent.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }

// tryHTTP2 is try over HTTP/2.
func (x *exchange) tryHTTP2(e *endpoint) (again bool, err error) {
	ctx, cancel := context.WithCancel(x.front.proxy.base)
	defer cancel()
	x.c.watch(&interruption{cancel})
	defer x.c.unwatch()
	silent := time.AfterFunc(x.idle, cancel)
	defer silent.Stop()
	out, err := x.overHTTP2(ctx, e)
	if err != nil {
		x.fail(http.StatusBadRequest)
		return false, nil
	}
	defer out.end(x.c)
	res, err := e.h2.get(e).RoundTrip(out.Request)
	if err != nil {
		if _, ok := errors.AsType[dialError](err); ok && x.r.length == 0 {
			return true, err
		}
		if ctx.Err() != nil && !x.c.left() {
			err = context.DeadlineExceeded
		}
		x.upstreamFailed(e, err, nil)
		return false, nil
	}
	defer res.Body.Close()
	x.status = res.StatusCode
	x.now = time.Now()
	e.group.stats.observe(res.StatusCode, x.now.Sub(x.start))
	if err := x.passHTTP2(e, res, func() { silent.Reset(x.idle) }); err != nil {
		x.c.abort()
	}
	return false, nil
}

// outgoing is a request over HTTP/2. Its transport may read the body beyond its answer.
type outgoing struct {
	*http.Request
	body *lentBody // nil: none
}

func (x *exchange) overHTTP2(ctx context.Context, e *endpoint) (out outgoing, err error) {
	r := &x.r
	out.Request, err = http.NewRequestWithContext(ctx, r.method, "http://"+e.address+r.target, nil)
	if err != nil {
		return out, err
	}
	out.Host = x.listener.host(r.givenHost)
	h := out.Header
	h["User-Agent"] = nil // none of the transport's own
	for i := range r.header {
		switch f := &r.header[i]; {
		case f.kind == fieldTE && listHas(f.value, "trailers"):
			h["Te"] = []string{"trailers"} // gRPC asks for it
		case !f.kind.ofRequest():
			h.Add(f.name, f.value)
		}
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(x.appendForwarded(nil)), "\r\n"), "\r\n") {
		k, v, _ := strings.Cut(line, ": ")
		h[k] = []string{v}
	}
	if r.length != 0 {
		out.body = &lentBody{from: x.c.body(), r: out.Request, c: x.c}
		out.Body, out.ContentLength = out.body, r.length
		for _, f := range r.header {
			if f.kind == fieldTrailer && r.length < 0 {
				for name := range strings.SplitSeq(f.value, ",") {
					if out.Trailer == nil {
						out.Trailer = http.Header{}
					}
					out.Trailer[http.CanonicalHeaderKey(strings.TrimSpace(name))] = nil
				}
			}
		}
	}
	return out, nil
}

// end takes the body back from the transport: nobody reads it any more.
func (o outgoing) end(c client) {
	if o.body != nil {
		if !o.body.ended.Load() {
			c.SetReadDeadline(time.Unix(1, 0))
		}
		o.body.mu.Lock()
		defer o.body.mu.Unlock()
		o.body.over = true
	}
}

// lentBody is a client's body in the hands of a transport.
type lentBody struct {
	from io.Reader
	r    *http.Request
	c    client
	// ended: all of it was read.
	ended atomic.Bool

	mu   sync.Mutex // held while from is read, which end interrupts
	over bool
}

func (b *lentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.from.Read(p)
	if err == io.EOF {
		b.ended.Store(true)
		for _, f := range b.c.trailer() {
			if _, ok := b.r.Trailer[http.CanonicalHeaderKey(f.name)]; ok {
				b.r.Trailer.Add(f.name, f.value)
			}
		}
	}
	return n, err
}

func (b *lentBody) Close() error { return nil }

// passHTTP2 gives the client the answer, each piece as it comes.
func (x *exchange) passHTTP2(e *endpoint, res *http.Response, touch func()) error {
	var h header
	f := bodyLength
	if res.ContentLength < 0 || len(res.Trailer) > 0 {
		f = bodyChunked // in HTTP/1.1 trailers follow chunks only
	}
	for k, vs := range res.Header {
		kind := kindOf(k)
		if kind == fieldContentLength && f == bodyChunked {
			continue
		}
		for _, v := range vs {
			h = append(h, field{k, v, kind})
		}
	}
	for k := range res.Trailer {
		h = append(h, field{"Trailer", k, fieldTrailer})
	}
	switch {
	case x.r.method == http.MethodHead, res.StatusCode == http.StatusNoContent, res.StatusCode == http.StatusNotModified:
		f = bodyNone
	case res.ContentLength == 0 && f == bodyLength && h.first(fieldContentLength) == "":
		h = append(h, field{"Content-Length", "0", fieldContentLength})
	}
	if err := x.c.answer(res.StatusCode, x.sticky.appendCookies(h, e), f, false); err != nil {
		return err
	}
	_, err := copyTouching(writerFunc(func(b []byte) (int, error) {
		n, err := x.c.Write(b)
		if err == nil {
			err = x.c.Flush()
		}
		return n, err
	}), res.Body, func() error {
		touch()
		return nil
	})
	if err != nil {
		return err
	}
	var trailer header
	for k, vs := range res.Trailer {
		for _, v := range vs {
			trailer = append(trailer, field{name: k, value: v})
		}
	}
	return x.c.finish(trailer)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
