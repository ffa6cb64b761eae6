package docker

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	linklocal "github.com/seed-2f228079/neargate/agent/network"
	"github.com/seed-2f228079/neargate/agent/runtime"
)

// LinkLocal listens at the bridge's gateway and leads the instance's tasks there: the bridge is the engine's, and other programs use it
// too. It needs an engine on this host, and the right to change its packet filter.
func (d *Driver) LinkLocal(ctx context.Context) (net.Listener, error) {
	gateway, err := d.Gateway(ctx)
	if err != nil || !gateway.IsValid() {
		return nil, err
	}
	n, err := d.cli.NetworkInspect(ctx, "bridge", network.InspectOptions{})
	if err != nil {
		return nil, err
	}
	bridge := n.Options["com.docker.network.bridge.name"]
	if bridge == "" {
		return nil, fmt.Errorf("the engine does not say what its bridge is called")
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", netip.AddrPortFrom(gateway, 0).String())
	if err != nil {
		return nil, fmt.Errorf("listen at the gateway of bridge %s: %w", bridge, err)
	}
	list, err := d.list(ctx, "")
	if err != nil {
		l.Close()
		return nil, err
	}
	var tasks []netip.Addr
	for _, c := range list {
		if a, ok := addressOf(c); ok {
			tasks = append(tasks, a)
		}
	}
	r := &linklocal.Redirect{ID: d.cfg.ID, Bridge: bridge, To: l.Addr().(*net.TCPAddr).AddrPort(), AllowMetadata: d.cfg.AllowMetadata}
	if err := r.Replace(tasks); err != nil {
		l.Close()
		return nil, err
	}
	d.mu.Lock()
	d.redirect = r
	d.mu.Unlock()
	return redirected{l}, nil
}

// redirected is a listener by the address that tasks know.
type redirected struct{ net.Listener }

func (redirected) Addr() net.Addr { return net.TCPAddrFromAddrPort(linklocal.LinkLocal) }

// addressOf is the address of a task's sandbox.
func addressOf(c container.Summary) (netip.Addr, bool) {
	if c.Labels[labelName] != "" || c.NetworkSettings == nil || c.NetworkSettings.Networks["bridge"] == nil {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(c.NetworkSettings.Networks["bridge"].IPAddress)
	return a, err == nil
}

func (d *Driver) redirecting() *linklocal.Redirect {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.redirect
}

// join is the sandbox's place in the network, with the way to the link-local address.
func (d *Driver) join(ctx context.Context, t runtime.Task) (runtime.Sandbox, error) {
	box, err := d.sandbox(ctx, t)
	if err != nil {
		return box, err
	}
	if a, err := netip.ParseAddr(box.Address); err == nil && d.redirecting() != nil {
		return box, d.redirecting().Add(a)
	}
	return box, nil
}

// leave ends that before the sandbox goes: the engine gives its address to the next.
func (d *Driver) leave(sandbox container.Summary) error {
	if a, ok := addressOf(sandbox); ok && d.redirecting() != nil {
		return d.redirecting().Remove(a)
	}
	return nil
}

func (d *Driver) endRedirect() error {
	if r := d.redirecting(); r != nil {
		return r.Delete()
	}
	return nil
}
