package placement

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/scheduler"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	// batchTasks bounds a transaction: each task is one record, and a service event may come with it.
	batchTasks = 40
	// retryAfter is the pause after a failure that is not a conflict.
	retryAfter = time.Second
)

// errStale: a node is not as the ledger has it. What it has not seen is committed, so the watcher has it.
var errStale = errors.New("the ledger is behind")

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
	queues  map[string]*queue // by class
}

// waiting is a task without a place.
type waiting struct {
	task  *controlplane.Task
	said  string // the reason that is recorded
	queue *queue
}

// queue is the waiting tasks that ask for the same. When one of them finds no place none does, and what they have been told is
// not told again: tasks that wait for room cost nothing while others come and go.
type queue struct {
	spec  scheduler.Spec
	tasks map[state.Key]*waiting
}

func (p *Placer) follow(ctx context.Context) error {
	v := p.store.View()
	w := p.store.Watch(ctx, v.Revision(), followed...)
	l := &loop{Placer: p, ledger: load(v, uint64(p.clock.Now().UnixNano())), waiting: map[state.Key]*waiting{}, queues: map[string]*queue{}}
	for s := range controlplane.UnplacedTasks.Scan(v, state.K()) {
		l.wait(v, s)
	}
	for {
		if err := l.place(ctx); err != nil && !errors.Is(err, errStale) {
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
				l.wait(b.View, s)
			case e.Table == controlplane.TaskStatuses:
				l.forget(e.Key)
			}
		}
	}
}

// wait has the task wait if it has no place and needs one.
func (l *loop) wait(v *state.View, s *controlplane.TaskStatus) {
	key := controlplane.TaskStatuses.Key(s)
	if !s.Unplaced() {
		l.forget(key)
		return
	}
	if w := l.waiting[key]; w != nil {
		w.said = s.PlacementFailure
		return
	}
	t, ok := controlplane.Tasks.Get(v, key)
	if !ok {
		return
	}
	spec := specOf(t)
	id := spec.ID()
	q := l.queues[id]
	if q == nil {
		q = &queue{spec, map[state.Key]*waiting{}}
		l.queues[id] = q
	}
	q.tasks[key] = &waiting{t, s.PlacementFailure, q}
	l.waiting[key] = q.tasks[key]
}

func (l *loop) forget(key state.Key) {
	w := l.waiting[key]
	if w == nil {
		return
	}
	delete(l.waiting, key)
	if delete(w.queue.tasks, key); len(w.queue.tasks) == 0 {
		delete(l.queues, w.queue.spec.ID())
	}
}

// decision is what one task gets: a place or the reason why not.
type decision struct {
	*waiting
	where   scheduler.Placement
	failure string
}

// place decides about every task that waits for what there may be, the longest waiting first, and commits.
func (l *loop) place(ctx context.Context) error {
	var tasks []*waiting
	failed := map[*queue]string{}
	var decisions []decision
	for _, q := range l.queues {
		if why, full := l.full(q); full {
			failed[q] = why
		}
		for _, w := range q.tasks {
			if why, full := failed[q]; !full {
				tasks = append(tasks, w)
			} else if w.said != why {
				decisions = append(decisions, decision{waiting: w, failure: why})
			}
		}
	}
	slices.SortFunc(tasks, func(a, b *waiting) int {
		return cmp.Or(a.task.Created.AsTime().Compare(b.task.Created.AsTime()), cmp.Compare(a.task.Id, b.task.Id))
	})
	for _, w := range tasks {
		if d := l.decide(w, failed); d.where.Node != "" || d.failure != w.said {
			decisions = append(decisions, d)
		}
	}
	for len(decisions) > 0 {
		batch := decisions[:min(batchTasks, len(decisions))]
		if err := l.commit(ctx, batch); err != nil {
			for _, d := range decisions {
				if d.where.Node != "" {
					l.ledger.Remove(string(controlplane.Tasks.Key(d.task)))
				}
			}
			return err
		}
		decisions = decisions[len(batch):]
	}
	return nil
}

// full says whether no task of the queue can be placed now, and why.
func (l *loop) full(q *queue) (why string, full bool) {
	var t *controlplane.Task
	for _, w := range q.tasks {
		t = w.task
		break
	}
	class, err := l.ledger.Class(q.spec)
	if err != nil {
		return fmt.Sprintf("(service %s) was unable to place a task. Reason: %v", cmp.Or(t.Service, t.Group), err), true
	}
	if class.Room() {
		return "", false
	}
	return sentence(t, l.ledger.Explain(class), class.Members()), true
}

// decide asks a class that could not place once no more in this tick: nothing is given back within it.
func (l *loop) decide(w *waiting, failed map[*queue]string) decision {
	if why, known := failed[w.queue]; known {
		return decision{waiting: w, failure: why}
	}
	class, err := l.ledger.Class(w.queue.spec)
	if err == nil {
		if where, ok := l.ledger.Place(class, string(controlplane.Tasks.Key(w.task))); ok {
			return decision{waiting: w, where: where}
		}
	}
	failed[w.queue], _ = l.full(w.queue)
	return decision{waiting: w, failure: failed[w.queue]}
}

// commit writes one batch. Tasks that meanwhile need no place any more are given back to the ledger.
func (l *loop) commit(ctx context.Context, batch []decision) error {
	var dropped []state.Key
	_, err := l.store.Update(ctx, func(tx *state.Tx) error {
		dropped = dropped[:0]
		checked := map[string]bool{}
		said := map[string]bool{}
		// All that is read by indexes is read before the first put: a scan after one has all indexes of the table made anew for it.
		var placed []*controlplane.TaskStatus
		for _, d := range batch {
			if d.where.Node == "" {
				continue
			}
			key := controlplane.Tasks.Key(d.task)
			s, ok := controlplane.TaskStatuses.Get(tx, key)
			if ok {
				s, ok = s.AdvancePlaced(d.where.Node, d.where.GPUs...)
			}
			if !ok {
				dropped = append(dropped, key)
				continue
			}
			if !checked[d.where.Node] {
				checked[d.where.Node] = true
				if unknownTask(tx, l.ledger, d.where.Node) != "" || !open(tx, d) {
					return errStale
				}
			}
			placed = append(placed, s)
		}
		for _, s := range placed {
			controlplane.TaskStatuses.Put(tx, s)
		}
		for _, d := range batch {
			if d.where.Node != "" {
				continue
			}
			if s, ok := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(d.task)); ok {
				l.refuse(tx, s, d, said)
			}
		}
		return nil
	})
	for _, key := range dropped {
		l.ledger.Remove(string(key))
	}
	if err == nil {
		for _, d := range batch {
			if d.where.Node != "" {
				l.forget(controlplane.Tasks.Key(d.task))
			}
		}
	}
	return err
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
