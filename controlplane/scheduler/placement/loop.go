package placement

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/scheduler"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	// batchTasks bounds a transaction: each task is one record, and a service event may come with it.
	batchTasks = 40
	// commitsAtOnce is how many transactions are under way together.
	commitsAtOnce = 4
	// roundTasks bounds what is decided before the loop looks at what has happened meanwhile; what it commits itself makes it look.
	roundTasks = 10 * commitsAtOnce * batchTasks
	// retryAfter is the pause after a failure that is not a conflict.
	retryAfter = time.Second
)

// Run is the scheduler's loop. It works whenever this server leads, until ctx ends.
func (p *Placer) Run(ctx context.Context) error {
	return p.store.RunLeader(ctx, func(ctx context.Context) error {
		for ctx.Err() == nil {
			err := p.follow(ctx)
			if ctx.Err() != nil || errors.Is(err, state.ErrCompacted) {
				continue
			}
			p.log.Error("placement failed; trying again", "error", err)
			select {
			case <-p.clock.After(retryAfter):
			case <-ctx.Done():
			}
		}
		return nil
	})
}

// loop is one life of a ledger: from a view on, until changes were missed.
type loop struct {
	*Placer
	ledger  *scheduler.Ledger
	waiting map[state.Key]*waiting
	queues  map[string]*queue
	scratch []byte // for keys of queues
}

func (p *Placer) follow(ctx context.Context) error {
	v := p.store.View()
	w := p.store.Watch(ctx, v.Revision(), followed...)
	l := p.newLoop(v)
	for {
		if err := l.place(ctx); err != nil {
			return err
		}
		b, err := w.Next(ctx)
		if err != nil {
			return err
		}
		follow(l.ledger, b)
		for _, e := range b.Events {
			switch s, ok := e.New.(*controlplane.TaskStatus); {
			case ok:
				l.wait(b.View, e.Key, s)
			case e.Table == controlplane.TaskStatuses:
				l.forget(e.Key)
			}
		}
	}
}

func (p *Placer) newLoop(v *state.View) *loop {
	l := &loop{Placer: p, ledger: load(v, uint64(p.clock.Now().UnixNano())), waiting: map[state.Key]*waiting{}, queues: map[string]*queue{}}
	for key, s := range controlplane.UnplacedTasks.ScanKeys(v, state.K()) {
		l.wait(v, key, s)
	}
	return l
}

// wait has the task wait if it has no place and needs one.
func (l *loop) wait(v *state.View, key state.Key, s *controlplane.TaskStatus) {
	if !s.Unplaced() {
		l.forget(key)
		return
	}
	if w := l.waiting[key]; w != nil {
		w.queue.say(w, s.PlacementFailure)
		return
	}
	t, ok := controlplane.Tasks.Get(v, key)
	if !ok {
		return
	}
	l.scratch = appendKey(l.scratch[:0], t)
	q := l.queues[string(l.scratch)]
	if q == nil {
		q = &queue{key: string(l.scratch), spec: specOf(t), sorted: true}
		l.queues[q.key] = q
	}
	w := &waiting{key: key, task: t, created: t.Created.AsTime().UnixNano(), said: s.PlacementFailure}
	q.add(w)
	l.waiting[key] = w
}

func (l *loop) forget(key state.Key) {
	w := l.waiting[key]
	if w == nil {
		return
	}
	delete(l.waiting, key)
	if w.queue.remove(w); w.queue.live == 0 {
		delete(l.queues, w.queue.key)
	}
}

// decision is what one task gets: a place or the reason why not.
type decision struct {
	*waiting
	where   scheduler.Placement
	failure string
}

// place decides about the tasks that wait for what there may be, the longest waiting first, and commits. A queue that could not
// place once is asked no more: nothing is given back meanwhile.
func (l *loop) place(ctx context.Context) error {
	var decisions []decision
	var room heads
	var refused []head
	for _, q := range l.queues {
		class, err := l.ledger.Class(q.spec)
		switch {
		case err != nil:
			q.setWhy(fmt.Sprintf("(service %s) was unable to place a task. Reason: %v", nameOf(q.tasks[0].task), err), scheduler.Reason{})
			refused = append(refused, head{queue: q})
		case class.Room():
			room = append(room, q.head(class))
		default:
			l.full(q, class)
			refused = append(refused, head{queue: q})
		}
	}
	heap.Init(&room)
	for len(room) > 0 && len(decisions) < roundTasks {
		h := &room[0]
		where, ok := l.ledger.Place(h.class, string(h.first().key))
		if ok {
			decisions = append(decisions, decision{waiting: h.first(), where: where})
			if h.next() {
				heap.Fix(&room, 0)
				continue
			}
		} else {
			l.full(h.queue, h.class)
			refused = append(refused, *h)
		}
		heap.Pop(&room)
	}
	for _, h := range refused {
		if h.told == h.live {
			continue
		}
		for _, w := range h.tasks[h.at:] {
			if !w.gone && w.said != h.why && len(decisions) < roundTasks {
				decisions = append(decisions, decision{waiting: w, failure: h.why})
			}
		}
	}
	for len(decisions) > 0 {
		some := decisions[:min(commitsAtOnce*batchTasks, len(decisions))]
		decisions = decisions[len(some):]
		if err := l.commit(ctx, some); err != nil {
			l.giveBack(decisions)
			return err
		}
	}
	return nil
}

