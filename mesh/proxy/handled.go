package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// ServeHTTP answers a request that came to a port of the platform's own.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := &handled{ResponseController: http.NewResponseController(w), w: w, r: r}
	now := time.Now()
	x := exchange{c: h, front: f, start: now, now: now}
	x.r.take(r)
	x.run()
}

// take makes r what req says, which net/http has parsed; it is looser than we are, but unambiguous once parsed.
func (r *request) take(req *http.Request) {
	r.method, r.givenHost, r.host, r.client = req.Method, req.Host, hostOnly(req.Host), clientAddr(req)
	r.length, r.minor = req.ContentLength, 1
	if req.ProtoMajor == 1 {
		r.minor = req.ProtoMinor
	}
	uri := req.RequestURI
	if !strings.HasPrefix(uri, "/") && uri != "*" {
		uri = req.URL.RequestURI() // absolute form
	}
	r.setTarget(uri)
	for k, vs := range req.Header {
		kind := kindOf(k)
		for _, v := range vs {
			r.header = append(r.header, field{k, v, kind})
		}
	}
	for k := range req.Trailer {
		r.header = append(r.header, field{"Trailer", k, fieldTrailer})
	}
	if req.ProtoMajor == 1 {
		r.findUpgrade()
	}
}

func clientAddr(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(host)
	return a.Unmap()
}

// handled is the client behind a request of net/http.
type handled struct {
	*http.ResponseController
	w    http.ResponseWriter
	r    *http.Request
	stop func() bool // of watch
}

func (h *handled) watch(i *interruption) { h.stop = context.AfterFunc(h.r.Context(), i.act) }

func (h *handled) unwatch() bool {
	if h.stop == nil {
		return false
	}
	defer func() { h.stop = nil }()
	return h.stop()
}

func (h *handled) left() bool { return h.r.Context().Err() != nil }

func (h *handled) wholeBody() []byte { return nil }

func (h *handled) body() io.Reader {
	h.EnableFullDuplex() // otherwise net/http swallows the rest of the body before the answer's first byte
	return h.r.Body
}

func (h *handled) trailer() (out header) {
	for k, vs := range h.r.Trailer {
		for _, v := range vs {
			out = append(out, field{name: k, value: v})
		}
	}
	return out
}

func (h *handled) hint(status int, fields header) error {
	for _, f := range fields {
		h.w.Header().Add(f.name, f.value)
	}
	h.w.WriteHeader(status)
	for _, f := range fields {
		h.w.Header().Del(f.name)
	}
	return nil
}

func (h *handled) answer(status int, fields header, _ framing, last bool) error {
	out := h.w.Header()
	for _, f := range fields {
		out.Add(f.name, f.value)
	}
	if _, ok := out["Content-Type"]; !ok {
		out["Content-Type"] = nil // net/http must not guess one
	}
	if last {
		out["Connection"] = []string{"close"}
	}
	h.w.WriteHeader(status)
	return nil
}

func (h *handled) Write(b []byte) (int, error) { return h.w.Write(b) }

func (h *handled) finish(trailer header) error {
	if len(trailer) > 0 {
		h.Flush() // or net/http would give a short body a length, and drop the trailer
	}
	for _, f := range trailer {
		h.w.Header().Add(http.TrailerPrefix+f.name, f.value)
	}
	return nil // the handler's return flushes
}

func (h *handled) abort() { panic(http.ErrAbortHandler) }

func (h *handled) hijack() (duplex, *bufio.Reader, error) {
	c, rw, err := h.Hijack()
	if err != nil {
		return nil, nil, err
	}
	c.SetDeadline(time.Time{})
	if d, ok := c.(duplex); ok {
		return d, rw.Reader, nil
	}
	return wholeClose{c}, rw.Reader, nil
}

// wholeClose stands for a connection that cannot end one direction alone.
type wholeClose struct{ net.Conn }

func (c wholeClose) CloseWrite() error { return c.Close() }
