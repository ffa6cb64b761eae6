package orchestrator

import (
	"slices"

	"github.com/seed-2f228079/neargate/controlplane"
)

// situation is all that decides how many tasks of a REPLICA service to start and which to stop.
type situation struct {
	desired        int
	minimumPercent int // of desired that stay healthy; rounded up
	maximumPercent int // of desired that may run or be starting; rounded down
	throttled      bool
	tasks          []member // those that nobody wants gone
}

// member is one task of the service. A look has one for each of them, so it is small, and what few looks ask for is asked of its task.
type member struct {
	task *controlplane.Task
	host *host
	// failed is why the task is to be replaced at once: its health checks failed. Empty: it is not.
	failed string
	// current: of the primary deployment and not on a draining instance. Others are to be replaced.
	current bool
	healthy bool
	running bool
	// protected: it may be replaced when it fails, but neither scaling in nor a deployment stops it.
	protected bool
	// unplaceable: the scheduler found no room for it.
	unplaceable bool
}

func (m *member) id() string { return m.task.Id }

// created is in nanoseconds.
func (m *member) created() int64 {
	return m.task.Created.GetSeconds()*1e9 + int64(m.task.Created.GetNanos())
}

// victim is a task to stop.
type victim struct {
	id      string
	reason  string // "" when the service's scaling is reason enough
	planned bool   // its replacement serves already
}

// plan is the rule of rolling updates: see "Amazon ECS deployment types, rolling update" in the ECS guide. Tasks are started as far
// as maximumPercent lets, and tasks to be replaced are stopped when healthy new ones have taken their place, or to make room for
// new ones, as far as minimumPercent lets. Unhealthy tasks protect nothing and go first. Protected tasks stay until their protection ends.
// All that is to be started and stopped may be so at once, in any order, and in part.
// blocked: the percentages leave no way on, and nothing is under way that could open one.
func plan(s situation) (start int, stop []victim, blocked bool) {
	minimum := (s.desired*s.minimumPercent + 99) / 100
	maximum := s.desired * s.maximumPercent / 100

	replacing := 0
	for i := range s.tasks {
		if !s.tasks[i].current {
			replacing++
		}
	}
	current, old := make([]*member, 0, len(s.tasks)-replacing), make([]*member, 0, replacing)
	for i := range s.tasks {
		m := &s.tasks[i]
		switch {
		case m.failed != "":
			stop = append(stop, victim{m.id(), m.failed, false})
		case m.current:
			current = append(current, m)
		default:
			old = append(old, m)
		}
	}

	if n := len(current) - s.desired; n > 0 {
		surplus := map[*member]bool{}
		for m := range victims(unprotected(current), n) {
			stop = append(stop, victim{m.id(), "", true})
			surplus[m] = true
		}
		current = slices.DeleteFunc(current, func(m *member) bool { return surplus[m] })
	}

	serving, oldServing := healthy(current), healthy(old)
	missing := s.desired - len(current)
	room := max(maximum-len(current)-len(old), s.desired-len(current)-len(old), 0)
	start = min(missing, room)
	waiting := missing - start // for room under maximumPercent
	blocked = waiting > 0 && start == 0 && serving == len(current)
	for _, m := range current {
		if m.unplaceable {
			waiting++ // for room on the hosts
		}
	}

	replaced := len(old) - max(s.desired-serving, 0)
	spare := serving + oldServing - minimum
	wanted := max(replaced, waiting)
	if oldServing < len(old) || wanted > 0 && spare > 0 { // otherwise there are none to be chosen
		for m := range victims(unprotected(old), len(old)) {
			if m.healthy && (wanted <= 0 || spare <= 0) {
				break // as are all that follow
			}
			stop = append(stop, victim{m.id(), "", m.healthy && replaced > 0})
			if m.healthy {
				spare--
				replaced--
			}
			wanted--
		}
	}
	if s.throttled {
		start = 0
	}
	return start, stop, blocked && len(stop) == 0
}

func healthy(tasks []*member) (n int) {
	for _, m := range tasks {
		if m.healthy {
			n++
		}
	}
	return n
}

func unprotected(tasks []*member) []*member {
	if !slices.ContainsFunc(tasks, func(m *member) bool { return m.protected }) {
		return tasks
	}
	return slices.DeleteFunc(slices.Clone(tasks), func(m *member) bool { return m.protected })
}
