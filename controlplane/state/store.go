package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"
)

// Options of a Store. The zero value is useful.
type Options struct {
	// WatchHistory is how many changes are kept for watchers that are behind; 16384 by default.
	WatchHistory int
	Logger       *slog.Logger
	// Admit says why this program must not go on with a state; the error is an ErrUnknownFormat. It is asked of every state before that is
	// published, and is to be quick. Nil: it may go on with any.
	Admit func(v *View) error
}

// Store is typed tables over an engine. Safe for concurrent use. It has no goroutines: closing the engine ends it.
type Store struct {
	engine  Engine
	machine *Machine
}

// New starts engine and feeds a store with the tables of schema from it.
func New(engine Engine, schema Schema, opts Options) (*Store, error) {
	names := map[string]bool{}
	for _, t := range schema {
		if names[t.Name()] {
			return nil, fmt.Errorf("state: table %s is declared twice", t.Name())
		}
		names[t.Name()] = true
	}
	if opts.WatchHistory <= 0 {
		opts.WatchHistory = 16384
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	s := &Store{engine: engine, machine: newMachine(schema, opts)}
	if err := engine.Start(s.machine); err != nil {
		return nil, fmt.Errorf("state: start engine: %w", err)
	}
	return s, nil
}

// View is the latest snapshot on this server. It never blocks, and may lag behind the leader.
func (s *Store) View() *View { return s.machine.view.Load() }

// Linearizable is a snapshot that has everything acknowledged, by any server, before the call.
func (s *Store) Linearizable(ctx context.Context) (*View, error) {
	if err := s.engine.Barrier(ctx); err != nil {
		return nil, err
	}
	return s.View(), nil
}

// Revision is that of the latest snapshot on this server.
func (s *Store) Revision() Revision { return s.machine.Revision() }

// Update runs fn on a snapshot and commits what it wrote, if everything it read is still so; otherwise it runs fn again, until
// ctx ends. fn must have no side effects. If fn returns an error nothing is written and Update returns that error. The
// revision is that of the transaction, or, if fn wrote nothing, of the snapshot it read.
//
// On a server that follows, Update returns ErrNotLeader at once: the caller passes the request on to the leader. While nobody
// leads it waits. Only an error that is ErrUncertain leaves open whether the transaction will be committed.
func (s *Store) Update(ctx context.Context, fn func(tx *Tx) error) (Revision, error) {
	confirmed := false // what fn sees has everything that was acknowledged before the call
	for attempt := 0; ; attempt++ {
		if err := s.awaitLeading(ctx); err != nil {
			return 0, err
		}
		tx := newTx(s.View())
		fnErr := fn(tx)
		var t *Transaction
		var err error
		if fnErr == nil {
			if t, err = tx.transaction(); err != nil {
				return 0, err
			}
		}
		if fnErr != nil || len(t.Ops) == 0 {
			// What fn read decided the answer, so it must not be what a leader knew that has been deposed without noticing.
			if !confirmed {
				if err := s.engine.Barrier(ctx); err != nil {
					return 0, err
				}
				if confirmed = true; s.machine.Conflicts(&Transaction{Guards: tx.guards}) {
					continue
				}
			}
			tx.release()
			return tx.base.revision, fnErr
		}
		if !s.machine.Conflicts(t) {
			outcome, err := s.engine.Commit(ctx, t)
			if err == nil {
				tx.release() // after an error the engine may still be about to encode it
			}
			switch {
			case errors.Is(err, ErrNotLeader):
				// Nothing was committed. If it is another server's turn, awaitLeading says so.
			case err != nil:
				return 0, fmt.Errorf("state: commit: %w", err)
			case outcome.Refused != "":
				return 0, &RefusedError{outcome.Refused}
			case !outcome.Conflict:
				return outcome.Revision, nil
			}
		}
		if err := pause(ctx, attempt); err != nil {
			return 0, err
		}
	}
}

// pause waits a random time that grows from nothing to 20 ms with the attempts made.
func pause(ctx context.Context, attempt int) error {
	if attempt < 2 {
		return ctx.Err()
	}
	limit := min(100*time.Microsecond<<min(attempt, 10), 20*time.Millisecond)
	timer := time.NewTimer(rand.N(limit))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitLeading returns once this server leads. It waits while nobody is known to lead.
func (s *Store) awaitLeading(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for {
		l := s.engine.Leadership()
		switch {
		case l.Term != 0:
			return nil
		case l.Leader != "":
			return ErrNotLeader
		case l.Changed == nil:
			return ErrClosed
		}
		select {
		case <-l.Changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNoLeader, ctx.Err())
		}
	}
}

// Leadership tells who leads, as far as this server knows.
func (s *Store) Leadership() Leadership { return s.engine.Leadership() }

// RunLeader runs fn whenever this server leads, with a context that ends when it no longer does. It returns when ctx has
// ended and fn has returned, or when fn fails while still leading, with its error. If fn returns nil it runs again in the
// next term.
func (s *Store) RunLeader(ctx context.Context, fn func(ctx context.Context) error) error {
	for {
		l := s.engine.Leadership()
		if l.Term != 0 {
			if err := s.runTerm(ctx, l.Term, fn); err != nil {
				return err
			}
		}
		for now := l; now.Term == l.Term; now = s.engine.Leadership() {
			if now.Changed == nil {
				return nil
			}
			select {
			case <-now.Changed:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// errDeposed ends the context of a term.
var errDeposed = errors.New("state: leadership lost")

func (s *Store) runTerm(ctx context.Context, term uint64, fn func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			l := s.engine.Leadership()
			if l.Term != term {
				cancel(errDeposed)
				return
			}
			select {
			case <-l.Changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	err := fn(ctx)
	ended := ctx.Err() != nil
	cancel(nil)
	<-watched
	if ended {
		return nil
	}
	return err
}

// Watch yields everything committed after revision from to the tables given (none given: to all), until ctx ends.
func (s *Store) Watch(ctx context.Context, from Revision, tables ...TableInfo) *Watcher {
	return &Watcher{feed: &s.machine.feed, done: ctx.Done(), ended: ctx.Err, tables: slices.Clone(tables), cursor: from}
}
