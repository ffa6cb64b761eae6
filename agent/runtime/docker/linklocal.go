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
// too. Those in the instance's own network are led there as well. It needs an engine on this host, and the right to change its packet filter.
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
	var tasks, inOwn []netip.Addr
	for _, c := range list {
		if a, own, ok := addressOf(c); ok && own {
			inOwn = append(inOwn, a)
		} else if ok {
			tasks = append(tasks, a)
		}
	}
	to := l.Addr().(*net.TCPAddr).AddrPort()
	r := &linklocal.Redirect{ID: d.cfg.ID, Bridge: bridge, To: to, AllowMetadata: d.cfg.AllowMetadata}
	err = r.Replace(tasks)
	var own *linklocal.Redirect
	if n := d.Network(); err == nil && n != nil {
		own = &linklocal.Redirect{ID: ownID(d.cfg.ID), Bridge: n.Bridge(), To: to, AllowMetadata: true} // the network's own table sees to that
		err = own.Replace(inOwn)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	d.mu.Lock()
	d.redirect, d.own = r, own
	d.mu.Unlock()
	return redirected{l}, nil
}

// ownID names the redirection of tasks in the instance's own network.
func ownID(instance string) string { return instance + "/own" }

// redirected is a listener by the address that tasks know.
type redirected struct{ net.Listener }

func (redirected) Addr() net.Addr { return net.TCPAddrFromAddrPort(linklocal.LinkLocal) }

// addressOf is the address of a task's sandbox, and whether it is one of the instance's own network.
func addressOf(c container.Summary) (a netip.Addr, own, ok bool) {
	if c.Labels[labelName] != "" {
		return a, false, false
	}
	text := c.Labels[labelAddress]
	own = text != ""
	if !own && c.NetworkSettings != nil && c.NetworkSettings.Networks["bridge"] != nil {
		text = c.NetworkSettings.Networks["bridge"].IPAddress
	}
	a, err := netip.ParseAddr(text)
	return a, own, err == nil
}

// redirecting is what leads tasks to the listener, those of the instance's own network or the others; nil: nothing does.
func (d *Driver) redirecting(own bool) *linklocal.Redirect {
	d.mu.Lock()
	defer d.mu.Unlock()
	if own {
		return d.own
	}
	return d.redirect
}

// join is the sandbox's place in the network, with the way to the link-local address.
func (d *Driver) join(ctx context.Context, t runtime.Task) (runtime.Sandbox, error) {
	if err := d.attach(ctx, t); err != nil {
		return runtime.Sandbox{}, err
	}
	box, err := d.sandbox(ctx, t)
	if err != nil {
		return box, err
	}
	if r := d.redirecting(box.MAC != ""); box.Address != "" && r != nil {
		a, err := netip.ParseAddr(box.Address)
		if err != nil {
			return box, err
		}
		return box, r.Add(a)
	}
	return box, nil
}

// leave ends that before the sandbox goes: the engine gives its address to the next.
func (d *Driver) leave(sandbox container.Summary) error {
	a, own, ok := addressOf(sandbox)
	if r := d.redirecting(own); ok && r != nil {
		return r.Remove(a)
	}
	return nil
}

func (d *Driver) endRedirect() error {
	for _, own := range []bool{false, true} {
		if r := d.redirecting(own); r != nil {
			if err := r.Delete(); err != nil {
				return err
			}
		}
	}
	return nil
}
