package placement

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/scheduler"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// waiting is a task without a place.
type waiting struct {
	key     state.Key
	task    *controlplane.Task
	created int64  // nanoseconds
	said    string // the reason that is recorded
	queue   *queue
	gone    bool // it waits no longer
}

// queue is the waiting tasks that ask for the same, the longest waiting first. When one of them finds no place none does, and what they have been told is
// not told again: tasks that wait for room cost nothing while others come and go.
type queue struct {
	key    string
	spec   scheduler.Spec
	tasks  []*waiting // those that are gone are taken out when they are the majority
	live   int        // of tasks
	sorted bool

	why     string           // they have no place, the last time they had none; empty: never
	nearest scheduler.Reason // what why is about; zero: it names no host
	told    int              // live tasks that have been told why
}

func (q *queue) add(w *waiting) {
	w.queue = q
	if n := len(q.tasks); n > 0 && older(w, q.tasks[n-1]) < 0 {
		q.sorted = false
	}
	q.tasks = append(q.tasks, w)
	q.live++
	q.count(w, 1)
}

func (q *queue) remove(w *waiting) {
	w.gone = true
	q.count(w, -1)
	if q.live--; q.live < len(q.tasks)/2 {
		q.tasks = slices.DeleteFunc(q.tasks, func(w *waiting) bool { return w.gone })
	}
}

// count counts a task among those that have been told.
func (q *queue) count(w *waiting, n int) {
	if w.said == q.why {
		w.said = q.why // the same text for all
		q.told += n
	}
}

// say records what a task has been told.
func (q *queue) say(w *waiting, said string) {
	q.count(w, -1)
	w.said = said
	q.count(w, 1)
}

func (q *queue) setWhy(why string, nearest scheduler.Reason) {
	q.nearest = nearest
	if q.why == why {
		return
	}
	q.why, q.told = why, 0
	for _, w := range q.tasks {
		if !w.gone {
			q.count(w, 1)
		}
	}
}

func older(a, b *waiting) int {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.task.Id, b.task.Id))
}

// head is a queue that may have room, and the first of its tasks that is not decided about.
type head struct {
	*queue
	class *scheduler.Class
	at    int
}

func (q *queue) head(class *scheduler.Class) head {
	if !q.sorted {
		slices.SortFunc(q.tasks, older)
		q.sorted = true
	}
	h := head{q, class, -1}
	h.next()
	return h
}

func (h *head) first() *waiting { return h.tasks[h.at] }

// next goes to the next task; false: there is none.
func (h *head) next() bool {
	for h.at++; h.at < len(h.tasks); h.at++ {
		if !h.first().gone {
			return true
		}
	}
	return false
}

// heads is a heap by whose task has waited for longest.
type heads []head

func (h heads) Len() int           { return len(h) }
func (h heads) Less(a, b int) bool { return older(h[a].first(), h[b].first()) < 0 }
func (h heads) Swap(a, b int)      { h[a], h[b] = h[b], h[a] }
func (h *heads) Push(x any)        { *h = append(*h, x.(head)) }
func (h *heads) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// appendKey appends everything of a task that specOf reads: those with the same ask for the same.
func appendKey(b []byte, t *controlplane.Task) []byte {
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	number := func(n uint32) { b = binary.AppendUvarint(b, uint64(n)) }
	flag := func(is bool) {
		if is {
			number(1)
		} else {
			number(0)
		}
	}
	flag(isFargate(t))
	flag(t.Service != "")
	flag(t.EnableExecuteCommand)
	for _, s := range [...]string{t.Account, t.Region, t.Cluster, t.Group, t.AvailabilityZone} {
		text(s)
	}
	d := t.Demand
	number(d.GetCpuUnits())
	number(d.GetMemoryMib())
	number(d.GetGpus())
	number(uint32(len(d.GetHostPorts())))
	for _, p := range d.GetHostPorts() {
		number(p.Port)
		text(p.Protocol)
	}
	for _, list := range [...][]string{d.GetAttributes(), d.GetAgentAttributes()} {
		number(uint32(len(list)))
		for _, a := range list {
			text(a)
		}
	}
	text(string(t.PlacementConstraintsJson))
	text(string(t.PlacementStrategyJson))
	return b
}
