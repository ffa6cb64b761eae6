package runtimetest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// faults makes the networks of tasks faulty, has another process of the driver find and end that, and looks for what is left.
func (s *suite) faults(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ctx := context.Background()
	h := s.host(t)
	injector := func() runtime.FaultInjector { return h.Driver.(runtime.FaultInjector) }
	if lacks := injector().CheckFaults(ctx); len(lacks) > 0 {
		t.Fatal(lacks)
	}
	listen := func() net.Listener {
		l, err := h.LinkLocal(ctx)
		if err != nil {
			t.Fatal(err)
		}
		go (&http.Server{ReadTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metadata") })}).Serve(l)
		t.Cleanup(func() { l.Close() })
		return l
	}
	l := listen()

	web, other := command("serve", ":8080", "web"), command("serve", ":8081", "other")
	other.Name = "other"
	server, at := h.task("awsvpc", web, other)
	defer h.Remove(ctx, server.ID)
	for _, c := range server.Spec.Containers {
		h.start(server, c.Name)
		h.until(server, c.Name, "serving")
	}
	client, _ := h.task("awsvpc", command("wait"))
	defer h.Remove(ctx, client.ID)
	h.start(client, "main")
	reaches := func(address, want string) {
		t.Helper()
		within := map[string]string{"yes": "30s", "no": "1s"}[want]
		if code, out := h.exec(client, "/prog", "reaches", address, within); code != 0 || out != want+"\n" {
			t.Errorf("%s is reached: exit code %d, %q, want %s", address, code, out, want)
		}
	}
	start := func(task runtime.Task, f runtime.Fault) {
		t.Helper()
		if err := injector().StartFault(ctx, task.ID, f); err != nil {
			t.Errorf("start %s: %v", f.Kind, err)
		}
	}
	stop := func(task runtime.Task, f runtime.Fault) {
		t.Helper()
		if err := injector().StopFault(ctx, task.ID, f); err != nil {
			t.Errorf("stop %s: %v", f.Kind, err)
		}
	}
	has := func(task runtime.Task, f runtime.Fault, want bool) {
		t.Helper()
		if runs, err := injector().HasFault(ctx, task.ID, f); err != nil || runs != want {
			t.Errorf("%s runs: %v, %v; want %v", f.Kind, runs, err, want)
		}
	}
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	hole := runtime.Fault{Kind: runtime.BlackholePort, Protocol: "tcp", Port: 8080}
	closed := runtime.Fault{Kind: runtime.BlackholePort, Protocol: "tcp", Port: 8081, Ingress: true}
	loss := runtime.Fault{Kind: runtime.PacketLoss, Loss: 100, Flows: 100, Sources: all, Metadata: netip.MustParseAddrPort("169.254.170.2:80")}

	reaches(at.Address+":8080", "yes")
	start(client, hole)
	start(server, closed)
	reaches(at.Address+":8080", "no")
	reaches(at.Address+":8081", "no")
	stop(server, closed)
	reaches(at.Address+":8081", "yes")
	has(client, hole, true)
	has(server, hole, false)

	start(client, loss)
	reaches(at.Address+":8081", "no")
	reaches("169.254.170.2:80", "yes")

	// What there is of faults is the kernel's, so a later process finds it.
	l.Close()
	if err := h.Close(ctx, false); err != nil {
		t.Fatal(err)
	}
	s.reopen(t, h)
	listen()
	has(client, hole, true)
	has(client, loss, true)
	reaches(at.Address+":8081", "no")
	reaches("169.254.170.2:80", "yes")
	stop(client, loss)
	stop(client, hole)
	reaches(at.Address+":8080", "yes")
	has(client, loss, false)

	if err := injector().StartFault(ctx, TaskID(), hole); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("of no task: %v", err)
	}
	start(server, loss) // goes with it

	// In the host's network a fault ends with its task.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	host := h.newTask("host", &agentapi.ContainerSpec{Command: []string{"wait"}, CommandSet: true})
	host.Spec.FaultInjection = true
	h.create(host)
	h.start(host, "main")
	closed.Port = uint16(listener.Addr().(*net.TCPAddr).Port)
	start(host, closed)
	if c, err := net.DialTimeout("tcp", listener.Addr().String(), 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("the host reaches a port that is a black hole")
	}
	if err := h.Remove(ctx, host.ID); err != nil {
		t.Fatal(err)
	}
	c, err := net.DialTimeout("tcp", listener.Addr().String(), time.Minute)
	if err != nil {
		t.Fatalf("after the task's end: %v", err)
	}
	c.Close()
	tables, err := (&nftables.Conn{}).ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if strings.Contains(table.Name, host.ID) {
			t.Errorf("left behind: table %s", table.Name)
		}
	}
}
