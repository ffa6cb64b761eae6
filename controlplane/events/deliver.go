package events

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	// saveEvery is how much progress may be repeated after a change of leaders: one write of the state at most so often, for all webhooks.
	saveEvery = 5 * time.Second
	// saveSkipped is how often a cursor alone is written, past events that are not the webhook's.
	saveSkipped = 10 * time.Minute
)

// deliver gives webhooks their events while this server leads: a courier for each, so that no one waits for another.
func (s *Service) deliver(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	changed := make(chan struct{}, 1)
	group.Go(func() { s.watchWebhooks(ctx, changed) })
	couriers := map[state.Key]*courier{}
	tick := s.Clock.After(saveEvery)
	for {
		s.staff(ctx, &group, couriers)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick:
			if err := s.saveProgress(ctx, couriers); err != nil && ctx.Err() == nil && !errors.Is(err, state.ErrNotLeader) {
				s.Log.Error("save the progress of webhooks", "error", err)
			}
			tick = s.Clock.After(saveEvery)
		}
	}
}

// watchWebhooks says when there may be others.
func (s *Service) watchWebhooks(ctx context.Context, changed chan<- struct{}) {
	for ctx.Err() == nil {
		// Whoever is told looks at the state after this revision.
		w := s.Store.Watch(ctx, s.Store.Revision(), Webhooks)
		for err := error(nil); err == nil; _, err = w.Next(ctx) {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
}

// staff begins and ends couriers, as there are webhooks.
func (s *Service) staff(ctx context.Context, group *sync.WaitGroup, couriers map[state.Key]*courier) {
	v := s.Store.View()
	wanted := map[state.Key]bool{}
	for h := range Webhooks.Scan(v, state.K()) {
		key := Webhooks.Key(h)
		if wanted[key] = true; couriers[key] != nil {
			continue
		}
		p, ok := Progress.Get(v, key)
		if !ok {
			_, revision, _ := Webhooks.GetRevision(v, key)
			p = &WebhookProgress{Account: h.Account, Region: h.Region, Id: h.Id, Cursor: cursor(revision, "")}
		}
		of, end := context.WithCancel(ctx)
		c := &courier{Service: s, hook: h, end: end, now: proto.CloneOf(p), skipSaved: s.Clock.Now()}
		couriers[key] = c
		group.Go(func() { c.run(of) })
	}
	for key, c := range couriers {
		if !wanted[key] {
			c.end()
			delete(couriers, key)
		}
	}
}

// saveProgress writes what has changed, in one write.
func (s *Service) saveProgress(ctx context.Context, couriers map[state.Key]*courier) error {
	var list []*WebhookProgress
	for _, c := range couriers {
		if p := c.unsaved(); p != nil {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil
	}
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error {
		for _, p := range list {
			if _, ok := Webhooks.Get(tx, Progress.Key(p)); ok { // its progress goes with it
				Progress.Put(tx, p)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range list {
		couriers[Progress.Key(p)].saved(p)
	}
	return nil
}
