package orchestrator

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// tooMuch says whether a transaction was too large: tasks may have many endpoints.
func tooMuch(err error) bool {
	var limit *state.LimitError
	return errors.As(err, &limit)
}

// carryOn does what a look's own transaction had no room for, in more of them, which are under way together. What has become of them is told when all are
// over, or each would depend on what the others say. If this server ends in between, nobody tells of it.
func (s *step) carryOn(ctx context.Context, key state.Key) error {
	var parts []*step
	for len(s.starting)+len(s.stopping) > 0 {
		part := *s
		part.isPart = true
		n, m := min(len(s.stopping), s.most), min(len(s.starting), s.most)
		part.stopping, s.stopping = s.stopping[:n], s.stopping[n:]
		part.starting, s.starting = s.starting[:m], s.starting[m:]
		parts = append(parts, &part)
	}
	var g errgroup.Group
	g.SetLimit(max(s.Workers, 1))
	for _, part := range parts {
		g.Go(func() error { return part.carryOut(ctx, key) })
	}
	err := g.Wait()
	var said []string
	for _, part := range parts {
		said = append(said, part.said...)
		if part.again > 0 {
			s.lookAgain(part.again)
		}
	}
	if len(said) == 0 {
		return err
	}
	_, untold := s.Store.Update(ctx, func(tx *state.Tx) error {
		s.tx = tx
		if _, ok := controlplane.Services.Get(tx, key); ok {
			for _, message := range said {
				s.event("%s", message)
			}
		}
		return nil
	})
	return errors.Join(err, untold)
}

// carryOut does what is the part's in one transaction, or in as many as it takes.
func (s *step) carryOut(ctx context.Context, key state.Key) error {
	for len(s.starting)+len(s.stopping) > 0 {
		starting, stopping, said := s.starting, s.stopping, len(s.said)
		stale := false
		_, err := s.Store.Update(ctx, func(tx *state.Tx) error {
			s.tx, s.starting, s.stopping, s.said = tx, starting, stopping, s.said[:said]
			if stale = !s.holds(key); stale {
				return nil
			}
			return s.proceed()
		})
		if err != nil {
			s.said = s.said[:said]
		}
		switch {
		case s.most > 1 && tooMuch(err):
			s.most, s.starting, s.stopping = s.most/2, starting, stopping
		case err != nil || stale:
			return err
		}
	}
	return nil
}
