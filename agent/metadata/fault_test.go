package metadata

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// injector keeps what it is told.
type injector struct {
	calls []string
	last  runtime.Fault
	runs  bool
	fails error
}

func (i *injector) CheckFaults(context.Context) []string { return nil }

func (i *injector) note(what, task string, f runtime.Fault) error {
	i.calls, i.last = append(i.calls, what+" "+task), f
	return i.fails
}

func (i *injector) StartFault(_ context.Context, task string, f runtime.Fault) error {
	return i.note("start", task, f)
}
func (i *injector) StopFault(_ context.Context, task string, f runtime.Fault) error {
	return i.note("stop", task, f)
}
func (i *injector) HasFault(_ context.Context, task string, f runtime.Fault) (bool, error) {
	return i.runs, i.note("has", task, f)
}

var asksAt = netip.MustParseAddrPort("169.254.170.2:80")

func withFaults(t *testing.T, i *injector, change func(*Task)) (*Server, *clock.Fake) {
	task := example()
	task.Assignment.Spec.FaultInjection = true
	if change != nil {
		change(&task)
	}
	fake := clock.NewFake(began)
	cfg := Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Clock: fake,
		Endpoint: func(string) netip.AddrPort { return asksAt },
		Named: func(id string, from netip.Addr) (Task, error) {
			if id != secretID || from != netip.MustParseAddr(address) {
				return Task{}, ErrUnknown
			}
			return task, nil
		}}
	if i != nil {
		cfg.Faults = i
	}
	return New(cfg), fake
}

