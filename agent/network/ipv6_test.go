package network

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/addressing"
)

// needsIPv6 leaves out what a kernel without IPv6 can not do.
func needsIPv6(t *testing.T) {
	t.Helper()
	if why := lacksIPv6(); why != "" && os.Geteuid() == 0 {
		t.Skip(why)
	}
}

// dualTask is a task with addresses of both families.
func (h *host) dualTask(name string, groups ...string) (space, Interface) {
	h.t.Helper()
	s := newSpace(h.t)
	a, err := h.net.Allocate(name)
	if err != nil {
		h.t.Fatal(err)
	}
	i := Interface{Task: name, Address: a, Own: true, Groups: groups}
	h.do(func() error {
		i.Address6 = h.net.IPv6(context.Background(), a)
		return h.net.Attach(context.Background(), i, s.pid)
	})
	return s, i
}

func TestTasksReachOneAnotherOverIPv6(t *testing.T) {
	needsIPv6(t)
	for _, c := range []struct {
		name   string
		routed bool
		mode   string
	}{{"neighbours", false, ""}, {"neighbours with VXLAN", false, ModeVXLAN}, {"with a router between", true, ""}} {
		t.Run(c.name, func(t *testing.T) {
			a, b, _ := pair(t, c.routed, c.mode)
			if left := a.output("ip", "-6", "address", "show", "dev", a.net.bridge, "scope", "global"); left != "" {
				t.Errorf("a host whose tasks have no IPv6 addresses has %s", left)
			}
			one, i := a.dualTask("one")
			near, k := a.dualTask("near")
			two, j := b.dualTask("two")
			for _, s := range []space{one, near, two} {
				s.serve(80)
			}
			one.reaches(at(j.Address6, 80), i.Address6.String())
			two.reaches(at(i.Address6, 80), j.Address6.String())
			one.reaches(at(k.Address6, 80), i.Address6.String()) // on the same host
			one.reaches(at(j.Address, 80), i.Address.String())
			a.reaches(at(j.Address6, 80), ipv6.host(a.net.subnet).String()) // the host itself
			if devices := a.output("ip", "-br", "link"); strings.Contains(devices, a.net.overlay) != (c.routed || c.mode == ModeVXLAN) {
				t.Errorf("devices:\n%s", devices)
			}
			// More than fits a packet of the overlay.
			two.serveBulk(81)
			one.do(func() error {
				c, err := net.DialTimeout("tcp6", at(j.Address6, 81), 30*time.Second)
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

			// Another process of the same instance, which has heard nothing yet: all is as it was.
			again := New(a.cfg)
			again.Adopt(i, nil)
			again.Adopt(k, nil)
			a.net = again
			a.up()
			one.reaches(at(j.Address6, 80), "")
			two.reaches(at(i.Address6, 80), "")
			for _, task := range []string{"one", "near"} {
				a.do(func() error { return a.net.Detach(task) })
			}
			a.do(func() error { return a.net.Down(context.Background()) })
			left := a.output("ip", "-br", "link") + a.output("nft", "list", "tables") + a.output("ip", "-6", "route") + a.output("ip", "-6", "neigh") + a.output("ip", "-6", "address")
			for _, word := range []string{a.net.short, "fd8e:", "a40:1/64", "proto 78"} {
				if strings.Contains(left, word) {
					t.Errorf("left behind:\n%s", left)
				}
			}
			if f := strings.TrimSpace(a.output("cat", "/proc/sys/net/ipv6/conf/all/forwarding") + a.output("cat", "/proc/sys/net/ipv6/conf/eth9/accept_ra")); f != "0\n1" {
				t.Errorf("forwarding, and what the link takes from routers, are %q afterwards", f)
			}
		})
	}
}

func TestSecurityGroupsHoldForIPv6(t *testing.T) {
	needsIPv6(t)
	a, b, _ := pair(t, false, "")
	all := append([]*agentapi.TrafficRule{through(-1, -1, -1, "::/0", "")}, everything...)
	client, web := &agentapi.SecurityGroup{Id: "sg-client", Egress: all}, &agentapi.SecurityGroup{Id: "sg-web", Egress: all}
	set := func() {
		for _, h := range []*host{a, b} {
			h.apply(groupsOf(client, web))
		}
	}
	set()
	far, i := a.dualTask("far", "sg-client")
	near, j := b.dualTask("near", "sg-client")
	server, k := b.dualTask("server", "sg-web")
	server.serve(80)
	client.Members = []string{i.Address.String(), i.Address6.String(), j.Address.String(), j.Address6.String()}
	for _, s := range []space{near, far} {
		s.fails(at(k.Address6, 80))
	}
	a.reaches(at(k.Address6, 80), "") // whoever is on a host is its operator
	web.Ingress = []*agentapi.TrafficRule{through(6, 80, 80, "", "sg-client")}
	set()
	near.reaches(at(k.Address6, 80), j.Address6.String())
	far.reaches(at(k.Address6, 80), i.Address6.String())
	// A rule for a block is about one family.
	web.Ingress = []*agentapi.TrafficRule{through(6, 80, 80, "0.0.0.0/0", "")}
	set()
	far.fails(at(k.Address6, 80))
	far.reaches(at(k.Address, 80), "")
	web.Ingress = []*agentapi.TrafficRule{through(6, 80, 80, i.Address6.String()+"/128", "")}
	set()
	far.reaches(at(k.Address6, 80), "")
	far.fails(at(k.Address, 80))
	near.fails(at(k.Address6, 80))
	// The way out is the caller's.
	client.Egress = everything
	set()
	far.fails(at(k.Address6, 80))
}

// TestNobodyHasAnothersIPv6Address: neither an address taken, nor one that is nobody's, is heard.
func TestNobodyHasAnothersIPv6Address(t *testing.T) {
	needsIPv6(t)
	h := newHost(t, "", Config{})
	h.up()
	thief, i := h.dualTask("thief")
	_, j := h.dualTask("owner")
	plain, _ := h.task("plain")
	server, k := h.dualTask("server")
	server.serve(80)
	gateway := ipv6.host(h.net.subnet).String()
	thief.reaches(at(k.Address6, 80), i.Address6.String())
	// One that was given none has none by itself.
	none := addressing.Address6(h.net.subnet, h.net.subnet.Addr().Next().Next().Next().Next().Next().Next().Next())
	plain.output("ip", "address", "add", none.String()+"/128", "dev", "eth0", "nodad")
	plain.output("ip", "route", "add", gateway, "dev", "eth0")
	plain.output("ip", "route", "add", "default", "via", gateway)
	plain.fails(at(k.Address6, 80))
	thief.output("ip", "address", "del", i.Address6.String()+"/128", "dev", "eth0")
	thief.output("ip", "address", "add", j.Address6.String()+"/128", "dev", "eth0", "nodad")
	thief.fails(at(k.Address6, 80))
}
