package agent

import (
	"context"
	"errors"
	"io"
	"regexp"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/agent/logs"
	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// awslogs is the log driver whose output goes to the control plane.
const awslogs = logs.DriverAWSLogs

// Shipping is a driver that holds a container up, in mode blocking, until what it has written is shipped.
type Shipping interface {
	// Shipped says that everything the container has written up to a time is durable elsewhere.
	Shipped(task, container string, upTo time.Time) error
}

// What one batch holds at most; the server takes no more.
const (
	shipEvents   = 10_000
	shipBytes    = 1 << 20
	shipOverhead = 26 // for each event
)

const (
	shipAhead = 64              // lines read ahead of what is sent
	holdEvent = 5 * time.Second // for how long an event waits for further lines, as with Docker's driver
	firstShip = 200 * time.Millisecond
	lastShip  = 30 * time.Second
	refused   = 5 * time.Minute // until a server is asked again that has refused: the group may be made anew
)

// shipment is one container's output on its way to its log stream.
//
// How far it got is known by the server: each batch carries the time of its last line, which the stream keeps with it. So an agent
// asks where to go on, and a batch whose acknowledgement was lost is not written twice. What is on the disk of this host is only which
// outputs are to be shipped (taskStore.keepShipment), until all of it was acknowledged.
type shipment struct {
	task, container string
	log             *agentapi.LogConfiguration
	start           *regexp.Regexp // of an event of several lines; may be nil
}

// shipments are those under way.
type shipments struct {
	changed chan struct{} // holds a token when there may be more

	mu      sync.Mutex            // held across small writes of the store: a shipment is kept or forgotten, and its entry here with it
	running map[shipmentKey]*bool // true: it has to be looked at again when it is done
}

type shipmentKey struct{ task, container string }

func (s *shipment) key() shipmentKey { return shipmentKey{s.task, s.container} }

func newShipments() shipments {
	return shipments{changed: make(chan struct{}, 1), running: map[shipmentKey]*bool{}}
}

func (s *shipments) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// newShipment reads the options; its error is for who wrote them.
func newShipment(task, container string, log *agentapi.LogConfiguration) (s *shipment, err error) {
	s = &shipment{task: task, container: container, log: log}
	if format := log.Options["awslogs-datetime-format"]; format != "" {
		s.start, err = logs.TimePattern(format)
	} else if pattern := log.Options["awslogs-multiline-pattern"]; pattern != "" {
		s.start, err = regexp.Compile(pattern)
	}
	return s, err
}

// openLog makes sure, before a container starts, that its output will have a place.
func (w *worker) openLog(ctx context.Context, c *agentapi.ContainerSpec) *failure {
	if c.GetLog().GetDriver() != awslogs {
		return nil
	}
	s, err := newShipment(w.id, c.Name, c.Log)
	for wait := firstShip; err == nil; wait = min(2*wait, lastShip) {
		call, end := context.WithCancel(ctx)
		_, _, failed := w.a.openShipment(call, s)
		end()
		if failed == nil || ctx.Err() != nil {
			return nil
		}
		if code := status.Code(failed); code != codes.Unavailable && code != codes.ResourceExhausted {
			err = errors.New(status.Convert(failed).Message())
			break
		}
		w.a.log.Warn("open a log stream; trying again", "task", w.id, "container", c.Name, "error", failed, "in", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-w.a.cfg.Clock.After(wait):
		}
	}
	as, _ := w.current()
	reason := "failed to create Cloudwatch log stream: " + err.Error()
	if as.Spec.LaunchType == "FARGATE" {
		reason = "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: " + reason + " : exit status 1"
	} else {
		reason = "CannotStartContainerError: Error response from daemon: failed to initialize logging driver: " + reason
	}
	w.report(func(st *agentapi.TaskStatus) { containerStatus(st, c.Name).Reason = reason })
	return &failure{codeFailedToStart, reason}
}

// openShipment begins the call and returns how far the stream has been written. The call ends with ctx.
func (a *Agent) openShipment(ctx context.Context, s *shipment) (agentapi.Dispatcher_ShipLogsClient, uint64, error) {
	call, err := a.cfg.Client.ShipLogs(ctx)
	if err != nil {
		return nil, 0, err
	}
	if err := call.Send(&agentapi.ShipBatch{NodeId: a.cfg.NodeID, TaskId: s.task, Container: s.container}); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	ack, err := call.Recv() // after a failed Send: why
	return call, ack.GetMark(), err
}

// shipContainer lets what a started container writes be shipped. One whose shipment is under way, because it was started before, is
// looked at again.
func (a *Agent) shipContainer(task string, c *agentapi.ContainerSpec) {
	if c.GetLog().GetDriver() != awslogs {
		return
	}
	s, err := newShipment(task, c.Name, c.Log)
	if err != nil {
		return // openLog has said it
	}
	a.shipments.mu.Lock()
	defer a.shipments.mu.Unlock()
	if err := a.store.keepShipment(s); err != nil {
		a.log.Error("keep in mind that the output of a container is to be shipped", "task", task, "container", c.Name, "error", err)
	}
	if again := a.shipments.running[s.key()]; again != nil {
		*again = true
	}
	a.shipments.wake()
}

// shipLoop works on all shipments that are kept, those of an earlier process first, until ctx ends.
func (a *Agent) shipLoop(ctx context.Context) {
	a.shipments.wake()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.shipments.changed:
		}
		list, err := a.store.shipments()
		if err != nil {
			a.log.Error("look for outputs to ship", "error", err)
		}
		for _, s := range list {
			a.ship(ctx, s)
		}
	}
}