// The requests and answers are those of ECS's documentation, the errors those of its agent.
func TestFaultEndpoints(t *testing.T) {
	const hole, late, loss = "network-blackhole-port", "network-latency", "network-packet-loss"
	const port = `{"Port":1234,"Protocol":"tcp","TrafficType":"egress"}`
	long := `{"Port":1,"Protocol":"` + strings.Repeat("x", faultBody) + `"}`
	for _, c := range []struct {
		path, body string
		fails      error
		runs       bool
		code       int
		want       string
	}{
		{hole + "/start", port, nil, false, 200, `{"Status":"running"}`},
		{hole + "/stop", port, nil, false, 200, `{"Status":"stopped"}`},
		{hole + "/status", port, nil, false, 200, `{"Status":"not-running"}`},
		{hole + "/status", port, nil, true, 200, `{"Status":"running"}`},
		{late + "/start", `{"DelayMilliseconds":123,"JitterMilliseconds":0,"Sources":["1.2.3.4"]}`, nil, false, 200, `{"Status":"running"}`},
		{late + "/stop", "", nil, false, 200, `{"Status":"stopped"}`},
		{late + "/status", "{}", nil, false, 200, `{"Status":"not-running"}`},
		{loss + "/start", `{"LossPercent":6,"Sources":["1.2.3.0/24","::1"],"SourcesToFilter":["1.2.3.7"],"FlowsPercent":10}`, nil, false, 200, `{"Status":"running"}`},
		{loss + "/stop", "", nil, false, 200, `{"Status":"stopped"}`},
		{loss + "/status", "", nil, true, 200, `{"Status":"running"}`},

		{hole + "/start", "", nil, false, 400, `{"Error":"required request body is missing"}`},
		{hole + "/status", "", nil, false, 400, `{"Error":"required request body is missing"}`},
		{hole + "/start", "{", nil, false, 400, `{"Error":"unexpected EOF"}`},
		{hole + "/start", long, nil, false, 400, `{"Error":"http: request body too large"}`},
		{hole + "/start", `{"Port":70000}`, nil, false, 400, `{"Error":"json: cannot unmarshal number 70000 into Go struct field faultRequest.Port of type uint16"}`},
		{hole + "/start", `{"Protocol":"tcp","TrafficType":"egress"}`, nil, false, 400, `{"Error":"required parameter Port is missing"}`},
		{hole + "/stop", `{"Port":1,"TrafficType":"egress"}`, nil, false, 400, `{"Error":"required parameter Protocol is missing"}`},
		{hole + "/start", `{"Port":1,"Protocol":"tcp","TrafficType":""}`, nil, false, 400, `{"Error":"required parameter TrafficType is missing"}`},
		{hole + "/start", `{"Port":1,"Protocol":"icmp","TrafficType":"egress"}`, nil, false, 400, `{"Error":"invalid value icmp for parameter Protocol"}`},
		{hole + "/start", `{"Port":1,"Protocol":"udp","TrafficType":"both"}`, nil, false, 400, `{"Error":"invalid value both for parameter TrafficType"}`},
		{hole + "/start", `{"Port":1,"Protocol":"udp","TrafficType":"ingress","SourcesToFilter":["x"]}`, nil, false, 400, `{"Error":"invalid value x for parameter SourcesToFilter"}`},
		{late + "/start", `{"JitterMilliseconds":0,"Sources":["1.2.3.4"]}`, nil, false, 400, `{"Error":"required parameter DelayMilliseconds is missing"}`},
		{late + "/start", `{"DelayMilliseconds":1,"Sources":["1.2.3.4"]}`, nil, false, 400, `{"Error":"required parameter JitterMilliseconds is missing"}`},
		{late + "/start", `{"DelayMilliseconds":0,"JitterMilliseconds":0,"Sources":["1.2.3.4"]}`, nil, false, 400, `{"Error":"required either DelayMilliseconds or JitterMilliseconds to be non-zero"}`},
		{late + "/start", `{"DelayMilliseconds":240001,"JitterMilliseconds":0,"Sources":["1.2.3.4"]}`, nil, false, 400, `{"Error":"invalid value 240001 for parameter DelayMilliseconds"}`},
		{late + "/start", `{"DelayMilliseconds":1,"JitterMilliseconds":240001,"Sources":["1.2.3.4"]}`, nil, false, 400, `{"Error":"invalid value 240001 for parameter JitterMilliseconds"}`},
		{late + "/start", `{"DelayMilliseconds":1,"JitterMilliseconds":0}`, nil, false, 400, `{"Error":"required parameter Sources is missing"}`},
		{loss + "/start", `{"Sources":["1.2.3.4"]}`, nil, false, 400, `{"Error":"required parameter LossPercent is missing"}`},
		{loss + "/start", `{"LossPercent":0,"Sources":["1.2.3.4"]}`, nil, false, 400, `{"Error":"invalid value 0 for parameter LossPercent"}`},
		{loss + "/start", `{"LossPercent":101,"Sources":["1.2.3.4"]}`, nil, false, 400, `{"Error":"invalid value 101 for parameter LossPercent"}`},
		{loss + "/start", `{"LossPercent":1,"Sources":["example.com"]}`, nil, false, 400, `{"Error":"invalid value example.com for parameter Sources"}`},
		{loss + "/start", `{"LossPercent":1,"Sources":["fe80::1%eth0"]}`, nil, false, 400, `{"Error":"invalid value fe80::1%eth0 for parameter Sources"}`},
		{loss + "/start", `{"LossPercent":1,"Sources":["1.2.3.4"],"FlowsPercent":0}`, nil, false, 400, `{"Error":"invalid value 0 for parameter flowsPercent"}`},
		{loss + "/start", `{"LossPercent":1,"Sources":["1.2.3.4"],"FlowsPercent":101}`, nil, false, 400, `{"Error":"invalid value 101 for parameter flowsPercent"}`},

		{late + "/start", `{"DelayMilliseconds":1,"JitterMilliseconds":0,"Sources":["1.2.3.4"]}`, &runtime.FaultRuns{Kind: runtime.PacketLoss}, false, 409,
			`{"Error":"There is already one network packet loss fault running"}`},
		{loss + "/start", `{"LossPercent":1,"Sources":["1.2.3.4"]}`, &runtime.FaultRuns{Kind: runtime.Latency}, false, 409, `{"Error":"There is already one network latency fault running"}`},
		{late + "/start", `{"DelayMilliseconds":1,"JitterMilliseconds":0,"Sources":["1.2.3.4"]}`, &runtime.CannotDelay{Err: errors.New("no such file or directory")}, false, 500,
			`{"Error":"internal error: the kernel of this host does not delay packets: it has no netem (the modules sch_netem and sch_prio): no such file or directory"}`},
		{hole + "/start", port, errors.New("something of the host"), false, 500, `{"Error":"internal error"}`},
		{hole + "/restart", port, nil, false, 404, `"404 page not found"`},
		{"network-jam/start", port, nil, false, 404, `"404 page not found"`},
	} {
		i := &injector{fails: c.fails, runs: c.runs}
		s, _ := withFaults(t, i, nil)
		if code, body := request(s, "POST", "/api/"+secretID+"/fault/v1/"+c.path, address, c.body); code != c.code || body != c.want {
			t.Errorf("%s %.100s: %d %s\nwant %d %s", c.path, c.body, code, body, c.code, c.want)
		}
		if called := len(i.calls) == 1; called != (c.code == 200 || c.fails != nil) {
			t.Errorf("%s %.100s: %v", c.path, c.body, i.calls)
		}
	}
}

