package orchestrator

import "slices"

// situation is all that decides how many tasks of a REPLICA service to start and which to stop.
type situation struct {
	desired        int
	minimumPercent int // of desired that stay healthy; rounded up
	maximumPercent int // of desired that may run or be starting; rounded down
	throttled      bool
	tasks          []member // those that nobody wants gone
}

// member is one task of the service.
type member struct {
	id string
	at int // among the look's live tasks
	// current: of the primary deployment and not on a draining instance. Others are to be replaced.
	current bool
	healthy bool
	running bool
	// failed is why the task is to be replaced at once: its health checks failed. Empty: it is not.
	failed string
	// protected: it may be replaced when it fails, but neither scaling in nor a deployment stops it.
	protected bool
	// unplaceable: the scheduler found no room for it.
	unplaceable bool
	zone, node  string
	created     int64
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
// blocked: the percentages leave no way on, and nothing is under way that could open one.
func plan(s situation) (start int, stop []victim, blocked bool) {
	minimum := (s.desired*s.minimumPercent + 99) / 100
	maximum := s.desired * s.maximumPercent / 100

	current, old := make([]member, 0, len(s.tasks)), []member(nil)
	for _, m := range s.tasks {
		switch {
		case m.failed != "":
			stop = append(stop, victim{m.id, m.failed, false})
		case m.current:
			current = append(current, m)
		default:
			old = append(old, m)
		}
	}
	healthy := func(list []member) (n int) {
		for _, m := range list {
			if m.healthy {
				n++
			}
		}
		return n
	}

	if n := len(current) - s.desired; n > 0 {
		surplus := map[string]bool{}
		for m := range victims(unprotected(current), n) {
			stop = append(stop, victim{m.id, "", true})
			surplus[m.id] = true
		}
		current = slices.DeleteFunc(current, func(c member) bool { return surplus[c.id] })
	}

	missing := s.desired - len(current)
	room := max(maximum-len(current)-len(old), s.desired-len(current)-len(old), 0)
	start = min(missing, room)
	waiting := missing - start // for room under maximumPercent
	blocked = waiting > 0 && start == 0 && healthy(current) == len(current)
	for _, m := range current {
		if m.unplaceable {
			waiting++ // for room on the hosts
		}
	}

	replaced := len(old) - max(s.desired-healthy(current), 0)
	spare := healthy(current) + healthy(old) - minimum
	wanted := max(replaced, waiting)
	for m := range victims(unprotected(old), len(old)) {
		switch {
		case !m.healthy:
			stop = append(stop, victim{m.id, "", false})
		case wanted > 0 && spare > 0:
			stop = append(stop, victim{m.id, "", replaced > 0})
			spare--
			replaced--
		default:
			continue
		}
		wanted--
	}
	if s.throttled {
		start = 0
	}
	return start, stop, blocked && len(stop) == 0
}

func unprotected(tasks []member) []member {
	return slices.DeleteFunc(slices.Clone(tasks), func(m member) bool { return m.protected })
}
