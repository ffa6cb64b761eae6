package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Limits of the endpoints of faults.
const (
	faultEvery  = 5 * time.Second // between two requests of one task to one endpoint, as on ECS
	faultWithin = 5 * time.Second // to start, stop or look for one
	faultBody   = 16 << 10        // bytes of a request
)

// faultAnswer is one of the two.
type faultAnswer struct {
	Status string `json:",omitempty"`
	Error  string `json:",omitempty"`
}

// faultRequest has the members of all kinds.
type faultRequest struct {
	Port        *uint16
	Protocol    *string
	TrafficType *string

	DelayMilliseconds  *uint64
	JitterMilliseconds *uint64
	LossPercent        *uint64
	Sources            []string
	FlowsPercent       *int

	SourcesToFilter []string
}

// fault answers POST /api/ID/fault/v1/KIND/start, …/stop and …/status.
// See "Amazon ECS fault injection endpoints" in the ECS developer guide.
func (s *Server) fault(w http.ResponseWriter, r *http.Request, id, what string, from netip.Addr) {
	kind, action, _ := strings.Cut(what, "/")
	f := runtime.Fault{Kind: runtime.FaultKind(kind)}
	switch f.Kind {
	case runtime.BlackholePort, runtime.Latency, runtime.PacketLoss:
	default:
		action = ""
	}
	refuse := func(status int, text string) { write(w, status, faultAnswer{Error: text}) }
	switch {
	case action != "start" && action != "stop" && action != "status":
		fail(w, http.StatusNotFound, "404 page not found")
		return
	case r.Method != http.MethodPost:
		fail(w, http.StatusMethodNotAllowed, "faults are started, stopped and looked for with POST")
		return
	}
	t, unknown := s.cfg.Named(id, from)
	if unknown == nil && !s.asked.admit(t.Assignment.TaskId+"/"+what, s.cfg.Clock.Now()) {
		refuse(http.StatusTooManyRequests, "You have reached maximum request limit")
		return
	}
	if action == "start" || f.Kind == runtime.BlackholePort { // of the others there is one to stop and to look for
		if err := readFault(http.MaxBytesReader(w, r.Body, faultBody), &f); err != nil {
			refuse(http.StatusBadRequest, err.Error())
			return
		}
	}
	if unknown != nil {
		refuse(http.StatusNotFound, "unable to get task arn from request: unable to get task Arn from v3 endpoint ID: "+id)
		return
	}
	spec := t.Assignment.Spec
	switch {
	case !spec.FaultInjection:
		refuse(http.StatusBadRequest, "enableFaultInjection is not enabled for task: "+t.Assignment.TaskArn)
		return
	case spec.NetworkMode != "awsvpc" && spec.NetworkMode != "host":
		refuse(http.StatusBadRequest, spec.NetworkMode+" mode is not supported. Please use either host or awsvpc mode.")
		return
	case s.cfg.Faults == nil:
		refuse(http.StatusInternalServerError, "internal error: this host cannot inject faults")
		return
	}
	f.Metadata = s.cfg.Endpoint(spec.NetworkMode)
	request := map[string]string{"start": "start ", "stop": "stop ", "status": "check status "}[action] + kind
	ctx, cancel := context.WithTimeout(r.Context(), faultWithin)
	defer cancel()
	answer, err := s.actOnFault(ctx, t.Assignment.TaskId, action, f)
	s.cfg.Logger.Info("fault injection", "task", t.Assignment.TaskId, "request", request, "status", answer, "error", err)
	var runs *runtime.FaultRuns
	var delay *runtime.CannotDelay
	switch {
	case err == nil:
		write(w, http.StatusOK, faultAnswer{Status: answer})
	case errors.As(err, &runs):
		refuse(http.StatusConflict, runs.Error())
	case ctx.Err() != nil:
		refuse(http.StatusInternalServerError, request+": request timed out")
	case errors.As(err, &delay):
		refuse(http.StatusInternalServerError, "internal error: "+delay.Error())
	default:
		refuse(http.StatusInternalServerError, "internal error")
	}
}

// actOnFault is what an endpoint does, and its word for how the fault is then.
func (s *Server) actOnFault(ctx context.Context, task, action string, f runtime.Fault) (string, error) {
	switch action {
	case "start":
		return "running", s.cfg.Faults.StartFault(ctx, task, f)
	case "stop":
		return "stopped", s.cfg.Faults.StopFault(ctx, task, f)
	}
	runs, err := s.cfg.Faults.HasFault(ctx, task, f)
	if runs {
		return "running", err
	}
	return "not-running", err
}

