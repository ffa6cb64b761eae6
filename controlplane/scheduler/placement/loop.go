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

// errStale: a node has a task that the ledger has not seen. The ledger is made anew from the replica.
var errStale = errors.New("the ledger is behind")

// Run is the scheduler's loop. It works whenever this server leads, until ctx ends.
func (p *Placer) Run(ctx context.Context) error {
	return p.store.RunLeader(ctx, func(ctx context.Context) error {
		for ctx.Err() == nil {
			err := p.follow(ctx)
			if ctx.Err() != nil || errors.Is(err, state.ErrCompacted) || errors.Is(err, errStale) {
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

// loop is one life of a ledger: from a view on, until it is found to be wrong.
type loop struct {
	*Placer
	ledger  *scheduler.Ledger
	waiting map[state.Key]*controlplane.Task
}

func (p *Placer) follow(ctx context.Context) error {
	v := p.store.View()
	w := p.store.Watch(ctx, v.Revision(), controlplane.TaskStatuses, controlplane.Nodes, controlplane.ContainerInstances)
	l := &loop{Placer: p, ledger: load(v, uint64(p.clock.Now().UnixNano())), waiting: map[state.Key]*controlplane.Task{}}
	for s := range controlplane.UnplacedTasks.Scan(v, state.K()) {
		l.wait(v, s)
	}
	for {
		if err := l.place(ctx); err != nil {
			return err
		}
		b, err := w.Next(ctx)
		if err != nil {
			return err
		}
		l.apply(b)
	}
}

func (l *loop) wait(v *state.View, s *controlplane.TaskStatus) {
	key := controlplane.TaskStatuses.Key(s)
	if !s.Unplaced() {
		delete(l.waiting, key)
	} else if l.waiting[key] == nil {
		if t, ok := controlplane.Tasks.Get(v, key); ok {
			l.waiting[key] = t
		}
	}
}

func (l *loop) apply(b state.Batch) {
	for _, e := range b.Events {
		switch e.Table {
		case controlplane.Nodes:
			if n, ok := e.New.(*controlplane.Node); ok {
				setNode(l.ledger, n)
			} else {
				l.ledger.RemoveNode(e.Old.(*controlplane.Node).Id)
			}
		case controlplane.ContainerInstances:
			if c, ok := e.New.(*controlplane.ContainerInstance); ok {
				n, _ := controlplane.Nodes.Get(b.View, state.K(c.Node))
				setInstance(l.ledger, c, n)
			} else {
				old := e.Old.(*controlplane.ContainerInstance)
				l.ledger.RemoveInstance(clusterPool(old.Scope(), old.Cluster), old.Node)
			}
		case controlplane.TaskStatuses:
			if s, ok := e.New.(*controlplane.TaskStatus); ok {
				setStatus(l.ledger, b.View, s)
				l.wait(b.View, s)
			} else {
				l.ledger.Remove(string(e.Key))
				delete(l.waiting, e.Key)
			}
		}
	}
}

// decision is what one task gets: a place or the reason why not.
type decision struct {
	task    *controlplane.Task
	where   scheduler.Placement
	failure string
}

// place decides about every waiting task, those of one class together, the longest waiting first, and commits.
func (l *loop) place(ctx context.Context) error {
	tasks := make([]*controlplane.Task, 0, len(l.waiting))
	for _, t := range l.waiting {
		tasks = append(tasks, t)
	}
	slices.SortFunc(tasks, func(a, b *controlplane.Task) int {
		return cmp.Or(a.Created.AsTime().Compare(b.Created.AsTime()), cmp.Compare(a.Id, b.Id))
	})
	failed := map[*scheduler.Class]string{}
	var decisions []decision
	for _, t := range tasks {
		decisions = append(decisions, l.decide(t, failed))
	}
	for batch := range slices.Chunk(decisions, batchTasks) {
		if err := l.commit(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// decide asks a class that could not place once no more in this tick: nothing is given back within it.
func (l *loop) decide(t *controlplane.Task, failed map[*scheduler.Class]string) decision {
	class, err := l.ledger.Class(specOf(t))
	if err != nil {
		return decision{task: t, failure: fmt.Sprintf("(service %s) was unable to place a task. Reason: %v", cmp.Or(t.Service, t.Group), err)}
	}
	if why, known := failed[class]; known {
		return decision{task: t, failure: why}
	}
	if where, ok := l.ledger.Place(class, string(controlplane.Tasks.Key(t))); ok {
		return decision{task: t, where: where}
	}
	failed[class] = sentence(t, l.ledger.Explain(class), class.Members())
	return decision{task: t, failure: failed[class]}
}

// commit writes one batch. Tasks that meanwhile need no place any more are given back to the ledger.
func (l *loop) commit(ctx context.Context, batch []decision) error {
	var dropped []state.Key
	_, err := l.store.Update(ctx, func(tx *state.Tx) error {
		dropped = dropped[:0]
		checked := map[string]bool{}
		said := map[string]bool{}
		for _, d := range batch {
			key := controlplane.Tasks.Key(d.task)
			s, ok := controlplane.TaskStatuses.Get(tx, key)
			if d.where.Node == "" {
				if ok {
					l.refuse(tx, s, d, said)
				}
				continue
			}
			if ok {
				s, ok = s.AdvancePlaced(d.where.Node)
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
			controlplane.TaskStatuses.Put(tx, s)
		}
		return nil
	})
	for _, key := range dropped {
		l.ledger.Remove(string(key))
	}
	if err == nil {
		for _, d := range batch {
			if d.where.Node != "" {
				delete(l.waiting, controlplane.Tasks.Key(d.task))
			}
		}
	}
	return err
}

// unknownTask guards the node's tasks and finds one that the ledger has not counted.
func unknownTask(tx *state.Tx, l *scheduler.Ledger, node string) string {
	for s := range controlplane.LiveTasksByNode.Scan(tx, state.K(node)) {
		if !l.Has(string(controlplane.TaskStatuses.Key(s))) {
			return s.Id
		}
	}
	return ""
}

// open says whether the node still takes tasks, in the transaction that gives it one.
func open(tx *state.Tx, d decision) bool {
	n, ok := controlplane.Nodes.Get(tx, state.K(d.where.Node))
	if !ok || n.Status != capacity.NodeReady || n.Health.GetDisk() != "" {
		return false
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