// full finds out why no task of the queue can be placed. What was said stays as long as it is true: with every change
// another host may be the nearest, and thousands of tasks would be told.
func (l *loop) full(q *queue, class *scheduler.Class) {
	t := q.tasks[0].task
	if isFargate(t) {
		q.setWhy(noRoom(t, scheduler.Reason{}), scheduler.Reason{})
	} else if !l.ledger.Still(class, q.nearest) {
		nearest := l.ledger.Nearest(class)
		q.setWhy(noRoom(t, nearest), nearest)
	}
}

// giveBack takes choices back that are not committed.
func (l *loop) giveBack(decisions []decision) {
	for _, d := range decisions {
		if d.where.Node != "" {
			l.ledger.Remove(string(d.key))
		}
	}
}

// commit writes decisions, in several transactions at a time: each waits for the log. A task that needs no place any more, or whose node is not as the
// ledger has it, is given back to the ledger and left to what is committed already and on its way here.
func (l *loop) commit(ctx context.Context, decisions []decision) error {
	var batches []*batch
	var all errgroup.Group // without a context: one that fails ends no other
	for some := range slices.Chunk(decisions, batchTasks) {
		b := &batch{loop: l, decisions: some, placed: make([]decision, 0, len(some))}
		batches = append(batches, b)
		all.Go(func() error {
			_, b.err = l.store.Update(ctx, b.write)
			return b.err
		})
	}
	err := all.Wait()
	for _, b := range batches {
		if b.err != nil {
			l.giveBack(b.decisions)
			continue
		}
		l.giveBack(b.dropped)
		for _, d := range b.placed {
			l.forget(d.key)
		}
	}
	return err
}

// batch is a transaction. Others are under way at the same time: it only reads the ledger.
type batch struct {
	*loop
	decisions       []decision
	placed, dropped []decision
	err             error
}

func (b *batch) write(tx *state.Tx) error {
	b.placed, b.dropped = b.placed[:0], b.dropped[:0]
	known := make(map[string]bool, len(b.decisions)) // all that is on the node, by node
	said := map[string]bool{}
	// All that is read by indexes is read before the first put: a scan after one has all indexes of the table made anew for it.
	statuses := make([]*controlplane.TaskStatus, 0, len(b.decisions))
	for _, d := range b.decisions {
		node := d.where.Node
		if node == "" {
			continue
		}
		s, ok := controlplane.TaskStatuses.Get(tx, d.key)
		if ok {
			s, ok = s.AdvancePlaced(node, d.where.GPUs...)
		}
		if _, checked := known[node]; ok && !checked {
			known[node] = unknownTask(tx, b.ledger, node) == ""
		}
		if !ok || !known[node] || !open(tx, d) {
			b.dropped = append(b.dropped, d)
			continue
		}
		b.placed, statuses = append(b.placed, d), append(statuses, s)
	}
	for _, s := range statuses {
		controlplane.TaskStatuses.Put(tx, s)
	}
	for _, d := range b.decisions {
		if d.where.Node != "" {
			continue
		}
		if s, ok := controlplane.TaskStatuses.Get(tx, d.key); ok {
			b.refuse(tx, s, d, said)
		}
	}
	return nil
}

// unknownTask guards the node's tasks and finds one that the ledger has not counted.
func unknownTask(tx *state.Tx, l *scheduler.Ledger, node string) string {
	for key, s := range controlplane.LiveTasksByNode.ScanKeys(tx, state.K(node)) {
		if !l.Has(string(key)) {
			return s.Id
		}
	}
	return ""
}

// open says whether the node still takes tasks, and has the GPUs that the task is to have, in the transaction that gives it one.
func open(tx *state.Tx, d decision) bool {
	n, ok := controlplane.Nodes.Get(tx, state.K(d.where.Node))
	if !ok || n.Status != capacity.NodeReady || n.Health.GetDisk() != "" {
		return false
	}
	for _, gpu := range d.where.GPUs {
		if !slices.Contains(n.Resources.GetGpus(), gpu) {
			return false
		}
	}
	if isFargate(d.task) {
		return n.Serverless
	}
	c, ok := controlplane.ContainerInstances.Get(tx, d.task.Scope().Key(d.task.Cluster, d.where.Instance))
	return ok && c.Status == capacity.Active
}

// nameOf is what the task is called in events.
func nameOf(t *controlplane.Task) string { return cmp.Or(t.Service, t.Group) }

// refuse remembers why a task is not placed and tells the service, when the reason is new.
func (l *loop) refuse(tx *state.Tx, s *controlplane.TaskStatus, d decision, said map[string]bool) {
	s, changed := s.AdvancePlacementFailure(d.failure)
	if !changed {
		return
	}
	controlplane.TaskStatuses.Put(tx, s)
	if s.Service == "" || said[s.Service+d.failure] {
		return
	}
	said[s.Service+d.failure] = true
	if service, ok := controlplane.Services.Get(tx, s.Scope().Key(s.Cluster, s.Service)); ok {
		controlplane.AppendServiceEvent(tx, service, d.failure, l.clock.Now(), rand.Reader)
	}
}
