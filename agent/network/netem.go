package network

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	driver "github.com/seed-2f228079/neargate/agent/runtime"
)

// Under netem's root, a qdisc of three bands, all packets take the last one but those that the fault's table gives the priority of netem's class:
// a class's number as a packet's priority is what the qdisc goes by before anything else. So the table says which packets are concerned, whatever
// is done to them.
const (
	faultRoot  = 0x4e47 // major numbers of handles by which the two are known as ours
	faultNetem = 0x4e48
)

var netemClass = netlink.MakeHandle(faultRoot, 1)

// intoNetem is how the table's packets get there.
func intoNetem() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(netemClass)},
		&expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: 1},
	}
}

// netemQdiscs are what a fault takes on a device, the root first.
func netemQdiscs(link int, f driver.Fault) []netlink.Qdisc {
	root := netlink.NewPrio(netlink.QdiscAttrs{LinkIndex: link, Handle: netlink.MakeHandle(faultRoot, 0), Parent: netlink.HANDLE_ROOT})
	for i := range root.PriorityMap {
		root.PriorityMap[i] = 2
	}
	what := netlink.NetemQdiscAttrs{Loss: float32(f.Loss)}
	if f.Kind == driver.Latency {
		what = netlink.NetemQdiscAttrs{Latency: uint32(f.Delay / time.Microsecond), Jitter: uint32(f.Jitter / time.Microsecond)}
	}
	netem := netlink.NewNetem(netlink.QdiscAttrs{LinkIndex: link, Handle: netlink.MakeHandle(faultNetem, 0), Parent: netemClass}, what)
	if f.Kind == driver.Latency && f.Delay == 0 {
		netem.Jitter = uint32(float64(netem.Jitter) * netlink.TickInUsec()) // the library does that only beside a delay
	}
	return []netlink.Qdisc{root, netem}
}

// addNetem puts a fault's qdiscs on devices, or none: ENOENT when the kernel does not know them. A root of somebody else's is not replaced.
func (s *Namespace) addNetem(links []netlink.Link, f driver.Fault) error {
	if err := s.removeNetem(); err != nil { // what a crash has left: no table says that a fault runs
		return err
	}
	for _, l := range links {
		for _, q := range netemQdiscs(l.Attrs().Index, f) {
			if err := s.h.QdiscAdd(q); err != nil {
				return errors.Join(fmt.Errorf("add qdisc %s to device %s: %w", q.Type(), l.Attrs().Name, err), s.removeNetem())
			}
		}
	}
	return nil
}

// removeNetem takes ours off all devices of the namespace.
func (s *Namespace) removeNetem() error {
	list, err := whole(func() ([]netlink.Qdisc, error) { return s.h.QdiscList(nil) })
	if err != nil {
		return fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range list {
		a := q.Attrs()
		if a.Handle != netlink.MakeHandle(faultRoot, 0) || a.Parent != netlink.HANDLE_ROOT {
			continue
		}
		root := &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: a.LinkIndex, Handle: a.Handle, Parent: a.Parent}, QdiscType: q.Type()}
		if err := s.h.QdiscDel(root); err != nil && !errors.Is(err, unix.ENOENT) && !isNoDevice(err) {
			return fmt.Errorf("remove qdisc of a fault: %w", err)
		}
	}
	return nil
}

// HasNetem says whether this host's kernel can delay packets: it tries, in a network namespace that goes at once.
func HasNetem() bool {
	has := make(chan bool, 1)
	go func() {
		runtime.LockOSThread() // the thread goes with its namespace
		has <- func() bool {
			if unix.Unshare(unix.CLONE_NEWNET) != nil {
				return false
			}
			s, err := HostNamespace()
			if err != nil {
				return false
			}
			defer s.Close()
			lo, err := s.h.LinkByName("lo")
			return err == nil && s.addNetem([]netlink.Link{lo}, driver.Fault{Kind: driver.Latency, Delay: time.Millisecond}) == nil
		}()
	}()
	return <-has
}
