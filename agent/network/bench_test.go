package network

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// BenchmarkTCP carries bytes between two namespaces over a cable, and between tasks of two hosts that the same cable joins: by a plain
// route, with security groups, and through VXLAN. Besides the throughput it says what processor time, of both ends and all between, a
// gigabyte takes, as far as the kernel counts it to the process.
func BenchmarkTCP(b *testing.B) {
	b.Run("cable", func(b *testing.B) {
		one, two := newSpace(b), newSpace(b)
		link(one, two, "eth0", "192.0.2.1/24", "eth0", "192.0.2.2/24")
		carry(b, one, two, "192.0.2.2:9000")
	})
	for _, c := range []struct {
		name, mode string
		groups     bool
	}{{"route", "", false}, {"route and security groups", "", true}, {"VXLAN", ModeVXLAN, false}, {"VXLAN and security groups", ModeVXLAN, true}} {
		b.Run(c.name, func(b *testing.B) {
			one, two, _ := pair(b, false, c.mode)
			var ids []string
			if c.groups {
				// Sixty rules, the last of which matches, for a group with a thousand members.
				g := &agentapi.SecurityGroup{Id: "sg-1", Egress: everything}
				for i := range 59 {
					g.Ingress = append(g.Ingress, through(6, int32(i+1), int32(i+1), fmt.Sprintf("10.%d.0.0/16", i+128), ""))
				}
				g.Ingress = append(g.Ingress, through(6, 9000, 9000, "", "sg-1"))
				for i := range 1000 {
					g.Members = append(g.Members, fmt.Sprintf("10.64.%d.%d", i/250, i%250+1), fmt.Sprintf("10.64.%d.%d", 4+i/250, i%250+1))
				}
				one.apply(groupsOf(g))
				two.apply(groupsOf(g))
				ids = []string{"sg-1"}
			}
			from, _ := one.task("one", ids...)
			to, i := two.task("two", ids...)
			carry(b, from, to, at(i.Address, 9000))
		})
	}
}

func carry(b *testing.B, from, to space, address string) {
	b.Helper()
	_, port, _ := net.SplitHostPort(address)
	var l net.Listener
	to.do(func() (err error) { l, err = net.Listen("tcp4", ":"+port); return err })
	defer l.Close()
	received := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			received <- -1
			return
		}
		defer c.Close()
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 1<<18)) // what is missing is counted
		received <- n
	}()
	var c net.Conn
	from.do(func() (err error) { c, err = net.DialTimeout("tcp4", address, 5*time.Second); return err })
	const chunk = 1 << 20
	buffer := make([]byte, chunk)
	b.SetBytes(chunk)
	before := cpu(b)
	b.ResetTimer()
	for range b.N {
		if _, err := c.Write(buffer); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
	if n := <-received; n != int64(b.N)*chunk {
		b.Fatalf("%d of %d bytes arrived", n, int64(b.N)*chunk)
	}
	b.StopTimer()
	b.ReportMetric((cpu(b)-before).Seconds()*1000/float64(b.N)*1024, "cpu-ms/GiB")
}

func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFilter is what a host spends on a change of members, of tasks, and of rules, with a hundred tasks in fifty combinations of groups.
func BenchmarkFilter(b *testing.B) {
	h := newHost(b, "", Config{})
	h.up()
	var groups []*agentapi.SecurityGroup
	for i := range 50 {
		g := &agentapi.SecurityGroup{Id: fmt.Sprintf("sg-%d", i), Egress: everything}
		for k := range 20 {
			g.Ingress = append(g.Ingress, through(6, int32(k+1), int32(k+1), "", g.Id))
		}
		for k := range 200 {
			g.Members = append(g.Members, fmt.Sprintf("10.65.%d.%d", i, k+1))
		}
		groups = append(groups, g)
	}
	h.apply(groupsOf(groups...))
	for i := range 100 {
		a, err := h.net.Allocate(fmt.Sprint(i))
		if err != nil {
			b.Fatal(err)
		}
		h.net.interfaces[a] = Interface{Task: fmt.Sprint(i), Address: a, Own: true, Groups: []string{groups[i%50].Id}}
	}
	h.apply(groupsOf(groups...))
	for name, change := range map[string]func(i int){
		"member": func(i int) { groups[0].Members[0] = fmt.Sprintf("10.66.%d.%d", i/250%250, i%250+1) },
		"task": func(i int) {
			a := netip.MustParseAddr("10.67.0.1")
			if delete(h.net.interfaces, a); i%2 == 0 {
				h.net.interfaces[a] = Interface{Task: "new", Address: a, Own: true, Groups: []string{groups[0].Id}}
			}
		},
		"rule": func(i int) { groups[0].Ingress[0].ToPort = int32(i%60000 + 1) },
	} {
		b.Run(name, func(b *testing.B) {
			h.do(func() error {
				for i := range b.N {
					change(i)
					if err := h.net.filter(); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}
