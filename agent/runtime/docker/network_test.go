package docker

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	nr "github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/runtimetest"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

// farHost is a driver in a network namespace of its own, as on a host of its own. The engine, which knows nothing of the network, is the same for all.
type farHost struct {
	t   *testing.T
	cfg Config
	d   *Driver
	pid int
}

func newFarHost(t *testing.T, name, subnet string) *farHost {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	h := &farHost{t: t, pid: cmd.Process.Pid, cfg: Config{Dir: filepath.Join(t.TempDir(), "docker"), ID: strings.ReplaceAll(t.TempDir()[len(os.TempDir()):], "/", "_") + name, Subnet: netip.MustParsePrefix(subnet)}}
	h.open()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		h.do(func() error { return h.d.Close(ctx, true) })
		left := h.ip("-br", "link") + h.ip("route") + h.ip("-6", "route")
		if strings.Contains(left, "ng-") || strings.Contains(left, "ve") && strings.Contains(left, "@if") && strings.Contains(left, "10.64.") {
			t.Errorf("left behind:\n%s", left)
		}
	})
	return h
}

func (h *farHost) open() {
	h.t.Helper()
	var err error
	if h.d, err = New(h.cfg); err != nil {
		h.t.Fatal(err)
	}
}

// do runs f in the host's namespace.
func (h *farHost) do(f func() error) {
	h.t.Helper()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		ns, err := netns.GetFromPid(h.pid)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	if err := <-result; err != nil {
		h.t.Fatal(err)
	}
}

func (h *farHost) ip(args ...string) string {
	h.t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=/proc/" + fmt.Sprint(h.pid) + "/ns/net", "ip"}, args...)...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (h *farHost) run(image, group string, command ...string) (task nr.Task, box nr.Sandbox) {
	h.t.Helper()
	task = nr.Task{ID: runtimetest.TaskID(), Spec: &agentapi.TaskSpec{Account: "000000000000", Region: "us-east-1", Cluster: "default", Family: "test", Revision: 1, NetworkMode: "awsvpc",
		SecurityGroups: []string{group}, Ipv6: true, Containers: []*agentapi.ContainerSpec{{Name: "main", Image: image, Command: command}}}}
	h.do(func() (err error) { box, err = h.d.Create(context.Background(), task); return err })
	if _, err := h.d.Start(context.Background(), task.ID, "main"); err != nil {
		h.t.Fatal(err)
	}
	return task, box
}

func (h *farHost) apply(kind agentapi.Kind, resources ...*agentapi.Resource) {
	h.t.Helper()
	h.do(func() error {
		n, err := h.d.network(context.Background())
		if err == nil {
			err = h.d.networkUp(context.Background(), n)
		}
		if err != nil {
			return err
		}
		return n.Apply(context.Background(), &agentapi.Update{Kind: kind, Full: true, Resources: resources})
	})
}

// reaches asks from within a task, until the answer is the one that is wanted.
func (h *farHost) reaches(task nr.Task, address netip.Addr, want string) {
	h.t.Helper()
	for limit := time.Now().Add(time.Minute); ; {
		var out bytes.Buffer
		code, err := h.d.Exec(context.Background(), task.ID, "main", nr.Command{Args: []string{"/prog", "reaches", netip.AddrPortFrom(address, 80).String()}, Output: &out})
		got := strings.TrimSpace(out.String())
		if err == nil && code == 0 && got == want {
			return
		}
		if time.Now().After(limit) {
			h.t.Fatalf("%s is reached: %q, %d, %v, want %s", address, got, code, err, want)
		}
	}
}