func TestFaultIsWhatWasAskedFor(t *testing.T) {
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, p := range list {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	for body, want := range map[string]runtime.Fault{
		`{"Port":53,"Protocol":"udp","TrafficType":"ingress","SourcesToFilter":["10.0.0.1","10.1.2.3/16"]}`: {Kind: runtime.BlackholePort, Port: 53, Protocol: "udp", Ingress: true,
			Spared: prefixes("10.0.0.1/32", "10.1.0.0/16"), Metadata: asksAt},
		`{"DelayMilliseconds":200,"JitterMilliseconds":10,"Sources":["::ffff:1.2.3.4"],"FlowsPercent":25}`: {Kind: runtime.Latency, Delay: 200 * time.Millisecond, Jitter: 10 * time.Millisecond, Flows: 25,
			Sources: prefixes("1.2.3.4/32"), Metadata: asksAt},
		`{"LossPercent":6,"Sources":["2001:db8::/32"],"SourcesToFilter":["2001:db8::1"]}`: {Kind: runtime.PacketLoss, Loss: 6, Flows: 100, Sources: prefixes("2001:db8::/32"),
			Spared: prefixes("2001:db8::1/128"), Metadata: asksAt},
	} {
		i := &injector{}
		s, _ := withFaults(t, i, nil)
		if code, answer := request(s, "POST", "/api/"+secretID+"/fault/v1/"+string(want.Kind)+"/start", address, body); code != 200 {
			t.Errorf("%s: %d %s", body, code, answer)
		}
		if diff := cmp.Diff(want, i.last, cmpopts.EquateComparable(netip.Prefix{}, netip.AddrPort{})); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
}

func TestFaultsAreOfTasksThatHaveThemEnabled(t *testing.T) {
	const path = "/api/" + secretID + "/fault/v1/network-latency/status"
	arn := example().Assignment.TaskArn
	for what, c := range map[string]struct {
		change func(*Task)
		path   string
		from   string
		code   int
		want   string
	}{
		"not enabled":  {func(t *Task) { t.Assignment.Spec.FaultInjection = false }, path, address, 400, `{"Error":"enableFaultInjection is not enabled for task: ` + arn + `"}`},
		"bridge":       {func(t *Task) { t.Assignment.Spec.NetworkMode = "bridge" }, path, address, 400, `{"Error":"bridge mode is not supported. Please use either host or awsvpc mode."}`},
		"host":         {func(t *Task) { t.Assignment.Spec.NetworkMode = "host" }, path, address, 200, `{"Status":"not-running"}`},
		"another task": {nil, path, "10.64.0.8", 404, `{"Error":"unable to get task arn from request: unable to get task Arn from v3 endpoint ID: ` + secretID + `"}`},
		"another id":   {nil, "/api/x/fault/v1/network-latency/status", address, 404, `{"Error":"unable to get task arn from request: unable to get task Arn from v3 endpoint ID: x"}`},
	} {
		s, _ := withFaults(t, &injector{}, c.change)
		if code, body := request(s, "POST", c.path, c.from, ""); code != c.code || body != c.want {
			t.Errorf("%s: %d %s\nwant %d %s", what, code, body, c.code, c.want)
		}
	}
	s, _ := withFaults(t, nil, nil)
	if code, body := request(s, "POST", path, address, ""); code != 500 || body != `{"Error":"internal error: this host cannot inject faults"}` {
		t.Errorf("a driver that cannot: %d %s", code, body)
	}
	if code, _ := request(s, "GET", path, address, ""); code != 405 {
		t.Errorf("GET: %d", code)
	}
}

// A task has one request in five seconds to each endpoint.
func TestFaultRequestsAreLimited(t *testing.T) {
	i := &injector{}
	s, now := withFaults(t, i, nil)
	ask := func(path string, want int) {
		t.Helper()
		code, body := request(s, "POST", "/api/"+secretID+"/fault/v1/"+path, address, "")
		if code != want || code == 429 && body != `{"Error":"You have reached maximum request limit"}` {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
	ask("network-latency/status", 200)
	ask("network-latency/status", 429)
	ask("network-latency/stop", 200)
	ask("network-packet-loss/status", 200)
	now.Advance(4900 * time.Millisecond)
	ask("network-latency/status", 429)
	now.Advance(100 * time.Millisecond)
	ask("network-latency/status", 200)
	if len(i.calls) != 4 || len(s.asked.last) != 1 {
		t.Errorf("calls %v, kept %v", i.calls, s.asked.last)
	}
}
