package runtimetest

import (
	"context"
	"slices"
	"strings"
	"testing"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// intercept looks at what goes through a task's proxy, and what does not.
func (s *suite) intercept(t *testing.T) {
	ctx := context.Background()
	h := s.host(t)
	target := func() (address string) {
		one, two := command("serve", ":8080", "target"), command("serve", ":8081", "target")
		one.Name, two.Name = "one", "two"
		task, sb := h.task("awsvpc", one, two)
		t.Cleanup(func() { h.Remove(ctx, task.ID) })
		for _, c := range task.Spec.Containers {
			h.start(task, c.Name)
			h.until(task, c.Name, "serving")
		}
		return sb.Address
	}
	first, second := target(), target()
	for name, i := range map[string]*agentapi.Interception{"User": {IgnoredUser: new(uint32(1337))}, "Group": {IgnoredGroup: new(uint32(1338))}} {
		t.Run(name, func(t *testing.T) {
			i.AppPorts, i.IngressPort, i.EgressPort = []uint32{9080, 9081}, 15000, 15001
			i.IgnoredPorts, i.IgnoredBlocks = []uint32{8081}, []string{second + "/32", "2001:db8::/32"}
			meshed := command("serve", ":9080", "meshed")
			meshed.Name = "meshed"
			plain := command("serve", ":9090", "plain")
			plain.Name = "plain"
			envoy := command("proxy", "15000", "15001")
			envoy.Name, envoy.User = "envoy", "1337:1338"
			asks := command("get", "http://"+first+":8080", "then", "get", "http://"+first+":8081", "then", "get", "http://"+second+":8080", "then", "get", "http://127.0.0.1:9090")
			asks.Name = "asks"
			task := h.newTask("awsvpc", envoy, meshed, plain, asks)
			task.Spec.Interception = i
			sb := h.create(task)
			defer h.Remove(ctx, task.ID)
			for name, said := range map[string]string{"envoy": "proxying", "meshed": "serving", "plain": "serving"} {
				h.start(task, name)
				h.until(task, name, said)
			}
			if got := get(t, "http://"+sb.Address+":9080"); !strings.HasPrefix(got, "meshed to 127.0.0.1:") {
				t.Errorf("what comes in for the application's port: %q", got)
			}
			if got := get(t, "http://"+sb.Address+":9090"); !strings.HasPrefix(got, "plain to ") || strings.HasPrefix(got, "plain to 127.0.0.1:") {
				t.Errorf("what comes in for another port: %q", got)
			}
			h.start(task, "asks")
			if e, out := h.wait(task, "asks"), h.output(task, "asks"); e.Code != 0 || strings.Count(out, "target to "+sb.Address+":") != 3 || !strings.Contains(out, "plain to 127.0.0.1:") {
				t.Errorf("%+v %q", e, out)
			}
			went := strings.Split(strings.TrimSpace(h.output(task, "envoy")), "\n")
			slices.Sort(went) // who gets no answer for a second asks again
			if got, want := slices.Compact(went), []string{"egress to " + first + ":8080", "ingress to " + sb.Address + ":9080", "proxying"}; !slices.Equal(got, want) {
				t.Errorf("through the proxy went %q, not %q", got, want)
			}
		})
	}
}
