//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// dial connects from the host's network, as an engine of Docker does for its log drivers; the shim's own is its task's.
func (s *shim) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if filepath.Dir(address) == filepath.Join(s.dir, routerFolder) {
		return dialRouter(ctx, address)
	}
	if strings.HasPrefix(network, "unix") {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	resolver := net.Resolver{PreferGo: true, Dial: s.dialHost}
	addresses, err := resolver.LookupIP(ctx, "ip", name)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, ip := range addresses {
		conn, err := s.dialHost(ctx, network, net.JoinHostPort(ip.String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// dialHost makes the socket, to an address without a name, on a thread that is in the host's network namespace and ends afterwards.
func (s *shim) dialHost(ctx context.Context, network, address string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		lockThreadForever()
		if err = unix.Setns(int(s.host.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("join the host's network: %w", err)
			return
		}
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
	}()
	<-done
	return conn, err
}
