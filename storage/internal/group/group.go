// Package group commits together what waits at the same time, as several appends do that need one fsync. There is no goroutine that
// works for the others: whoever finds nobody working does it for all who wait, and hands the right over to one of those who came
// meanwhile, so that nobody works for others for long.
//
// Invariants: one group is worked on at a time, in the order in which its members came; each member is answered once.
package group

import "sync"

// Turn is a member's place in the queue, embedded in what is committed.
type Turn struct {
	done chan error    // capacity 1
	lead chan struct{} // capacity 1: the right to work is handed over
}

func (t *Turn) turn() *Turn { return t }

// Done answers who waits.
func (t *Turn) Done(err error) { t.done <- err }

// Queue is of those who wait; the zero value is ready.
type Queue[T interface{ turn() *Turn }] struct {
	mu      sync.Mutex
	pending []T
	working bool
}

// Do waits until v is answered. take says how many of those who wait, one at least, are worked on together, and must not block; work
// answers each of them with Done.
func (q *Queue[T]) Do(v T, take func(pending []T) int, work func(group []T)) error {
	t := v.turn()
	t.done, t.lead = make(chan error, 1), make(chan struct{}, 1)
	q.mu.Lock()
	q.pending = append(q.pending, v)
	if q.working {
		q.mu.Unlock()
		select {
		case err := <-t.done:
			return err
		case <-t.lead:
		}
		q.mu.Lock()
	}
	q.working = true
	n := take(q.pending)
	members := q.pending[:n:n]
	q.pending = q.pending[n:]
	q.mu.Unlock()
	work(members)
	q.handOver()
	return <-t.done
}

func (q *Queue[T]) handOver() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending) > 0 {
		q.pending[0].turn().lead <- struct{}{}
		return
	}
	q.working, q.pending = false, nil
}