// readFault completes a fault by what a request says of it. Errors are in ECS's words.
func readFault(body io.Reader, f *runtime.Fault) (err error) {
	var q faultRequest
	if err := json.NewDecoder(body).Decode(&q); errors.Is(err, io.EOF) {
		return errors.New("required request body is missing")
	} else if err != nil {
		return err
	}
	switch f.Kind {
	case runtime.BlackholePort:
		err = q.blackhole(f)
	case runtime.Latency:
		err = q.latency(f)
	case runtime.PacketLoss:
		err = q.loss(f)
	}
	if err != nil {
		return err
	}
	f.Spared, err = blocks("SourcesToFilter", q.SourcesToFilter)
	return err
}

func missing(member string) error { return fmt.Errorf("required parameter %s is missing", member) }

func invalid(member string, value any) error {
	return fmt.Errorf("invalid value %v for parameter %s", value, member)
}

func (q *faultRequest) blackhole(f *runtime.Fault) error {
	switch {
	case q.Port == nil:
		return missing("Port")
	case q.Protocol == nil || *q.Protocol == "":
		return missing("Protocol")
	case q.TrafficType == nil || *q.TrafficType == "":
		return missing("TrafficType")
	case *q.Protocol != "tcp" && *q.Protocol != "udp":
		return invalid("Protocol", *q.Protocol)
	case *q.TrafficType != "ingress" && *q.TrafficType != "egress":
		return invalid("TrafficType", *q.TrafficType)
	}
	f.Port, f.Protocol, f.Ingress = *q.Port, *q.Protocol, *q.TrafficType == "ingress"
	return nil
}

func (q *faultRequest) latency(f *runtime.Fault) error {
	const most = uint64(runtime.MaxDelay / time.Millisecond)
	switch {
	case q.DelayMilliseconds == nil:
		return missing("DelayMilliseconds")
	case q.JitterMilliseconds == nil:
		return missing("JitterMilliseconds")
	case *q.DelayMilliseconds == 0 && *q.JitterMilliseconds == 0:
		return errors.New("required either DelayMilliseconds or JitterMilliseconds to be non-zero")
	case *q.DelayMilliseconds > most:
		return invalid("DelayMilliseconds", *q.DelayMilliseconds)
	case *q.JitterMilliseconds > most:
		return invalid("JitterMilliseconds", *q.JitterMilliseconds)
	}
	f.Delay, f.Jitter = time.Duration(*q.DelayMilliseconds)*time.Millisecond, time.Duration(*q.JitterMilliseconds)*time.Millisecond
	return q.concerned(f)
}

func (q *faultRequest) loss(f *runtime.Fault) error {
	switch {
	case q.LossPercent == nil:
		return missing("LossPercent")
	case *q.LossPercent < 1 || *q.LossPercent > 100:
		return invalid("LossPercent", *q.LossPercent)
	}
	f.Loss = int(*q.LossPercent)
	return q.concerned(f)
}

// concerned reads what packets an impairment is of.
func (q *faultRequest) concerned(f *runtime.Fault) (err error) {
	if len(q.Sources) == 0 {
		return missing("Sources")
	}
	if f.Sources, err = blocks("Sources", q.Sources); err != nil {
		return err
	}
	f.Flows = 100
	if q.FlowsPercent != nil {
		if f.Flows = *q.FlowsPercent; f.Flows <= 0 || f.Flows > 100 {
			return invalid("flowsPercent", f.Flows)
		}
	}
	return nil
}

// blocks reads addresses and blocks.
func blocks(member string, list []string) (out []netip.Prefix, err error) {
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if a, aerr := netip.ParseAddr(text); aerr == nil && a.Zone() == "" {
			a = a.Unmap()
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || p.Addr().Is4In6() {
			return nil, invalid(member, text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// limiter admits a request for a key every faultEvery. The zero value is ready.
type limiter struct {
	mu   sync.Mutex
	last map[string]time.Time // admitted no longer ago than that
}

func (l *limiter) admit(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, at := range l.last {
		if now.Sub(at) >= faultEvery {
			delete(l.last, k)
		}
	}
	if _, recent := l.last[key]; recent {
		return false
	}
	if l.last == nil {
		l.last = map[string]time.Time{}
	}
	l.last[key] = now
	return true
}
