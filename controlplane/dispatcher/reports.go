package dispatcher

import (
	"context"
	"errors"
	"hash/fnv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	// batchReports bounds a transaction. A report may bring a task's endpoints and service events with it; what is too much for
	// one transaction is halved.
	batchReports = 40
	// reportLanes is how many transactions are under way at a time. A node's reports stay in one lane, so that a later word on a task
	// is never committed before an earlier one.
	reportLanes = 4
	// window is how long a lane collects after a commit, if reports have come meanwhile: it is busy then, and few large transactions cost less
	// than many small ones. The first report to a lane that has nothing to do is committed at once.
	window = 15 * time.Millisecond
)

// reports collects what agents say of tasks and commits it in few transactions. Of several reports on one task only the newest is
// kept: reports are cumulative.
type reports struct {
	server *Server
	lanes  [reportLanes]*lane
}

type lane struct {
	reports *reports

	mu      sync.Mutex
	waiting map[reportKey]*agentapi.TaskStatus
	order   []reportKey
	ready   chan struct{} // capacity 1
}

type reportKey struct{ node, task string }

func newReports(s *Server) *reports {
	r := &reports{server: s}
	for i := range r.lanes {
		r.lanes[i] = &lane{reports: r, waiting: map[reportKey]*agentapi.TaskStatus{}, ready: make(chan struct{}, 1)}
	}
	return r
}

func (r *reports) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range r.lanes {
		g.Go(func() error { return l.run(ctx) })
	}
	return g.Wait()
}

// add takes in what a node says.
func (r *reports) add(node string, tasks []*agentapi.TaskStatus) {
	h := fnv.New32a()
	h.Write([]byte(node))
	r.lanes[h.Sum32()%reportLanes].add(node, tasks)
}

func (l *lane) add(node string, tasks []*agentapi.TaskStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range tasks {
		l.put(reportKey{node, t.TaskId}, t)
	}
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// put keeps the newer of two reports: of the later epoch, or further on in the task's life, or the later one.
func (l *lane) put(k reportKey, t *agentapi.TaskStatus) {
	old := l.waiting[k]
	if old == nil {
		l.order = append(l.order, k)
	} else if old.Epoch > t.Epoch || old.Epoch == t.Epoch && old.State > t.State {
		return
	}
	l.waiting[k] = t
}

func (l *lane) take() (keys []reportKey, tasks []*agentapi.TaskStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.order), batchReports)
	keys = append(keys, l.order[:n]...)
	l.order = l.order[n:]
	for _, k := range keys {
		tasks = append(tasks, l.waiting[k])
		delete(l.waiting, k)
	}
	return keys, tasks
}

// back returns a report that could not be committed, unless a newer one has come.
func (l *lane) back(k reportKey, t *agentapi.TaskStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[k] == nil {
		l.put(k, t)
	}
}

func (l *lane) run(ctx context.Context) error {
	for {
		keys, tasks := l.take()
		if len(keys) == 0 {
			select {
			case <-l.ready:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if !l.commit(ctx, keys, tasks) {
			select {
			case <-l.reports.server.Clock.After(time.Second):
			case <-ctx.Done():
				return nil
			}
		}
		if n := l.left(); n > 0 && n < batchReports {
			// Not by the clock that is passed in: no deadline of anybody's depends on it.
			select {
			case <-time.After(window):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

func (l *lane) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.order)
}

// commit commits in halves what cannot be committed together: one report that cannot be taken in, or is too much for one transaction
// with others, holds up no other. False: some are waiting again.
func (l *lane) commit(ctx context.Context, keys []reportKey, tasks []*agentapi.TaskStatus) bool {
	err := l.reports.commit(ctx, keys, tasks)
	switch n := len(keys); {
	case err == nil || ctx.Err() != nil:
		return true
	case n > 1:
		first := l.commit(ctx, keys[:n/2], tasks[:n/2])
		return l.commit(ctx, keys[n/2:], tasks[n/2:]) && first
	}
	l.reports.server.Log.Error("cannot take in a task report; trying again", "node", keys[0].node, "task", keys[0].task, "error", err)
	l.back(keys[0], tasks[0])
	return false
}

func (r *reports) commit(ctx context.Context, keys []reportKey, tasks []*agentapi.TaskStatus) error {
	list := &Reports{}
	for i, t := range tasks {
		list.Reports = append(list.Reports, &Reports_Report{Node: keys[i].node, Task: t})
	}
	return r.server.lead(ctx, func() error { return r.write(ctx, list) }, &Relay{Body: &Relay_Reports{list}})
}

// write commits reports, on the leader.
func (r *reports) write(ctx context.Context, list *Reports) error {
	_, err := r.server.Store.Update(ctx, func(tx *state.Tx) error {
		var all error
		for _, one := range list.Reports {
			all = errors.Join(all, r.server.Reporter.Report(tx, one.Node, one.Task))
		}
		return all
	})
	return err
}
