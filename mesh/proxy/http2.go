package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
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
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				c, err := e.group.proxy.dialer.DialContext(ctx, network, e.address)
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
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	silent := time.AfterFunc(x.idle, cancel)
	defer silent.Stop()
	out := x.r.Request.Clone(ctx)
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", e.address, ""
	out.Host = x.listener.host(out.Host)
	for k := range out.Header {
		if hopByHop(k) {
			delete(out.Header, k)
		}
	}
	if teTrailers(x.r.Header) {
		out.Header["Te"] = []string{"trailers"} // gRPC asks for it
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(x.appendForwarded(nil)), "\r\n"), "\r\n") {
		k, v, _ := strings.Cut(line, ": ")
		out.Header[k] = []string{v}
	}
	if x.r.ContentLength == 0 {
		out.Body = nil
	}
	http.NewResponseController(x.w).EnableFullDuplex()
	res, err := e.h2.get(e).RoundTrip(out)
	if err != nil {
		if _, ok := errors.AsType[dialError](err); ok && x.r.ContentLength == 0 {
			return true, err
		}
		if ctx.Err() != nil && x.r.Context().Err() == nil {
			err = context.DeadlineExceeded
		}
		x.upstreamFailed(e, err, nil)
		return false, nil
	}
	defer res.Body.Close()
	x.status = res.StatusCode
	e.group.stats.observe(res.StatusCode, time.Since(x.start))
	h := x.w.Header()
	for k, v := range res.Header {
		h[k] = v
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil
	}
	for k := range res.Trailer {
		delete(h, "Content-Length") // in HTTP/1.1 trailers follow chunks only
		h.Add("Trailer", k)
	}
	x.sticky.setCookies(h, e)
	x.w.WriteHeader(res.StatusCode)
	flush := http.NewResponseController(x.w)
	_, err = copyTouching(writerFunc(func(b []byte) (int, error) {
		n, err := x.w.Write(b)
		if err == nil {
			err = flush.Flush()
		}
		return n, err
	}), res.Body, func() { silent.Reset(x.idle) })
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	for k, v := range res.Trailer {
		h[http.TrailerPrefix+k] = v
	}
	return false, nil
}

func teTrailers(h http.Header) bool {
	for _, v := range h["Te"] {
		if strings.Contains(v, "trailers") {
			return true
		}
	}
	return false
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

var _ io.Writer = writerFunc(nil)
