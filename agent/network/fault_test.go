package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	driver "github.com/seed-2f228079/neargate/agent/runtime"
)

// faulty is a task's network in which faults are tried.
func faulty(t *testing.T, s space, n *Network, task string) (start func(driver.Fault) error, stop func(driver.Fault), has func(driver.Fault) bool) {
	t.Helper()
	in, err := OpenNamespace(s.pid, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	start = func(f driver.Fault) error { return n.StartFault(in, task, f) }
	stop = func(f driver.Fault) {
		t.Helper()
		if err := n.StopFault(in, task, f); err != nil {
			t.Error(err)
		}
	}
	has = func(f driver.Fault) bool {
		t.Helper()
		runs, err := n.HasFault(in, task, f)
		if err != nil {
			t.Error(err)
		}
		return runs
	}
	return start, stop, has
}

// faultTables are those that are in a namespace.
func faultTables(s space) (names []string) {
	s.t.Helper()
	s.do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		for _, t := range tables {
			names = append(names, t.Name)
		}
		return err
	})
	return names
}

func host4(a string) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(a), 32)}
}

// datagrams sends so many from one namespace to an address and counts how many come. The sender is told of no loss.
func datagrams(t *testing.T, from, to space, address string, sent int, flows bool) (came int) {
	t.Helper()
	var receiver *net.UDPConn
	to.do(func() (err error) {
		receiver, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(address)})
		if err != nil {
			return err
		}
		raw, err := receiver.SyscallConn()
		if err != nil {
			return err
		}
		var forced error
		err = raw.Control(func(fd uintptr) { // room for all, whatever the host's limit is
			forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		})
		return errors.Join(err, forced)
	})
	defer receiver.Close()
	from.do(func() error {
		var c net.Conn
		for i := range sent {
			if c == nil || flows {
				if c != nil {
					c.Close()
				}
				var err error
				if c, err = net.Dial("udp", receiver.LocalAddr().String()); err != nil {
					return err
				}
			}
			if _, err := fmt.Fprint(c, i); err != nil {
				return fmt.Errorf("a sender is told of what is lost: %w", err)
			}
		}
		return c.Close()
	})
	// What came is in the socket's buffer: sending across a veth delivers, unless the kernel leaves that to a thread that has to wait for its turn.
	b := make([]byte, 16)
	for {
		if err := receiver.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := receiver.Read(b); errors.Is(err, os.ErrDeadlineExceeded) {
			return came
		} else if err != nil {
			t.Fatal(err)
		}
		came++
	}
}

