package clock

import (
	"sync"
	"time"
)

// Ages tell for how long things have been as they are since a time that a record names, whatever becomes of the machine's clock meanwhile. A
// record's time is of a wall clock, which somebody may set and which may have been another machine's: it is held against this one's once,
// when a thing is first asked about. From then on its age grows as time passes. The zero value is ready; safe for concurrent use.
type Ages[K comparable] struct {
	mu    sync.Mutex
	of    map[K]*age
	swept time.Time
}

type age struct {
	since  time.Time     // as the record has it
	before time.Duration // when it was first asked about
	first  time.Time     // that is, here
	last   time.Time     // asked about
}

// forgotten is how long nobody has asked about a thing that is forgotten.
const forgotten = time.Hour

// Of is how old k, which is as it is since a time, is now: what a Clock tells. A time that is still to come counts as now.
func (a *Ages[K]) Of(k K, since, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.of[k]
	if e == nil || !e.since.Equal(since) {
		a.sweep(now)
		e = &age{since: since, before: max(0, now.Sub(since)), first: now}
		a.of[k] = e
	}
	e.last = now
	return e.before + now.Sub(e.first)
}

// sweep forgets what is no longer asked about. a.mu is held.
func (a *Ages[K]) sweep(now time.Time) {
	if a.of == nil {
		a.of, a.swept = map[K]*age{}, now
	}
	if now.Sub(a.swept) < forgotten {
		return
	}
	a.swept = now
	for k, e := range a.of {
		if now.Sub(e.last) >= forgotten {
			delete(a.of, k)
		}
	}
}
