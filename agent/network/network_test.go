package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// space is a network namespace, held by a process that sleeps in it.
type space struct {
	t   testing.TB
	pid int
}

func newSpace(t testing.TB) space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	done := make(chan struct{})
	go func() { // the thread that a process is to end with must live as long as the test
		runtime.LockOSThread()
		started <- cmd.Start()
		<-done
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		close(done)
	})
	s := space{t, cmd.Process.Pid}
	s.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return s
}

// try runs f in the namespace.
func (s space) try(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		ns, err := netns.GetFromPid(s.pid)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

func (s space) do(f func() error) {
	s.t.Helper()
	if err := s.try(f); err != nil {
		s.t.Fatal(err)
	}
}

// serve answers TCP connections at the port with the caller's address.
func (s space) serve(port int) {
	s.t.Helper()
	s.do(func() error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port)) // both families
		if err != nil {
			return err
		}
		s.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		}()
		return nil
	})
}

const bulk = 4 << 20

// serveBulk sends everybody many bytes.
func (s space) serveBulk(port int) {
	s.t.Helper()
	s.do(func() error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		s.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write(make([]byte, bulk)) // the reader counts
				c.Close()
			}
		}()
		return nil
	})
}

// get connects and returns what the other side says: the address that it sees.
func (s space) get(to string) (seen string, err error) {
	err = s.try(func() error {
		c, err := net.DialTimeout("tcp", to, 300*time.Millisecond)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		b, err := io.ReadAll(c)
		seen = string(b)
		return err
	})
	return seen, err
}

// reaches waits until a connection succeeds, and wants the source to be kept.
func (s space) reaches(to, from string) {
	s.t.Helper()
	s.eventually(func() error {
		seen, err := s.get(to)
		if err == nil && from != "" && seen != from {
			err = fmt.Errorf("%s was seen as %s, want %s", to, seen, from)
		}
		return err
	})
}

func (s space) fails(to string) {
	s.t.Helper()
	s.eventually(func() error {
		if seen, err := s.get(to); err == nil {
			return fmt.Errorf("%s answers %s", to, seen)
		}
		return nil
	})
}

func (s space) eventually(check func() error) {
	s.t.Helper()
	limit := time.Now().Add(time.Minute)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			s.t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// output runs a program in the namespace.
func (s space) output(name string, args ...string) string {
	s.t.Helper()
	var out []byte
	s.do(func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
		}
		return nil
	})
	return string(out)
}

// host is a host of tasks with its network.
type host struct {
	space
	cfg Config
	net *Network
}

func newHost(t testing.TB, id string, cfg Config) *host {
	t.Helper()
	h := &host{space: newSpace(t), cfg: cfg}
	h.cfg.ID, h.cfg.Folder, h.cfg.Logger = t.Name()+id, t.TempDir(), slog.New(slog.DiscardHandler)
	h.net = New(h.cfg)
	t.Cleanup(func() { h.do(func() error { return h.net.Down(context.Background()) }) })
	return h
}

func (h *host) up() {
	h.t.Helper()
	h.do(func() error { return h.net.Up(context.Background()) })
}

// task is a namespace with an interface of its own.
func (h *host) task(name string, groups ...string) (space, Interface) {
	h.t.Helper()
	s := newSpace(h.t)
	a, err := h.net.Allocate(name)
	if err != nil {
		h.t.Fatal(err)
	}
	i := Interface{Task: name, Address: a, Own: true, Groups: groups}
	h.do(func() error { return h.net.Attach(context.Background(), i, s.pid) })
	return s, i
}

func (h *host) apply(u *agentapi.Update) {
	h.t.Helper()
	h.do(func() error { return h.net.Apply(context.Background(), u) })
}

// peersOf is the set of peers: these hosts at these addresses.
func peersOf(hosts map[string]*host) *agentapi.Update {
	u := &agentapi.Update{Kind: agentapi.Kind_PEERS, Full: true}
	for address, h := range hosts {
		u.Resources = append(u.Resources, &agentapi.Resource{Name: address, Body: &agentapi.Resource_Peer{Peer: &agentapi.Peer{
			NodeId: address, Address: address, Cidr: h.net.subnet.String(), Mode: h.cfg.Mode, VxlanPort: 4789, VxlanId: 4566, Ipv6: true,
		}}})
	}
	return u
}

