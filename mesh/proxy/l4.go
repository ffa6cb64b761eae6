package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// accept serves each connection in a goroutine until the socket closes.
func (f *front) accept(socket net.Listener, serve func(*net.TCPConn)) {
	for {
		c, err := socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			f.proxy.log.Warn("accept", "address", f.key.String(), "error", err)
			select { // out of descriptors, mostly: give it a moment
			case <-time.After(50 * time.Millisecond):
				continue
			case <-f.proxy.base.Done():
				return
			}
		}
		f.proxy.serving.Add(1)
		go func() {
			defer f.proxy.serving.Done()
			serve(c.(*net.TCPConn))
		}()
	}
}

// splice carries one connection. Bytes go from socket to socket within the kernel: io.Copy between two *net.TCPConn uses
// splice(2), for which neither may be wrapped.
func (f *front) splice(c *net.TCPConn) {
	release := f.open.add(c)
	defer release()
	defer c.Close()
	if f.open.closing.Load() { // the order decides, as in conn.await: a shutdown sees us, or we see it
		return
	}
	l := f.routes.Load().listeners[0]
	l.stats.active.Add(1)
	defer l.stats.active.Add(-1)
	a := l.route(&request{client: c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()})
	if a.forward == nil {
		return
	}
	g := a.forward.choose()
	if g == nil {
		return
	}
	e, u := connect(g)
	if e == nil {
		return
	}
	defer e.leave()
	defer u.Close()
	// No idle timeout: keep-alive probes find a peer that is gone, and a deadline would have to be moved with bytes we never see.
	var both sync.WaitGroup
	carry := func(dst, src *net.TCPConn) {
		defer both.Done()
		io.Copy(dst, src)
		dst.CloseWrite()
		src.CloseRead()
	}
	both.Add(2)
	go carry(u, c)
	carry(c, u)
	both.Wait()
}

// connect enters a target that accepts; nil when none does.
func connect(g *group) (*endpoint, *net.TCPConn) {
	var tried []*endpoint
	for len(tried) < maxTries {
		e := g.pick(tried)
		if e == nil {
			return nil, nil
		}
		c, err := e.connect(context.Background())
		if err == nil {
			return e, c.(*net.TCPConn)
		}
		e.leave()
		g.stats.connectErrors.Add(1)
		tried = append(tried, e)
	}
	return nil, nil
}
