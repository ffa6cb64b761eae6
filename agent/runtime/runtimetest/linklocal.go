package runtimetest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

const linkLocalURL = "http://169.254.170.2/"

// linkLocal has two hosts at the same link-local address, each for its own tasks, and one of them anew. Where this process may not change
// the host's network there is no such address.
func (s *suite) linkLocal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ctx := context.Background()
	listen := func(h *host, name string) net.Listener {
		l, err := h.LinkLocal(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Addr().String(); got != "169.254.170.2:80" {
			t.Errorf("it listens at %s", got)
		}
		go (&http.Server{ReadTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			from, _ := netip.ParseAddrPort(r.RemoteAddr)
			_, _ = fmt.Fprintf(w, "%s to %s", name, from.Addr())
		})}).Serve(l)
		t.Cleanup(func() { l.Close() })
		return l
	}
	asks := func(h *host, task runtime.Task, want string) {
		t.Helper()
		if code, out := h.exec(task, "/prog", "get", linkLocalURL); code != 0 || out != want+"\n" {
			t.Errorf("exit code %d, output %q, want %q", code, out, want)
		}
	}
	var hosts [2]*host
	var tasks [2]runtime.Task
	var boxes [2]runtime.Sandbox
	var first net.Listener
	for i := range hosts {
		hosts[i] = s.host(t)
		l := listen(hosts[i], fmt.Sprint("host ", i))
		if i == 0 {
			first = l
		}
		tasks[i], boxes[i] = hosts[i].task("awsvpc", command("wait"))
		hosts[i].start(tasks[i], "main")
	}
	for i := range hosts {
		asks(hosts[i], tasks[i], fmt.Sprintf("host %d to %s", i, boxes[i].Address))
	}
	// The address is there again for tasks that a later process takes over.
	first.Close()
	if err := hosts[0].Close(ctx, false); err != nil {
		t.Fatal(err)
	}
	s.reopen(t, hosts[0])
	listen(hosts[0], "host 0 anew")
	asks(hosts[0], tasks[0], "host 0 anew to "+boxes[0].Address)
	asks(hosts[1], tasks[1], "host 1 to "+boxes[1].Address)
	if err := hosts[0].Remove(ctx, tasks[0].ID); err != nil {
		t.Error(err)
	}
	asks(hosts[1], tasks[1], "host 1 to "+boxes[1].Address)
}

// instanceMetadata has a host that offers credentials at 169.254.169.254, as those of clouds do: tasks do not get there, though they reach
// the host's other addresses.
func (s *suite) instanceMetadata(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ctx := context.Background()
	h := s.host(t)
	l, err := h.LinkLocal(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	name := "imds-" + TaskID()[:8]
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	defer netlink.LinkDel(link)
	const metadata, other = "169.254.169.254", "198.51.100.254"
	urls := map[string]string{}
	for _, a := range []string{metadata, other} {
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(a), Mask: net.CIDRMask(32, 32)}}); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", a+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go (&http.Server{ReadTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(a)) })}).Serve(l)
		urls[a] = "http://" + l.Addr().String()
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	if got := get(t, urls[metadata]); got != metadata {
		t.Errorf("the host itself gets %q", got)
	}
	task, _ := h.task("bridge", command("wait"))
	h.start(task, "main")
	if code, out := h.exec(task, "/prog", "get", urls[other]); code != 0 || out != other+"\n" {
		t.Errorf("another address of the host: exit code %d, output %q", code, out)
	}
	if code, out := h.exec(task, "/prog", "reaches", urls[metadata][len("http://"):]); code != 0 || out != "no\n" {
		t.Errorf("the host's metadata: exit code %d, output %q", code, out)
	}
}