func groupsOf(groups ...*agentapi.SecurityGroup) *agentapi.Update {
	u := &agentapi.Update{Kind: agentapi.Kind_FIREWALL, Full: true}
	for _, g := range groups {
		u.Resources = append(u.Resources, &agentapi.Resource{Name: g.Id, Body: &agentapi.Resource_SecurityGroup{SecurityGroup: g}})
	}
	return u
}

// link joins two namespaces by a cable.
func link(a, b space, nameA, addressA, nameB, addressB string) {
	a.t.Helper()
	a.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA, MTU: 1500}, PeerName: nameB, PeerNamespace: netlink.NsPid(b.pid)})
	})
	for _, end := range []struct {
		space
		name, address string
	}{{a, nameA, addressA}, {b, nameB, addressB}} {
		end.do(func() error {
			l, err := netlink.LinkByName(end.name)
			if err != nil {
				return err
			}
			address, err := netlink.ParseAddr(end.address)
			if err != nil {
				return err
			}
			return errors.Join(netlink.AddrAdd(l, address), netlink.LinkSetUp(l))
		})
	}
}

func (s space) route(to, via string) {
	s.t.Helper()
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		s.t.Fatal(err)
	}
	s.do(func() error { return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)}) })
}

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

func TestTasksOfOneHostReachOneAnother(t *testing.T) {
	h := newHost(t, "", Config{})
	h.up()
	one, i := h.task("one")
	two, j := h.task("two")
	two.serve(80)
	one.reaches(at(j.Address, 80), i.Address.String())
	h.reaches(at(j.Address, 80), "")
}

// pair are two hosts whose tasks reach one another: neighbours on a cable, or with a router between them.
func pair(t testing.TB, routed bool, mode string) (a, b *host, peers *agentapi.Update) {
	t.Helper()
	a = newHost(t, "a", Config{Subnet: netip.MustParsePrefix("10.64.0.0/22"), Mode: mode})
	b = newHost(t, "b", Config{Subnet: netip.MustParsePrefix("10.64.4.0/22"), Mode: mode})
	addressB := "192.0.2.2"
	if routed {
		router := newSpace(t)
		router.do(func() error { return writeSysctl("net/ipv4/ip_forward", "1") })
		addressB = "198.51.100.2"
		link(a.space, router, "eth9", "192.0.2.1/24", "left", "192.0.2.254/24")
		link(b.space, router, "eth9", addressB+"/24", "right", "198.51.100.254/24")
		a.route("198.51.100.0/24", "192.0.2.254")
		b.route("192.0.2.0/24", "198.51.100.254")
	} else {
		link(a.space, b.space, "eth9", "192.0.2.1/24", "eth9", addressB+"/24")
	}
	a.up()
	b.up()
	peers = peersOf(map[string]*host{"192.0.2.1": a, addressB: b})
	a.apply(peers)
	b.apply(peers)
	return a, b, peers
}

