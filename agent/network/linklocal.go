package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// LinkLocal is where programs on ECS look for the services of their host. Every instance's bridge has the address.
var LinkLocal = netip.MustParseAddrPort("169.254.170.2:80")

// instanceMetadata is where the host itself may have credentials from, in a cloud.
var instanceMetadata = netip.MustParsePrefix("169.254.169.254/32")

// ListenLinkLocal listens for the instance's own tasks: the socket is bound to the bridge, so that other instances can have
// the address too. It fails when some program of the host listens on the port of all addresses.
func (n *Network) ListenLinkLocal(ctx context.Context) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bound error
		if err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), n.bridge) }); err != nil {
			return err
		}
		return bound
	}}
	l, err := lc.Listen(ctx, "tcp4", LinkLocal.String())
	if err != nil {
		return nil, fmt.Errorf("listen on bridge %s: %w", n.bridge, err)
	}
	return l, nil
}
