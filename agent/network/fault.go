package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// A fault of a task lives in the network namespace that it concerns, which is the task's or, with network mode host, the host's: a table there
// (faultrules.go), and for netem a qdisc (netem.go). The table says that the fault runs; nobody else keeps that. It is made last and goes last, so
// that what a crash leaves is never a fault that nobody can end.

// Namespace is a network namespace in which faults are.
type Namespace struct {
	ns netns.NsHandle // none: this process's own
	h  *netlink.Handle
}

// OpenNamespace opens that of a process, if it is the right one: a number that was looked up may be another process's by now.
func OpenNamespace(pid int, check func() error) (*Namespace, error) {
	ns, h, err := namespace(pid)
	if err != nil {
		return nil, err
	}
	s := &Namespace{ns, h}
	if err := check(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// HostNamespace is this process's own.
func HostNamespace() (*Namespace, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return &Namespace{netns.None(), h}, nil
}

// Close releases it.
func (s *Namespace) Close() {
	s.h.Close()
	if s.ns.IsOpen() {
		s.ns.Close()
	}
}

func (s *Namespace) tables() (*nftables.Conn, error) {
	var opts []nftables.ConnOption
	if s.ns.IsOpen() {
		opts = append(opts, nftables.WithNetNSFd(int(s.ns)))
	}
	c, err := nftables.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return c, nil
}

// outward are the devices that lead out of a namespace.
func (s *Namespace) outward() (links []netlink.Link, err error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if family == netlink.FAMILY_V6 && lacksIPv6() != "" {
			continue
		}
		routes, err := whole(func() ([]netlink.Route, error) { return s.h.RouteList(nil, family) })
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			known := slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Index == r.LinkIndex })
			if r.Dst != nil && !r.Dst.IP.IsUnspecified() || r.LinkIndex == 0 || known {
				continue
			}
			l, err := s.h.LinkByIndex(r.LinkIndex)
			if err != nil {
				return nil, fmt.Errorf("device of the default route: %w", err)
			}
			links = append(links, l)
		}
	}
	if len(links) == 0 {
		return nil, errors.New("no device leads out of the task's network")
	}
	return links, nil
}

const faultPrefix = "neargate-fault-"

// faultsOf begins the names of the tables of a task's faults; an empty one: of all this instance's.
func (n *Network) faultsOf(task string) string {
	if task == "" {
		return faultPrefix + n.short + "-"
	}
	return faultPrefix + n.short + "-" + task + "-"
}

// faultName tells the faults of a task apart.
func faultName(f runtime.Fault) string {
	if f.Kind != runtime.BlackholePort {
		return string(f.Kind)
	}
	way := "egress"
	if f.Ingress {
		way = "ingress"
	}
	return fmt.Sprintf("%s-%s-%d", way, f.Protocol, f.Port)
}

// impairs is the kind of a table's fault, if it is one of those of which a network has one at a time.
func impairs(table string) (runtime.FaultKind, bool) {
	for _, kind := range []runtime.FaultKind{runtime.Latency, runtime.PacketLoss} {
		if strings.HasPrefix(table, faultPrefix) && strings.HasSuffix(table, "-"+string(kind)) {
			return kind, true
		}
	}
	return "", false
}

// StartFault starts a fault of a task in a namespace: a *runtime.FaultRuns or a *runtime.CannotDelay, or another error.
func (n *Network) StartFault(s *Namespace, task string, f runtime.Fault) error {
	n.faults.Lock()
	defer n.faults.Unlock()
	c, err := s.tables()
	if err != nil {
		return err
	}
	tables, err := c.ListTables()
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	t := &nftables.Table{Name: n.faultsOf(task) + faultName(f), Family: nftables.TableFamilyINet}
	for _, have := range tables {
		kind, impairs := impairs(have.Name)
		switch {
		case f.Kind == runtime.BlackholePort && have.Name == t.Name:
			return nil
		case f.Kind != runtime.BlackholePort && impairs: // with network mode host perhaps another task's, and a device has one root
			return &runtime.FaultRuns{Kind: kind}
		}
	}
	if f.Kind == runtime.BlackholePort {
		blackhole(c, t, f)
	} else if err := s.impair(c, t, f); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		err = fmt.Errorf("nftables for %s: %w", f.Kind, err)
		if f.Kind != runtime.BlackholePort {
			err = errors.Join(err, s.removeNetem())
		}
		return err
	}
	return nil
}

// impair has netem impair packets, or what else can.
func (s *Namespace) impair(c *nftables.Conn, t *nftables.Table, f runtime.Fault) error {
	links, err := s.outward()
	if err != nil {
		return err
	}
	err = s.addNetem(links, f)
	switch {
	case errors.Is(err, unix.ENOENT) && f.Kind == runtime.PacketLoss: // the kernel knows no such qdisc
		t.Family = nftables.TableFamilyNetdev
		impairment(c, t, links, f, lose(f.Loss))
	case errors.Is(err, unix.ENOENT):
		return &runtime.CannotDelay{Err: err}
	case err != nil:
		return err
	default:
		impairment(c, t, links, f, intoNetem())
	}
	return nil
}

// HasFault says whether a fault of a task runs in a namespace.
func (n *Network) HasFault(s *Namespace, task string, f runtime.Fault) (bool, error) {
	c, err := s.tables()
	if err != nil {
		return false, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == n.faultsOf(task)+faultName(f) }), nil
}

// StopFault ends a fault of a task in a namespace.
func (n *Network) StopFault(s *Namespace, task string, f runtime.Fault) error {
	return n.endFaults(s, func(table string) bool { return table == n.faultsOf(task)+faultName(f) })
}

// EndFaults ends what a task has of faults in the host's own namespace; those in the task's go with it. An empty task: all of this instance.
func (n *Network) EndFaults(task string) error {
	s, err := HostNamespace()
	if err != nil {
		return err
	}
	defer s.Close()
	return n.endFaults(s, func(table string) bool { return strings.HasPrefix(table, n.faultsOf(task)) })
}

func (n *Network) endFaults(s *Namespace, which func(table string) bool) error {
	n.faults.Lock()
	defer n.faults.Unlock()
	c, err := s.tables()
	if err != nil {
		return err
	}
	tables, err := c.ListTables()
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	ends := false
	for _, t := range tables {
		if !which(t.Name) {
			continue
		}
		if _, impairs := impairs(t.Name); impairs {
			if err := s.removeNetem(); err != nil {
				return err
			}
		}
		c.DelTable(t)
		ends = true
	}
	if !ends {
		return nil
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("end faults: %w", err)
	}
	return nil
}

// CheckFaults says what this host lacks for faults.
func CheckFaults(context.Context) []string { return Check() }
