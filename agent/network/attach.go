package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// veth is the name of the host's end of a task's link; deleting either end deletes both.
func (n *Network) veth(task string) string {
	sum := sha256.Sum256([]byte(n.cfg.ID + "/" + task))
	return "ve" + hex.EncodeToString(sum[:6])
}

// Loopback brings up lo in the network namespace of a process.
func Loopback(pid int) error {
	ns, h, err := namespace(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer h.Close()
	return loopbackUp(h)
}

// Attach joins the network namespace of a process to the bridge under the task's address. A task with security groups is attached once
// this host knows them, so that its first packet meets the rules.
func (n *Network) Attach(ctx context.Context, i Interface, pid int) error {
	if err := n.AwaitGroups(ctx, i.Groups); err != nil {
		return fmt.Errorf("task %s: %w", i.Task, err)
	}
	task, a := i.Task, i.Address
	n.mu.Lock()
	index, mtu, subnet, gateway := n.index, n.mtu, n.subnet, n.gateway()
	n.interfaces[a] = i
	err := n.passFirewall(ipv4) // each time: Docker may have been started since the last one
	if err == nil && i.Address6.IsValid() {
		err = n.ensure6(ctx)
	}
	if err == nil {
		err = n.admit(i)
	}
	n.mu.Unlock()
	if err != nil {
		return err
	}
	ns, h, err := namespace(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer h.Close()
	if err := loopbackUp(h); err != nil {
		return err
	}
	name := n.veth(task)
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: index, MTU: mtu, Flags: net.FlagUp},
		PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns)), PeerHardwareAddr: i.MAC(), PeerMTU: uint32(mtu)}
	if err := netlink.LinkAdd(v); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("add link %s of task %s: %w", name, task, err)
	}
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("task's end of link %s: %w", name, err)
	}
	if err := h.AddrReplace(eth0, &netlink.Addr{IPNet: ipNet(subnet, a)}); err != nil {
		return fmt.Errorf("address %s of task %s: %w", a, task, err)
	}
	if err := h.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("link of task %s up: %w", task, err)
	}
	if err := h.RouteReplace(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("default route of task %s: %w", task, err)
	}
	if i.Address6.IsValid() {
		if err := n.attach6(h, eth0.Attrs().Index, i); err != nil {
			return err
		}
	}
	host, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("host's end of link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(host); err != nil { // the flag given at creation is not honoured together with a master
		return fmt.Errorf("link %s up: %w", name, err)
	}
	return nil
}

// Detach removes the task's link. It is gone with the namespace too, but the kernel takes its time for that.
func (n *Network) Detach(task string) error {
	if err := n.dismiss(task); err != nil {
		return err
	}
	link, err := netlink.LinkByName(n.veth(task))
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) && !isNoDevice(err) {
		return fmt.Errorf("delete link of task %s: %w", task, err)
	}
	return nil
}

func namespace(pid int) (netns.NsHandle, *netlink.Handle, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return ns, nil, fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return ns, nil, errors.Join(fmt.Errorf("netlink in the namespace of process %d: %w", pid, err), ns.Close())
	}
	return ns, h, nil
}

func loopbackUp(h *netlink.Handle) error {
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	return nil
}
