package runtimetest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// network looks at addresses and ports.
func (s *suite) network(t *testing.T) {
	ctx := context.Background()
	h := s.host(t)

	t.Run("PortRange", func(t *testing.T) {
		c := command("serve", ":8002", "third")
		c.Ports = []*agentapi.PortMapping{{ContainerPort: 8000, Count: 4, Protocol: "tcp"}, {ContainerPort: 8000, Count: 2, Protocol: "udp"}}
		task, sb := h.task("bridge", c)
		defer h.Remove(ctx, task.ID)
		h.start(task, "main")
		h.until(task, "main", "serving")
		bound := sb.Ports["main"]
		if len(bound) != 2 || bound[0].Count != 4 || bound[0].ContainerPort != 8000 || bound[0].HostPort == 0 || bound[1].Count != 2 || bound[1].Protocol != "udp" {
			t.Fatalf("ports = %v", bound)
		}
		if got := get(t, fmt.Sprintf("http://127.0.0.1:%d", bound[0].HostPort+2)); !strings.HasPrefix(got, "third ") {
			t.Errorf("the third port answers %q", got)
		}
		for n := range bound[0].Count {
			if l, err := net.Listen("tcp", fmt.Sprintf(":%d", bound[0].HostPort+n)); err == nil {
				l.Close()
				t.Errorf("port %d of the range can be taken by others", n)
			}
		}
		apart, sb := h.task("awsvpc", &agentapi.ContainerSpec{Name: "main", Ports: c.Ports})
		defer h.Remove(ctx, apart.ID)
		if b := sb.Ports["main"]; len(b) != 2 || b[0].HostPort != 8000 || b[0].Count != 4 {
			t.Errorf("with an address of its own: %v", b)
		}
	})

	t.Run("Ports", func(t *testing.T) {
		free := freePort(t)
		c := command("serve", ":80", "web")
		c.Ports = []*agentapi.PortMapping{{ContainerPort: 80, HostPort: uint32(free), Protocol: "tcp"}, {ContainerPort: 80, Protocol: "tcp"}}
		task, sb := h.task("bridge", c)
		defer h.Remove(ctx, task.ID)
		h.start(task, "main")
		h.until(task, "main", "serving")
		bound := sb.Ports["main"]
		if len(bound) != 2 || int(bound[0].HostPort) != free || bound[1].HostPort == 0 || bound[1].ContainerPort != 80 || bound[1].Protocol != "tcp" {
			t.Fatalf("ports = %v", bound)
		}
		for _, b := range bound {
			for _, host := range append(hostAddresses(t), "127.0.0.1") {
				if got := get(t, fmt.Sprintf("http://%s:%d", host, b.HostPort)); !strings.HasPrefix(got, "web ") {
					t.Errorf("%s:%d answers %q", host, b.HostPort, got)
				}
			}
		}
		if _, err := net.Listen("tcp", fmt.Sprintf(":%d", bound[1].HostPort)); err == nil {
			t.Error("a chosen host port can be taken by others")
		}
		if err := h.Remove(ctx, task.ID); err != nil {
			t.Fatal(err)
		}
		for _, b := range bound {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", b.HostPort))
			if err != nil {
				t.Errorf("port after remove: %v", err)
				continue
			}
			l.Close()
			if c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", b.HostPort), time.Second); err == nil {
				c.Close()
				t.Errorf("port %d answers after remove", b.HostPort)
			}
		}
	})

	t.Run("PortTaken", func(t *testing.T) {
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		c := command("serve", ":80", "web")
		c.Image, c.Ports = h.Image, []*agentapi.PortMapping{{ContainerPort: 80, HostPort: uint32(port), Protocol: "tcp"}}
		task := runtime.Task{ID: TaskID(), Spec: &agentapi.TaskSpec{NetworkMode: "bridge", Containers: []*agentapi.ContainerSpec{c}}}
		_, err = h.Create(ctx, task)
		if err == nil {
			_, err = h.Start(ctx, task.ID, "main")
		}
		if err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("a taken host port: %v", err)
		}
		if err := h.Remove(ctx, task.ID); err != nil {
			t.Error(err)
		}
	})

	t.Run("UDP", func(t *testing.T) {
		c := command("serve-udp", ":53")
		c.Ports = []*agentapi.PortMapping{{ContainerPort: 53, Protocol: "udp"}}
		task, sb := h.task("bridge", c)
		defer h.Remove(ctx, task.ID)
		h.start(task, "main")
		h.until(task, "main", "serving")
		conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", sb.Ports["main"][0].HostPort))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		if _, err := conn.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := conn.Read(b)
		if err != nil || string(b[:n]) != "echo hi" {
			t.Errorf("answer %q, %v", b[:n], err)
		}
	})

	t.Run("TaskShareLocalhost", func(t *testing.T) {
		server, client := command("serve", "127.0.0.1:8080", "neighbour"), command("get", "http://127.0.0.1:8080")
		server.Name, client.Name = "server", "client"
		task, _ := h.task("bridge", server, client)
		defer h.Remove(ctx, task.ID)
		h.start(task, "server")
		h.start(task, "client")
		if e, out := h.wait(task, "client"), h.output(task, "client"); e.Code != 0 || !strings.HasPrefix(out, "neighbour ") {
			t.Errorf("exit = %+v, output %q", e, out)
		}
	})

	t.Run("TasksReachEachOther", func(t *testing.T) {
		c := command("serve", ":8080", "other task")
		c.Ports = []*agentapi.PortMapping{{ContainerPort: 8080, Protocol: "tcp"}}
		server, sb := h.task("bridge", c)
		defer h.Remove(ctx, server.ID)
		h.start(server, "main")
		// By the task's own address; by host port through the gateway; and the server itself by its host port.
		for _, url := range []string{fmt.Sprintf("http://%s:8080", sb.Address), fmt.Sprintf("http://%s:%d", sb.Gateway, sb.Ports["main"][0].HostPort)} {
			client, own := h.task("awsvpc", command("get", url))
			h.start(client, "main")
			if e, out := h.wait(client, "main"), h.output(client, "main"); e.Code != 0 || !strings.HasPrefix(out, "other task ") {
				t.Errorf("%s from %s: exit %+v, output %q", url, own.Address, e, out)
			}
			h.Remove(ctx, client.ID)
		}
		if got := get(t, fmt.Sprintf("http://%s:8080", sb.Address)); !strings.HasPrefix(got, "other task ") {
			t.Errorf("from the host: %q", got)
		}
	})

	t.Run("ReachesHost", func(t *testing.T) {
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "host") })}
		go s.Serve(l)
		defer s.Close()
		// The gateway is known once a task exists.
		_, sb := h.task("bridge", command("wait"))
		task, _ := h.task("bridge", command("get", fmt.Sprintf("http://%s:%d", sb.Gateway, l.Addr().(*net.TCPAddr).Port)))
		h.start(task, "main")
		if e, out := h.wait(task, "main"), h.output(task, "main"); e.Code != 0 || out != "host\n" {
			t.Errorf("exit = %+v, output %q", e, out)
		}
	})

	t.Run("HostMode", func(t *testing.T) {
		port := freePort(t)
		c := command("serve", fmt.Sprintf("127.0.0.1:%d", port), "on the host")
		c.Ports = []*agentapi.PortMapping{{ContainerPort: uint32(port), HostPort: uint32(port), Protocol: "tcp"}}
		task, sb := h.task("host", c)
		defer h.Remove(ctx, task.ID)
		h.start(task, "main")
		h.until(task, "main", "serving")
		if got := get(t, fmt.Sprintf("http://127.0.0.1:%d", port)); !strings.HasPrefix(got, "on the host ") || sb.Address != "" {
			t.Errorf("answer %q, address %q", got, sb.Address)
		}
	})
}

// freePort is none of those that the kernel gives to whoever asks for any, or another program would have it before it is used.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(10000)
		if l, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// hostAddresses are this host's IPv4 addresses but loopback and those of the bridges that tests come and go with.
func hostAddresses(t *testing.T) []string {
	t.Helper()
	c, err := net.Dial("udp", "198.51.100.1:9") // sends nothing: asks the routing table
	if err != nil {
		return nil
	}
	defer c.Close()
	return []string{c.LocalAddr().(*net.UDPAddr).IP.String()}
}

func get(t *testing.T, url string) string {
	t.Helper()
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(time.Minute); ; {
		res, err := c.Get(url)
		if err == nil {
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		if time.Now().After(deadline) {
			t.Errorf("get: %v", err)
			return ""
		}
		time.Sleep(10 * time.Millisecond)
	}
}
