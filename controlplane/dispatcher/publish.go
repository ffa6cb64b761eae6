package dispatcher

import (
	"context"
	"errors"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// publish follows the tables of all sources and hands out what changed.
func (s *Server) publish(ctx context.Context) error {
	var tables []state.TableInfo
	wants := make([]map[state.TableInfo]bool, len(s.Sources))
	for i, source := range s.Sources {
		wants[i] = map[state.TableInfo]bool{}
		for _, t := range source.Tables() {
			wants[i][t] = true
			tables = append(tables, t)
		}
	}
	changes, events := make([][]Change, len(s.Sources)), []state.Event(nil)
	for ctx.Err() == nil {
		v := s.Store.View()
		w := s.Store.Watch(ctx, v.Revision(), tables...)
		s.restart(v.Revision())
		for {
			b, err := w.Next(ctx)
			if errors.Is(err, state.ErrCompacted) {
				break
			}
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			for i, source := range s.Sources {
				changes[i], events = nil, events[:0]
				for _, e := range b.Events {
					if wants[i][e.Table] {
						events = append(events, e)
					}
				}
				if len(events) > 0 {
					changes[i] = source.Delta(b.View, events)
				}
			}
			clear(events[:cap(events)]) // they hold records
			s.hand(b.Revision, changes)
		}
	}
	return nil
}

// restart begins to follow at r: what happened before is in the full sets that everybody gets.
func (s *Server) restart(r state.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watching = true
	for _, source := range s.Sources {
		s.published[source.Kind()] = r
	}
	for _, sub := range s.subscribers {
		for _, t := range sub.sets {
			t.full = true
			clear(t.waiting)
		}
		s.note(sub)
		s.signal(sub)
	}
	s.wake()
}

// hand puts changes, by source, into the sets they belong to; a change that waits there already is replaced.
func (s *Server) hand(r state.Revision, changes [][]Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, source := range s.Sources {
		s.published[source.Kind()] = r
		for _, c := range changes[i] {
			if c.Node != "" {
				s.put(s.subscribers[c.Node], source, r, c)
				continue
			}
			for _, sub := range s.subscribers {
				s.put(sub, source, r, c)
			}
		}
	}
	s.wake()
}

func (s *Server) put(sub *subscriber, source Source, r state.Revision, c Change) {
	if sub == nil {
		return
	}
	if t := sub.sets[source.Kind()]; t != nil {
		if t.waiting == nil {
			t.waiting = map[string]pending{}
		}
		t.waiting[c.Name] = pending{r, c.Resource}
		s.note(sub)
		s.signal(sub)
	}
}
