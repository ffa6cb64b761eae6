package proxy

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// upgradeOf is the protocol a client asks to switch to.
func upgradeOf(r *http.Request) string {
	up := r.Header.Get("Upgrade")
	if up == "" || r.ProtoMajor != 1 || r.ProtoMinor != 1 || !isFieldValue(up) || strings.EqualFold(up, "h2c") {
		return ""
	}
	for _, v := range r.Header["Connection"] {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), "upgrade") {
				return up
			}
		}
	}
	return ""
}

// tunnel passes the switch of protocols on and then carries bytes both ways until either side ends or both are silent
// for the idle timeout.
func (x *exchange) tunnel(e *endpoint, u *upstream, res *response) {
	defer u.Close()
	c, rw, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		x.fail(http.StatusBadGateway)
		return
	}
	defer c.Close()
	release := x.front.tunnel.add(c)
	defer release()
	c.SetDeadline(time.Time{})
	head := []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n")
	head = appendField(head, "Upgrade", res.upgrade)
	for k, vs := range res.header {
		for _, v := range vs {
			head = appendField(head, k, v)
		}
	}
	rw.Write(append(head, "\r\n"...))
	if rw.Flush() != nil {
		return
	}
	touch := func() {
		u.touch(x.idle)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyTouching(c, u.br, touch)
		closeWrite(c)
	}()
	// The client's silence alone does not end the tunnel: only the target's side has a deadline, which both directions move.
	copyTouching(u, rw.Reader, touch)
	u.CloseWrite()
	<-done
}

func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
}

// tunnels are connections that net/http does not know any more.
type tunnels struct {
	mu    sync.Mutex
	open  map[net.Conn]struct{}
	empty chan struct{} // made by shutdown, closed with the last tunnel
}

// add counts c in; the returned function counts it out.
func (t *tunnels) add(c net.Conn) (release func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[net.Conn]struct{}{}
	}
	t.open[c] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.open, c)
		if len(t.open) == 0 && t.empty != nil {
			close(t.empty)
			t.empty = nil
		}
	}
}

// shutdown waits until every tunnel has ended, and ends them when ctx does.
func (t *tunnels) shutdown(ctx context.Context) {
	t.mu.Lock()
	if len(t.open) == 0 {
		t.mu.Unlock()
		return
	}
	empty := make(chan struct{})
	t.empty = empty
	t.mu.Unlock()
	select {
	case <-empty:
		return
	case <-ctx.Done():
	}
	t.mu.Lock()
	for c := range t.open {
		c.Close()
	}
	t.mu.Unlock()
	<-empty
}
