package dispatcher

import (
	"context"
	"errors"
	"sync"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// batchReports bounds a transaction: a report may bring a task's endpoints and service events with it.
const batchReports = 20

// reports collects what agents say of tasks and commits it in few transactions. Of several reports on one task only the newest is
// kept: reports are cumulative.
type reports struct {
	server *Server

	mu      sync.Mutex
	waiting map[reportKey]*agentapi.TaskStatus
	order   []reportKey
	ready   chan struct{} // capacity 1
}

type reportKey struct{ node, task string }

func newReports(s *Server) *reports {
	return &reports{server: s, waiting: map[reportKey]*agentapi.TaskStatus{}, ready: make(chan struct{}, 1)}
}

func (r *reports) add(node string, tasks []*agentapi.TaskStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range tasks {
		r.put(reportKey{node, t.TaskId}, t)
	}
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

// put keeps the newer of two reports: of the later epoch, or further on in the task's life, or the later one.
func (r *reports) put(k reportKey, t *agentapi.TaskStatus) {
	old := r.waiting[k]
	if old == nil {
		r.order = append(r.order, k)
	} else if old.Epoch > t.Epoch || old.Epoch == t.Epoch && old.State > t.State {
		return
	}
	r.waiting[k] = t
}

func (r *reports) take() (keys []reportKey, tasks []*agentapi.TaskStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.order), batchReports)
	keys = append(keys, r.order[:n]...)
	r.order = r.order[n:]
	for _, k := range keys {
		tasks = append(tasks, r.waiting[k])
		delete(r.waiting, k)
	}
	return keys, tasks
}

// back returns a report that could not be committed, unless a newer one has come.
func (r *reports) back(k reportKey, t *agentapi.TaskStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[k] == nil {
		r.put(k, t)
	}
}

func (r *reports) run(ctx context.Context) error {
	for {
		keys, tasks := r.take()
		if len(keys) == 0 {
			select {
			case <-r.ready:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if r.commit(ctx, keys, tasks) == nil {
			continue
		}
		// One at a time, so that one report that cannot be taken in, or is too much for one transaction with others, holds up
		// no other.
		failed := false
		for i, k := range keys {
			if err := r.commit(ctx, keys[i:i+1], tasks[i:i+1]); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				r.server.Log.Error("cannot take in a task report; trying again", "node", k.node, "task", k.task, "error", err)
				r.back(k, tasks[i])
				failed = true
			}
		}
		if failed {
			select {
			case <-r.server.Clock.After(time.Second):
			case <-ctx.Done():
				return nil
			}
		}
	}
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