// ship works on a shipment, unless somebody does, until all of it was acknowledged or ctx ends.
func (a *Agent) ship(ctx context.Context, s *shipment) {
	a.shipments.mu.Lock()
	defer a.shipments.mu.Unlock()
	if a.shipments.running[s.key()] != nil {
		return
	}
	again := new(bool)
	a.shipments.running[s.key()] = again
	a.wg.Go(func() {
		for a.shipAll(ctx, s) {
			if a.shipped(s, again) {
				return
			}
		}
	})
}

// shipped ends a shipment, unless it has to be looked at again.
func (a *Agent) shipped(s *shipment, again *bool) bool {
	a.shipments.mu.Lock()
	defer a.shipments.mu.Unlock()
	if *again {
		*again = false
		return false
	}
	delete(a.shipments.running, s.key())
	if err := a.store.forgetShipment(s); err != nil {
		a.log.Error("forget an output that was shipped", "task", s.task, "container", s.container, "error", err)
	}
	return true
}

// shipAll calls until everything the container has written was acknowledged; false: ctx ended first.
func (a *Agent) shipAll(ctx context.Context, s *shipment) bool {
	for wait := firstShip; ; wait = min(2*wait, lastShip) {
		began := a.cfg.Clock.Now()
		err := a.shipOnce(ctx, s)
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
			return true
		case errors.Is(err, runtime.ErrNotFound): // removed when its time was over
			a.log.Warn("the output of a container is gone before all of it was shipped", "task", s.task, "container", s.container)
			return true
		}
		if a.cfg.Clock.Now().Sub(began) > lastShip {
			wait = firstShip
		}
		if code := status.Code(err); code == codes.NotFound || code == codes.PermissionDenied {
			wait = refused
		}
		a.log.Warn("ship the output of a container; trying again", "task", s.task, "container", s.container, "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return false
		case <-a.cfg.Clock.After(wait):
		}
	}
}

// shipOnce is one call, from where the stream ends to the end of the container's output.
func (a *Agent) shipOnce(ctx context.Context, s *shipment) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	call, mark, err := a.openShipment(ctx, s)
	if err != nil {
		return err
	}
	opt := runtime.LogOptions{Follow: true}
	if mark > 0 {
		opt.Since = time.Unix(0, int64(mark)+1)
	}
	r, err := a.cfg.Driver.Logs(ctx, s.task, s.container, opt)
	if err != nil {
		return err
	}
	lines, failed := make(chan runtime.LogLine, shipAhead), make(chan error, 1)
	go func() { // ends with ctx at the latest
		defer r.Close()
		defer close(lines)
		for {
			l, err := r.Next()
			if err != nil {
				failed <- err
				return
			}
			select {
			case lines <- l:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	p := packer{call: call, mark: mark, events: logs.Assembler{Start: s.start}, shipped: func(mark uint64) {
		d, ok := a.cfg.Driver.(Shipping)
		if !ok || mark == 0 {
			return
		}
		if err := d.Shipped(s.task, s.container, time.Unix(0, int64(mark))); err != nil {
			a.log.Warn("note how far the output of a container is shipped", "task", s.task, "container", s.container, "error", err)
		}
	}}
	p.shipped(mark)
	if err := p.run(ctx, a, lines); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, io.EOF) {
		return err
	}
	return call.CloseSend()
}

// packer makes batches of lines. It sends one when the one before was acknowledged and nothing more is ready: the busier a container,
// the larger its batches.
type packer struct {
	call   agentapi.Dispatcher_ShipLogsClient
	events logs.Assembler
	batch  *agentapi.ShipBatch // nil: empty
	size   int
	mark   uint64 // of the last event

	shipped func(mark uint64) // called when the server has all up to a mark

	held time.Time        // the event that waits for further lines, by the time of its first
	hold <-chan time.Time // when that has waited long enough
}

func (p *packer) run(ctx context.Context, a *Agent, lines <-chan runtime.LogLine) error {
	for {
		if since, held := p.events.Held(); !held {
			p.hold = nil
		} else if p.hold == nil || !since.Equal(p.held) {
			p.held, p.hold = since, a.cfg.Clock.After(holdEvent)
		}
		select {
		case l, ok := <-lines:
			if !ok {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return errors.Join(p.add(p.events.Flush()), p.send())
			}
			if err := p.add(p.events.Add(l)); err != nil {
				return err
			}
			if len(lines) > 0 {
				continue
			}
		case <-p.hold:
			p.hold = nil
			if err := p.add(p.events.Flush()); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := p.send(); err != nil {
			return err
		}
	}
}

func (p *packer) add(events []logs.Event) error {
	for _, e := range events {
		text := wireText(e.Text)
		n := len(text) + shipOverhead
		if p.batch != nil && (p.size+n > shipBytes || len(p.batch.Events) == shipEvents) {
			if err := p.send(); err != nil {
				return err
			}
		}
		if p.batch == nil {
			p.batch = &agentapi.ShipBatch{}
		}
		p.batch.Events = append(p.batch.Events, &agentapi.ShipEvent{TimeMillis: e.At.UnixMilli(), Text: text})
		p.size += n
		// Drivers whose lines can have one time (docker's) lose none by that: the mark grows all the same.
		p.mark = max(p.mark+1, uint64(e.Last.UnixNano()))
		p.batch.Mark = p.mark
	}
	return nil
}

// send sends what there is and waits until it is durable.
func (p *packer) send() error {
	if p.batch == nil {
		return nil
	}
	if err := p.call.Send(p.batch); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	p.batch, p.size = nil, 0
	ack, err := p.call.Recv()
	if errors.Is(err, io.EOF) || err == nil && ack.Mark != p.mark {
		return status.Error(codes.Unavailable, "the server ended the call before the last batch was acknowledged")
	}
	if err == nil {
		p.shipped(ack.Mark)
	}
	return err
}