func TestBlackHoleOfAPort(t *testing.T) {
	h := newHost(t, "", Config{})
	h.up()
	one, i := h.task("one")
	two, j := h.task("two")
	three, _ := h.task("three")
	two.serve(80)
	two.serve(81)
	start, stop, has := faulty(t, two, h.net, "two")
	ingress := driver.Fault{Kind: driver.BlackholePort, Protocol: "tcp", Port: 80, Ingress: true, Spared: []netip.Prefix{netip.PrefixFrom(i.Address, 32)}}
	for range 2 {
		if err := start(ingress); err != nil {
			t.Fatal(err)
		}
	}
	three.fails(at(j.Address, 80))
	three.reaches(at(j.Address, 81), "")
	one.reaches(at(j.Address, 80), "") // is spared
	udp := ingress
	udp.Protocol = "udp"
	if !has(ingress) || has(udp) {
		t.Errorf("running: tcp %v, udp %v", has(ingress), has(udp))
	}
	stop(ingress)
	stop(ingress)
	three.reaches(at(j.Address, 80), "")

	start, stop, _ = faulty(t, one, h.net, "one")
	egress := driver.Fault{Kind: driver.BlackholePort, Protocol: "tcp", Port: 80}
	other := driver.Fault{Kind: driver.BlackholePort, Protocol: "tcp", Port: 81, Metadata: netip.AddrPortFrom(j.Address, 81)}
	if err := errors.Join(start(egress), start(other)); err != nil {
		t.Fatal(err)
	}
	one.fails(at(j.Address, 80))
	one.reaches(at(j.Address, 81), "") // there is the metadata
	stop(egress)
	one.reaches(at(j.Address, 80), "")
	stop(other)
	for _, s := range []space{one, two} {
		if left := faultTables(s); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// Shown with netem where the kernel has it, and otherwise with what takes its place.
func TestPacketLoss(t *testing.T) {
	h := newHost(t, "", Config{})
	h.up()
	one, _ := h.task("one")
	two, j := h.task("two")
	start, stop, has := faulty(t, one, h.net, "one")
	f := driver.Fault{Kind: driver.PacketLoss, Loss: 30, Flows: 100, Sources: host4(j.Address.String())}
	if err := start(f); err != nil {
		t.Fatal(err)
	}
	var runs *driver.FaultRuns
	if err := start(f); !errors.As(err, &runs) || err.Error() != "There is already one network packet loss fault running" {
		t.Errorf("a second one: %v", err)
	}
	if err := start(driver.Fault{Kind: driver.Latency, Delay: time.Second, Flows: 100, Sources: f.Sources}); !errors.As(err, &runs) {
		t.Errorf("latency besides: %v", err)
	}
	// Of 1,000 packets 300 are lost, give or take seven standard deviations.
	if came := datagrams(t, one, two, j.Address.String(), 1000, false); came < 600 || came > 800 {
		t.Errorf("%d of 1,000 packets came", came)
	}
	if !has(f) {
		t.Error("it does not run")
	}
	stop(f)

	f.Loss, f.Flows = 100, 40
	if err := start(f); err != nil {
		t.Fatal(err)
	}
	if came := datagrams(t, one, two, j.Address.String(), 1000, true); came < 490 || came > 710 {
		t.Errorf("%d of 1,000 flows came", came)
	}
	if came := datagrams(t, one, two, j.Address.String(), 50, false); came != 0 && came != 50 {
		t.Errorf("%d of the 50 packets of one flow came", came)
	}
	stop(f)

	f.Flows, f.Sources, f.Spared = 100, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, host4(j.Address.String())
	two.serve(80)
	if err := start(f); err != nil {
		t.Fatal(err)
	}
	one.reaches(at(j.Address, 80), "") // is spared
	h.serve(90)
	one.fails(at(h.net.Gateway(), 90))
	f.Metadata = netip.AddrPortFrom(h.net.Gateway(), 90)
	stop(f)
	if err := start(f); err != nil {
		t.Fatal(err)
	}
	one.reaches(at(h.net.Gateway(), 90), "")
	stop(f)
	if left := faultTables(one); len(left) > 0 || has(f) {
		t.Errorf("left behind: %v", left)
	}
}

// A kernel that cannot delay packets says so, and nothing is left of the attempt.
func TestLatency(t *testing.T) {
	h := newHost(t, "", Config{})
	h.up()
	one, _ := h.task("one")
	two, j := h.task("two")
	two.serve(80)
	start, stop, has := faulty(t, one, h.net, "one")
	f := driver.Fault{Kind: driver.Latency, Delay: 400 * time.Millisecond, Flows: 100, Sources: host4(j.Address.String())}
	err := start(f)
	t.Logf("the kernel has netem: %v", HasNetem())
	if !HasNetem() {
		var cannot *driver.CannotDelay
		if !errors.As(err, &cannot) || has(f) || len(faultTables(one)) > 0 {
			t.Errorf("%v, running %v, tables %v", err, has(f), faultTables(one))
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	one.fails(at(j.Address, 80)) // within 300 ms
	h.serve(90)
	one.reaches(at(h.net.Gateway(), 90), "")
	stop(f)
	one.reaches(at(j.Address, 80), "")
	if left := faultTables(one); len(left) > 0 || has(f) {
		t.Errorf("left behind: %v", left)
	}
}

// With network mode host the faults of a task end with it, and those of its neighbours go on; nothing is left of an instance that goes.
func TestFaultsOfTheHostsNetwork(t *testing.T) {
	h := newHost(t, "", Config{})
	link(h.space, newSpace(t), "eth9", "192.0.2.1/24", "eth9", "192.0.2.2/24")
	h.route("0.0.0.0/0", "192.0.2.2")
	h.up()
	before := len(faultTables(h.space))
	hole := driver.Fault{Kind: driver.BlackholePort, Protocol: "udp", Port: 53}
	lossy := driver.Fault{Kind: driver.PacketLoss, Loss: 1, Flows: 50, Sources: host4("198.51.100.1")}
	h.do(func() error {
		s, err := HostNamespace()
		if err != nil {
			return err
		}
		defer s.Close()
		err = errors.Join(h.net.StartFault(s, "a", hole), h.net.StartFault(s, "b", hole), h.net.StartFault(s, "b", lossy))
		var runs *driver.FaultRuns
		if conflict := h.net.StartFault(s, "a", lossy); !errors.As(conflict, &runs) {
			err = errors.Join(err, fmt.Errorf("a second loss on one device: %v", conflict))
		}
		err = errors.Join(err, h.net.StopFault(s, "a", lossy)) // is not its own
		if runs, has := h.net.HasFault(s, "b", lossy); !runs {
			err = errors.Join(err, has, errors.New("a neighbour's fault has ended"))
		}
		return errors.Join(err, h.net.EndFaults("a"))
	})
	if got := len(faultTables(h.space)); got != before+2 {
		t.Errorf("%d tables, not those of b: %v", got-before, faultTables(h.space))
	}
	h.do(func() error { return h.net.EndFaults("") })
	if got := faultTables(h.space); len(got) != before {
		t.Errorf("left behind: %v", got)
	}
}

// What a kernel with netem is told.
func TestNetemQdiscs(t *testing.T) {
	prio := &netlink.Prio{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: 7, Handle: 0x4e470000, Parent: netlink.HANDLE_ROOT}, Bands: 3,
		PriorityMap: [16]uint8{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}}
	attrs := netlink.QdiscAttrs{LinkIndex: 7, Handle: 0x4e480000, Parent: 0x4e470001}
	ticks := func(d time.Duration) uint32 { return uint32(float64(d.Microseconds()) * netlink.TickInUsec()) }
	for _, c := range []struct {
		what string
		f    driver.Fault
		want *netlink.Netem
	}{
		{"delay 200ms 10ms", driver.Fault{Kind: driver.Latency, Delay: 200 * time.Millisecond, Jitter: 10 * time.Millisecond},
			&netlink.Netem{QdiscAttrs: attrs, Limit: 1000, Latency: ticks(200 * time.Millisecond), Jitter: ticks(10 * time.Millisecond)}},
		{"delay 0ms 10ms", driver.Fault{Kind: driver.Latency, Jitter: 10 * time.Millisecond}, &netlink.Netem{QdiscAttrs: attrs, Limit: 1000, Jitter: ticks(10 * time.Millisecond)}},
		{"the longest delay", driver.Fault{Kind: driver.Latency, Delay: driver.MaxDelay}, &netlink.Netem{QdiscAttrs: attrs, Limit: 1000, Latency: ticks(driver.MaxDelay)}},
		{"loss 6%", driver.Fault{Kind: driver.PacketLoss, Loss: 6}, &netlink.Netem{QdiscAttrs: attrs, Limit: 1000, Loss: netlink.Percentage2u32(6)}},
		{"loss 100%", driver.Fault{Kind: driver.PacketLoss, Loss: 100}, &netlink.Netem{QdiscAttrs: attrs, Limit: 1000, Loss: netlink.Percentage2u32(100)}},
	} {
		if diff := cmp.Diff([]netlink.Qdisc{prio, c.want}, netemQdiscs(7, c.f)); diff != "" {
			t.Errorf("%s: %s", c.what, diff)
		}
	}
	if float64(driver.MaxDelay.Microseconds())*netlink.TickInUsec() >= 1<<32 {
		t.Error("the longest delay is more than the kernel takes")
	}
	for text, want := range map[string]bool{"neargate-fault-0-t-network-latency": true, "neargate-fault-0-t-network-packet-loss": true, "neargate-fault-0-t-egress-tcp-1": false, "x-network-latency": false} {
		if _, got := impairs(text); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
