package proxy

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// frontKey names a socket.
type frontKey struct {
	address string
	port    uint32
	tcp     bool
}

func (k frontKey) String() string { return joinHostPort(k.address, k.port) }

// front is one listening socket. Its routes change; the socket stays while any listener wants it.
type front struct {
	key    frontKey
	proxy  *Proxy
	port   string
	routes atomic.Pointer[routes]
	failed error // why it is not open; guarded by Proxy.mu
	socket net.Listener
	open   connections
	dates  dates
}

// reopen makes the sockets those that the listeners ask for and gives each its routes. The caller holds Proxy.mu. A
// socket that cannot be opened is tried again with every call.
func (p *Proxy) reopen() {
	want := map[frontKey][]*listener{}
	names := map[string]*front{}
	arns := make([]string, 0, len(p.listeners))
	for n := range p.listeners {
		arns = append(arns, n)
	}
	slices.SortFunc(arns, func(a, b string) int {
		x, y := p.listeners[a], p.listeners[b]
		if c := strings.Compare(x.LoadBalancerName, y.LoadBalancerName); c != 0 {
			return c
		}
		return int(x.Port) - int(y.Port)
	})
	for _, n := range arns {
		l := p.listeners[n]
		c := p.compile(l)
		for _, a := range slices.Concat(l.Addresses, p.shared) {
			k := frontKey{a, l.Port, c.tcp}
			if !slices.Contains(want[k], c) {
				want[k] = append(want[k], c)
			}
		}
		if _, ok := names[c.dnsName]; !ok && !c.tcp && c.dnsName != "" {
			f := &front{proxy: p, port: c.port}
			f.routes.Store(newRoutes(c))
			names[c.dnsName] = f
		}
	}
	p.byName = names
	// Closed first: a port may pass from HTTP to TCP.
	for k, f := range p.fronts {
		if want[k] == nil {
			delete(p.fronts, k)
			p.retire(f, f.routes.Load().idle)
		}
	}
	if p.closed {
		return
	}
	for k, ls := range want {
		f, ok := p.fronts[k]
		if !ok {
			f = &front{key: k, proxy: p, port: ls[0].port}
			p.fronts[k] = f
		}
		f.routes.Store(newRoutes(ls...))
		if f.socket == nil {
			p.openSocket(f)
		}
	}
	p.dropUnused()
}

// openSocket binds the socket and serves it. Failing is shown, not fatal: the other sockets work.
func (p *Proxy) openSocket(f *front) {
	lc := net.ListenConfig{KeepAlive: 30 * time.Second}
	socket, err := lc.Listen(context.Background(), "tcp", f.key.String())
	if err != nil {
		if f.failed == nil || f.failed.Error() != err.Error() {
			p.log.Error("open listener", "address", f.key.String(), "load_balancer", f.routes.Load().listeners[0].loadBalancer,
				"error", err, "hint", bindHint(err))
		}
		f.failed = err
		return
	}
	f.socket, f.failed = socket, nil
	p.log.Info("listener open", "address", f.key.String())
	serve := f.serveHTTP
	if f.key.tcp {
		serve = f.splice
	}
	p.serving.Go(func() { f.accept(socket, serve) })
}

// retire closes the socket at once, and its connections when their requests are done or after wait.
func (p *Proxy) retire(f *front, wait time.Duration) {
	if f.socket == nil {
		return
	}
	p.log.Info("listener closed", "address", f.key.String())
	f.socket.Close() // now: another front may want the port
	p.serving.Go(func() {
		ctx, cancel := context.WithTimeout(p.base, wait)
		defer cancel()
		f.open.shutdown(ctx)
	})
}

func bindHint(err error) string {
	switch {
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need root or CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program has this port; the load balancer answers on its own address all the same"
	}
	return ""
}