// TestTasksOfTwoHosts: with an engine on their host, tasks have addresses of the cluster's network, which other hosts reach as security groups have it.
func TestTasksOfTwoHosts(t *testing.T) {
	probe := engine(t)
	if probe.Network() == nil {
		t.Skip("the engine is not on this host, or its network may not be changed")
	}
	registry := ocitest.New(t)
	image := registry.Push(t, "prog:1", ocitest.Image(t, runtimetest.ProgConfig, runtimetest.ProgLayer(t)))
	if _, err := probe.Pull(t.Context(), nr.PullRequest{Image: image, User: registry.Cred.User, Password: registry.Cred.Password}); err != nil {
		t.Fatal(err)
	}
	a, b := newFarHost(t, "a", "10.64.0.0/22"), newFarHost(t, "b", "10.64.4.0/22")
	a.ip("link", "add", "eth9", "type", "veth", "peer", "name", "eth9", "netns", fmt.Sprint(b.pid))
	for h, address := range map[*farHost]string{a: "192.0.2.1/24", b: "192.0.2.2/24"} {
		h.ip("link", "set", "lo", "up")
		h.ip("address", "add", address, "dev", "eth9")
		h.ip("link", "set", "eth9", "up")
	}
	peer := func(address, cidr string) *agentapi.Resource {
		return &agentapi.Resource{Name: address, Body: &agentapi.Resource_Peer{Peer: &agentapi.Peer{NodeId: address, Address: address, Cidr: cidr, VxlanPort: 4789, VxlanId: 4566, Ipv6: true}}}
	}
	all := func() []*agentapi.TrafficRule {
		return []*agentapi.TrafficRule{{Protocol: -1, FromPort: -1, ToPort: -1, Cidr: "0.0.0.0/0"}, {Protocol: -1, FromPort: -1, ToPort: -1, Cidr: "::/0"}}
	}
	client, web := &agentapi.SecurityGroup{Id: "sg-client", Egress: all()}, &agentapi.SecurityGroup{Id: "sg-web", Egress: all()}
	groups := func() {
		for _, h := range []*farHost{a, b} {
			h.apply(agentapi.Kind_FIREWALL, &agentapi.Resource{Name: client.Id, Body: &agentapi.Resource_SecurityGroup{SecurityGroup: client}},
				&agentapi.Resource{Name: web.Id, Body: &agentapi.Resource_SecurityGroup{SecurityGroup: web}})
		}
	}
	// Before anything of the network exists, as an agent's first session does.
	if n := a.d.Network(); n == nil {
		t.Fatal("there is no network")
	} else if err := n.Apply(t.Context(), &agentapi.Update{Kind: agentapi.Kind_PEERS, Full: true}); err != nil {
		t.Fatal(err)
	}
	groups()
	for _, h := range []*farHost{a, b} {
		h.apply(agentapi.Kind_PEERS, peer("192.0.2.1", "10.64.0.0/22"), peer("192.0.2.2", "10.64.4.0/22"))
	}
	from, box := a.run(image, "sg-client", "wait")
	server, there := b.run(image, "sg-web", "serve", ":80", "far")
	if !strings.HasPrefix(box.Address, "10.64.0.") || !strings.HasPrefix(box.MAC, "02:42:0a:40:00:") || box.Gateway != "10.64.0.1" {
		t.Errorf("the task's place: %+v", box)
	}
	client.Members = []string{box.Address, box.IPv6}
	addresses := []netip.Addr{netip.MustParseAddr(there.Address)}
	if six, err := netip.ParseAddr(there.IPv6); err == nil {
		addresses = append(addresses, six)
	} else if a.d.Network().LacksIPv6() == "" {
		t.Errorf("no IPv6 address: %+v", there)
	}
	for _, to := range addresses {
		a.reaches(from, to, "no")
	}
	web.Ingress = []*agentapi.TrafficRule{{Protocol: 6, FromPort: 80, ToPort: 80, Group: "sg-client"}}
	groups()
	for _, to := range addresses {
		a.reaches(from, to, "yes")
	}

	// Another process knows the task and its address.
	if err := a.d.Close(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	a.open()
	a.do(func() error {
		found, err := a.d.Recover(context.Background())
		if err == nil && (len(found) != 1 || found[0].Sandbox.Address != box.Address || found[0].Sandbox.IPv6 != box.IPv6) {
			err = fmt.Errorf("recovered %+v", found)
		}
		return err
	})
	again, other := a.run(image, "sg-client", "wait")
	if other.Address == box.Address {
		t.Errorf("two tasks have the address %s", box.Address)
	}
	for _, to := range addresses {
		a.reaches(from, to, "yes")
		a.reaches(again, to, "no") // it is not known as a member
	}
	a.do(func() error { return a.d.Remove(context.Background(), again.ID) })
	b.do(func() error { return b.d.Remove(context.Background(), server.ID) })
	a.reaches(from, addresses[0], "no")
}