func TestTasksOfTwoHostsReachOneAnother(t *testing.T) {
	for _, c := range []struct {
		name    string
		routed  bool
		mode    string
		overlay bool
	}{{"neighbours", false, "", false}, {"neighbours with VXLAN", false, ModeVXLAN, true}, {"with a router between", true, "", true}} {
		t.Run(c.name, func(t *testing.T) {
			a, b, _ := pair(t, c.routed, c.mode)
			one, i := a.task("one")
			two, j := b.task("two")
			one.serve(80)
			two.serve(80)
			one.reaches(at(j.Address, 80), i.Address.String())
			two.reaches(at(i.Address, 80), j.Address.String())
			a.reaches(at(j.Address, 80), a.net.Gateway().String()) // the host itself: its proxy, for one
			if devices := a.output("ip", "-br", "link"); strings.Contains(devices, a.net.overlay) != c.overlay {
				t.Errorf("devices:\n%s", devices)
			}
			// More than fits a packet of the overlay: the host tells TCP how much does, and cuts up the rest.
			two.serveBulk(81)
			one.do(func() error {
				c, err := net.DialTimeout("tcp4", at(j.Address, 81), 30*time.Second)
				if err != nil {
					return err
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				if n, err := io.Copy(io.Discard, c); err != nil || n != bulk {
					return fmt.Errorf("read %d of %d bytes: %w", n, bulk, err)
				}
				return nil
			})
		})
	}
}

// TestPeersComeAndGo: what is in the kernel follows the set, whoever has put it there.
func TestPeersComeAndGo(t *testing.T) {
	for _, routed := range []bool{false, true} {
		t.Run(fmt.Sprintf("routed=%v", routed), func(t *testing.T) {
			a, b, peers := pair(t, routed, "")
			one, _ := a.task("one")
			two, j := b.task("two")
			two.serve(80)
			one.reaches(at(j.Address, 80), "")

			// Another process of the same instance, which has heard nothing yet: all is as it was.
			again := New(a.cfg)
			again.Adopt(Interface{Task: "one", Address: a.net.subnet.Addr().Next().Next(), Own: true}, nil)
			a.net = again
			a.up()
			one.reaches(at(j.Address, 80), "")
			two.reaches(at(j.Address, 80), "")

			alone := &agentapi.Update{Kind: agentapi.Kind_PEERS, Full: true, Resources: peers.Resources[:1]}
			if alone.Resources[0].Name != "192.0.2.1" {
				alone.Resources = peers.Resources[1:]
			}
			a.apply(alone)
			one.fails(at(j.Address, 80))
			if left := a.output("ip", "route", "show", "proto", "78"); left != "" {
				t.Errorf("routes are left: %s", left)
			}
			if devices := a.output("ip", "-br", "link"); strings.Contains(devices, a.net.overlay) {
				t.Errorf("the overlay is left:\n%s", devices)
			}
			a.apply(peers)
			one.reaches(at(j.Address, 80), "")

			a.do(func() error { return a.net.Detach("one") })
			a.do(func() error { return a.net.Down(context.Background()) })
			left := a.output("ip", "-br", "link") + a.output("nft", "list", "tables") + a.output("ip", "route")
			if strings.Contains(left, a.net.short) || strings.Contains(left, "10.64.") {
				t.Errorf("left behind:\n%s", left)
			}
		})
	}
}

// TestForeignersStayOut: neither tasks that are nobody's own, nor hosts that are none of the cluster's.
func TestForeignersStayOut(t *testing.T) {
	a, b, _ := pair(t, false, "")
	bridged := newSpace(t)
	address, err := b.net.Allocate("bridged")
	if err != nil {
		t.Fatal(err)
	}
	b.do(func() error {
		return b.net.Attach(context.Background(), Interface{Task: "bridged", Address: address}, bridged.pid)
	})
	bridged.serve(80)
	one, i := a.task("one")
	one.serve(80)
	one.fails(at(address, 80)) // network mode bridge: only its host ports are for others
	bridged.reaches(at(i.Address, 80), "")

	stranger := newSpace(t)
	link(stranger, b.space, "eth0", "203.0.113.1/24", "eth8", "203.0.113.2/24")
	stranger.route("10.64.0.0/16", "203.0.113.2")
	two, j := b.task("two")
	two.serve(80)
	stranger.fails(at(j.Address, 80))
	one.reaches(at(j.Address, 80), "")
}

// TestNobodyHasAnothersAddress: a task that takes its neighbour's address is not heard.
func TestNobodyHasAnothersAddress(t *testing.T) {
	h := newHost(t, "", Config{})
	h.up()
	thief, i := h.task("thief")
	_, j := h.task("owner")
	server, k := h.task("server")
	server.serve(80)
	thief.reaches(at(k.Address, 80), i.Address.String())
	thief.output("ip", "address", "replace", j.Address.String()+"/32", "dev", "eth0")
	thief.output("ip", "route", "replace", "default", "via", h.net.Gateway().String(), "src", j.Address.String())
	thief.output("ip", "route", "replace", h.net.subnet.String(), "via", h.net.Gateway().String(), "src", j.Address.String())
	thief.fails(at(k.Address, 80))
}

func through(protocol, from, to int32, cidr, group string) *agentapi.TrafficRule {
	return &agentapi.TrafficRule{Protocol: protocol, FromPort: from, ToPort: to, Cidr: cidr, Group: group}
}

var everything = []*agentapi.TrafficRule{through(-1, -1, -1, "0.0.0.0/0", "")}

func TestSecurityGroups(t *testing.T) {
	a, b, _ := pair(t, true, "")
	client := &agentapi.SecurityGroup{Id: "sg-client", Egress: everything}
	web := &agentapi.SecurityGroup{Id: "sg-web", Egress: everything}
	set := func(h *host) { h.apply(groupsOf(client, web)) }
	set(a)
	set(b)
	near, i := a.task("near", "sg-client")
	far, j := b.task("far", "sg-client")
	server, k := b.task("server", "sg-web")
	for _, port := range []int{80, 81} {
		server.serve(port)
	}
	client.Members = []string{i.Address.String(), j.Address.String()}
	for _, s := range []space{near, far} {
		s.fails(at(k.Address, 80))
	}
	b.reaches(at(k.Address, 80), "") // whoever is on a host is its operator
	a.reaches(at(k.Address, 80), "")

	// By group and port.
	web.Ingress = []*agentapi.TrafficRule{through(6, 80, 80, "", "sg-client")}
	set(b)
	near.reaches(at(k.Address, 80), i.Address.String())
	far.reaches(at(k.Address, 80), j.Address.String())
	near.fails(at(k.Address, 81))
	// One that leaves the group.
	client.Members = client.Members[:1]
	set(b)
	far.fails(at(k.Address, 80))
	near.reaches(at(k.Address, 80), "")
	// By block.
	web.Ingress = []*agentapi.TrafficRule{through(6, 80, 80, j.Address.String()+"/32", "")}
	set(b)
	far.reaches(at(k.Address, 80), "")
	near.fails(at(k.Address, 80))
	// The way out is the caller's.
	client.Egress = []*agentapi.TrafficRule{through(6, 81, 81, "0.0.0.0/0", "")}
	set(b)
	far.fails(at(k.Address, 80))
	client.Egress = everything
	set(b)
	far.reaches(at(k.Address, 80), "")

	// Another process has the rules from the disk, before it hears anything.
	again := New(b.cfg)
	again.Adopt(j, nil)
	again.Adopt(k, nil)
	b.net = again
	b.up()
	far.reaches(at(k.Address, 80), "")
	near.fails(at(k.Address, 80))
}

// TestEstablishedConnectionsStay: rules are about new ones, as on EC2.
func TestEstablishedConnectionsStay(t *testing.T) {
	h := newHost(t, "", Config{})
	h.up()
	open := &agentapi.SecurityGroup{Id: "sg-1", Egress: everything, Ingress: everything}
	h.apply(groupsOf(open))
	one, _ := h.task("one", "sg-1")
	two, j := h.task("two", "sg-1")
	var l net.Listener
	two.do(func() (err error) { l, err = net.Listen("tcp4", ":80"); return err })
	defer l.Close()
	var c net.Conn
	one.do(func() (err error) { c, err = net.DialTimeout("tcp4", at(j.Address, 80), 30*time.Second); return err })
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	open.Ingress = nil
	h.apply(groupsOf(open))
	one.fails(at(j.Address, 80))
	_ = s.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(s, b); err != nil || string(b) != "hello" {
		t.Errorf("an established connection: %q, %v", b, err)
	}
}

// TestAttachWaitsForRules: the first packet of a task meets them.
func TestAttachWaitsForRules(t *testing.T) {
	h := newHost(t, "", Config{})
	h.up()
	s := newSpace(t)
	a, err := h.net.Allocate("one")
	if err != nil {
		t.Fatal(err)
	}
	attached := make(chan error, 1)
	go func() {
		attached <- h.try(func() error {
			return h.net.Attach(context.Background(), Interface{Task: "one", Address: a, Own: true, Groups: []string{"sg-1"}}, s.pid)
		})
	}()
	select {
	case err := <-attached:
		t.Fatalf("attached without rules: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	h.apply(groupsOf(&agentapi.SecurityGroup{Id: "sg-1"}))
	if err := <-attached; err != nil {
		t.Fatal(err)
	}
}
