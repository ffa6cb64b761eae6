package agent

import (
	"sync"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// outbox collects what goes up. It is bounded by what exists on the host, not by time: per task, endpoint and kind only the
// newest word is kept.
type outbox struct {
	ready chan struct{} // holds one token while there is something to send
	soon  chan struct{} // holds one token while there is something that can wait for more

	mu         sync.Mutex
	tasks      map[string]*agentapi.TaskStatus
	checks     map[endpointKey]*agentapi.HealthTransition // newest of each, kept for the next session
	dirty      map[endpointKey]bool                       // of checks, to be sent
	drained    map[endpointKey]*agentapi.Drained
	acks       map[agentapi.Kind]uint64
	hostHealth *agentapi.HostHealth // nil: nothing new
}

type endpointKey struct{ group, endpoint string }

func newOutbox() *outbox {
	return &outbox{
		ready: make(chan struct{}, 1), soon: make(chan struct{}, 1), tasks: map[string]*agentapi.TaskStatus{},
		checks: map[endpointKey]*agentapi.HealthTransition{}, dirty: map[endpointKey]bool{},
		drained: map[endpointKey]*agentapi.Drained{}, acks: map[agentapi.Kind]uint64{},
	}
}

func (o *outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

// wakeSoon has what was put in go with whatever is urgent, or after patience.
func (o *outbox) wakeSoon() {
	select {
	case o.soon <- struct{}{}:
	default:
	}
}

// task puts in a task's status. One that is not due can wait: most tasks run a moment later, and saying only that saves the control plane half of
// its writing.
func (o *outbox) task(s *agentapi.TaskStatus, due bool) {
	o.mu.Lock()
	o.tasks[s.TaskId] = s
	o.mu.Unlock()
	if due {
		o.wake()
	} else {
		o.wakeSoon()
	}
}

func (o *outbox) health(t *agentapi.HealthTransition) {
	k := endpointKey{t.TargetGroupArn, t.EndpointId}
	o.mu.Lock()
	o.checks[k], o.dirty[k] = t, true
	o.mu.Unlock()
	o.wake()
}

func (o *outbox) drain(d *agentapi.Drained) {
	o.mu.Lock()
	o.drained[endpointKey{d.TargetGroupArn, d.EndpointId}] = d
	o.mu.Unlock()
	o.wake()
}

func (o *outbox) host(h *agentapi.HostHealth) {
	o.mu.Lock()
	o.hostHealth = h
	o.mu.Unlock()
	o.wake()
}

// ack puts in an acknowledgement. Nobody waits for that of assignments: their tasks' statuses say more.
func (o *outbox) ack(k agentapi.Kind, rev uint64) {
	o.mu.Lock()
	o.acks[k] = max(o.acks[k], rev)
	o.mu.Unlock()
	if k == agentapi.Kind_ASSIGNMENTS {
		o.wakeSoon()
		return
	}
	o.wake()
}

// newSession drops what Hello has said and repeats the health of every endpoint that is still checked here.
func (o *outbox) newSession() {
	o.mu.Lock()
	clear(o.tasks)
	clear(o.acks)
	o.hostHealth = nil
	for k := range o.checks {
		o.dirty[k] = true
	}
	o.mu.Unlock()
	o.wake()
}

// checked forgets the health of endpoints that this host does not check any more.
func (o *outbox) checked(u *agentapi.Update, names map[string]endpointKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if u.Full {
		keep := map[endpointKey]bool{}
		for _, r := range u.Resources {
			c := r.GetCheck()
			keep[endpointKey{c.GetTargetGroupArn(), c.GetEndpointId()}] = true
		}
		for k := range o.checks {
			if !keep[k] {
				delete(o.checks, k)
				delete(o.dirty, k)
			}
		}
		clear(names)
	}
	for _, n := range u.Removed {
		delete(o.checks, names[n])
		delete(o.dirty, names[n])
		delete(names, n)
	}
	for _, r := range u.Resources {
		c := r.GetCheck()
		names[r.Name] = endpointKey{c.GetTargetGroupArn(), c.GetEndpointId()}
	}
}

// take empties the box into messages. Acknowledgements come first: others wait for them.
func (o *outbox) take() []*agentapi.Up {
	o.mu.Lock()
	defer o.mu.Unlock()
	var ups []*agentapi.Up
	for k, rev := range o.acks {
		ups = append(ups, &agentapi.Up{Body: &agentapi.Up_Ack{Ack: &agentapi.Ack{Kind: k, Revision: rev}}})
	}
	if len(o.tasks) > 0 {
		r := &agentapi.StatusReport{}
		for _, s := range o.tasks {
			r.Tasks = append(r.Tasks, s)
		}
		ups = append(ups, &agentapi.Up{Body: &agentapi.Up_Status{Status: r}})
	}
	if len(o.dirty) > 0 {
		r := &agentapi.HealthReport{}
		for k := range o.dirty {
			r.Transitions = append(r.Transitions, o.checks[k])
		}
		ups = append(ups, &agentapi.Up{Body: &agentapi.Up_Health{Health: r}})
	}
	if len(o.drained) > 0 {
		r := &agentapi.DrainReport{}
		for _, d := range o.drained {
			r.Drained = append(r.Drained, d)
		}
		ups = append(ups, &agentapi.Up{Body: &agentapi.Up_Drained{Drained: r}})
	}
	if o.hostHealth != nil {
		ups = append(ups, &agentapi.Up{Body: &agentapi.Up_Host{Host: o.hostHealth}})
	}
	o.hostHealth = nil
	clear(o.acks)
	clear(o.tasks)
	clear(o.dirty)
	clear(o.drained)
	return ups
}
