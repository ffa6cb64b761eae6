package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/network"
	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Tasks of network mode awsvpc have their addresses in the instance's own network, as those of the native driver have: the engine gives their
// sandbox a namespace with nothing in it but loopback (its network "none"), and agent/network puts the interface there. A network of the engine's would
// have addresses, routes and rules of its own, and know nothing of other hosts and security groups.
//
// That takes an engine on this host, and the right to change this host's network. Without, such tasks are on the engine's bridge: other hosts do not
// reach them, and they can be in no group but their VPC's default one.

// Labels of sandboxes with an interface of the instance's network.
const (
	labelAddress = "neargate.address"
	labelIPv6    = "neargate.ipv6"
)

// decideWithin bounds the question whether the engine is on this host.
const decideWithin = 10 * time.Second

// Network is the instance's own; nil: there is none, and will be none in this process, for who asks here gives it the addresses that it may have.
func (d *Driver) Network() *network.Network {
	ctx, cancel := context.WithTimeout(context.Background(), decideWithin)
	defer cancel()
	n, err := d.network(ctx)
	if err != nil {
		d.netMu.Lock()
		defer d.netMu.Unlock()
		d.decided = true
		return d.net
	}
	return n
}

// network decides once whether there is one.
func (d *Driver) network(ctx context.Context) (*network.Network, error) {
	d.netMu.Lock()
	defer d.netMu.Unlock()
	if d.decided {
		return d.net, nil
	}
	here, err := d.onThisHost(ctx)
	if err != nil {
		return nil, err
	}
	if here && os.Geteuid() == 0 && len(network.Check()) == 0 {
		if err := os.MkdirAll(d.cfg.Dir, 0o700); err != nil { // the network keeps what it is told there, before there is any task
			return nil, err
		}
		d.net = network.New(network.Config{ID: d.cfg.ID, Subnet: d.cfg.Subnet, Zone: d.cfg.Zone, Folder: d.cfg.Dir, AllowMetadata: d.cfg.AllowMetadata, Logger: d.cfg.Logger,
			Mode: d.cfg.NetworkMode, VXLANPort: d.cfg.VXLANPort, VXLANID: d.cfg.VXLANID})
	}
	d.decided = true
	return d.net, nil
}

// onThisHost says whether the engine shares this host's kernel: one in a virtual machine has a socket here too.
func (d *Driver) onThisHost(ctx context.Context) (bool, error) {
	if !strings.HasPrefix(d.cli.DaemonHost(), "unix://") {
		return false, nil
	}
	info, err := d.cli.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("what host the engine is on: %w", err)
	}
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return false, err
	}
	return info.Name == unix.ByteSliceToString(kernel.Nodename[:]) && info.KernelVersion == unix.ByteSliceToString(kernel.Release[:]), nil
}

// networkUp is the network, with what tasks of a former process have of it, brought up.
func (d *Driver) networkUp(ctx context.Context, n *network.Network) error {
	d.netMu.Lock()
	defer d.netMu.Unlock()
	if !d.adopted {
		list, err := d.list(ctx, "")
		if err != nil {
			return err
		}
		for _, c := range list {
			if c.Labels[labelName] != "" || c.Labels[labelAddress] == "" {
				continue
			}
			t, err := unkeep(c.Labels[labelTask], c.Labels[labelKept])
			if err != nil {
				return fmt.Errorf("sandbox %s: %w", c.ID, err)
			}
			if i, ok := interfaceOf(t, c.Labels); ok {
				n.Adopt(i, nil)
			}
		}
		d.adopted = true
	}
	return n.Up(ctx)
}

// interfaceOf is a sandbox's place in the instance's network.
func interfaceOf(t runtime.Task, labels map[string]string) (network.Interface, bool) {
	a, err := netip.ParseAddr(labels[labelAddress])
	if err != nil {
		return network.Interface{}, false
	}
	i := network.Interface{Task: t.ID, Address: a, Own: true, Groups: t.Spec.SecurityGroups}
	i.Address6, _ = netip.ParseAddr(labels[labelIPv6]) // invalid: none
	return i, true
}

// reserve makes a sandbox that is about to be made one of the instance's network.
func (d *Driver) reserve(ctx context.Context, n *network.Network, t runtime.Task, cfg *container.Config, host *container.HostConfig) error {
	if err := d.networkUp(ctx, n); err != nil {
		return err
	}
	a, err := n.Allocate(t.ID)
	if err != nil {
		return err
	}
	host.NetworkMode = "none"
	cfg.Labels[labelAddress] = a.String()
	host.ExtraHosts = append(host.ExtraHosts, cfg.Hostname+":"+a.String())
	if !t.Spec.Ipv6 || refusesIPv6(t) {
		return nil
	}
	if six := n.IPv6(ctx, a); six.IsValid() {
		cfg.Labels[labelIPv6] = six.String()
		host.ExtraHosts = append(host.ExtraHosts, cfg.Hostname+":"+six.String())
		host.Sysctls = map[string]string{"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"} // the engine turns it off where it gives no address
	}
	return nil
}

// refusesIPv6 says whether the task's own kernel parameters turn it off.
func refusesIPv6(t runtime.Task) bool {
	for _, c := range t.Spec.Containers {
		for name, value := range c.Sysctls {
			if strings.HasPrefix(name, "net.ipv6.conf.") && strings.HasSuffix(name, ".disable_ipv6") && value != "0" {
				return true
			}
		}
	}
	return false
}

// attach puts the interface into the sandbox's namespace; repeated it changes nothing.
func (d *Driver) attach(ctx context.Context, t runtime.Task) error {
	in, err := d.cli.ContainerInspect(ctx, d.sandboxName(t.ID))
	if err != nil {
		return err
	}
	i, ok := interfaceOf(t, in.Config.Labels)
	if !ok {
		return nil
	}
	n, err := d.network(ctx)
	switch {
	case err != nil:
		return err
	case n == nil:
		return errors.New("the task has an address of this host's network, which is no more: the engine is elsewhere")
	}
	if err := d.networkUp(ctx, n); err != nil {
		return err
	}
	// The number of a process of another machine would be somebody else's here.
	cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", in.State.Pid))
	if err != nil || !strings.Contains(string(cgroup), in.ID) {
		return fmt.Errorf("process %d of the sandbox is not one of this host: %v", in.State.Pid, err)
	}
	return n.Attach(ctx, i, in.State.Pid)
}

// detach ends what attach began, and release gives the address back, once the sandbox is gone.
func (d *Driver) detach(ctx context.Context, task string) (release func(), err error) {
	n, err := d.network(ctx)
	if err != nil || n == nil {
		return func() {}, err
	}
	return func() { n.Release(task) }, n.Detach(task)
}
