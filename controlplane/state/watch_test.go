package state_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

func TestWatchCompacted(t *testing.T) {
	engine := statetest.NewEngine()
	s, err := state.New(engine, statetest.Schema, state.Options{WatchHistory: 10})
	if err != nil {
		t.Fatal(err)
	}
	slow := s.Watch(t.Context(), 0)
	for i := range 50 {
		statetest.Put(t, s, &statetest.Record{Id: fmt.Sprint(i, "a")}, &statetest.Record{Id: fmt.Sprint(i, "b")})
	}
	if _, err := slow.Next(t.Context()); !errors.Is(err, state.ErrCompacted) {
		t.Fatalf("behind: %v", err)
	}
	if _, err := slow.Next(t.Context()); !errors.Is(err, state.ErrCompacted) {
		t.Fatalf("still behind: %v", err)
	}
	// From every revision either all events come or none.
	answered := 0
	for from := range s.Revision() {
		b, err := s.Watch(t.Context(), from).Next(t.Context())
		if errors.Is(err, state.ErrCompacted) {
			if answered > 0 {
				t.Errorf("compacted from %d on, but not before", from)
			}
			continue
		}
		if answered++; err != nil || len(b.Events) != 2*int(s.Revision()-from) || b.Events[0].Revision != from+1 {
			t.Errorf("from %d: %d events, %v", from, len(b.Events), err)
		}
	}
	if answered < 5 {
		t.Errorf("only %d revisions are kept", answered)
	}
}

// A watcher of a quiet table is not compacted by a busy one, as long as it asks.
func TestWatchQuietTable(t *testing.T) {
	engine := statetest.NewEngine()
	s, err := state.New(engine, statetest.Schema, state.Options{WatchHistory: 10})
	if err != nil {
		t.Fatal(err)
	}
	w := s.Watch(t.Context(), 0, statetest.Claims)
	got := make(chan error, 1)
	go func() {
		b, err := w.Next(t.Context())
		if err == nil && (len(b.Events) != 1 || b.Events[0].New.(*statetest.Record).GetId() != "claim") {
			err = fmt.Errorf("events: %v", b.Events)
		}
		got <- err
	}()
	for i := range 8 {
		statetest.Put(t, s, &statetest.Record{Id: fmt.Sprint(i)})
	}
	if _, err := s.Update(t.Context(), func(tx *state.Tx) error {
		statetest.Claims.Put(tx, &statetest.Record{Id: "claim"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// A watcher that waits is not woken by what is about other tables, and does not fall behind by it either.
func TestWatchWaiting(t *testing.T) {
	s, err := state.New(statetest.NewEngine(), statetest.Schema, state.Options{WatchHistory: 10})
	if err != nil {
		t.Fatal(err)
	}
	await := func(n int) {
		t.Helper()
		for began := time.Now(); s.Waiting() != n; runtime.Gosched() {
			if time.Since(began) > time.Minute {
				t.Fatalf("%d watchers wait, not %d", s.Waiting(), n)
			}
		}
	}
	w := s.Watch(t.Context(), 0, statetest.Claims)
	next := func(ctx context.Context) chan any {
		got := make(chan any, 1)
		go func() {
			b, err := w.Next(ctx)
			if err != nil {
				got <- err
				return
			}
			got <- len(b.Events)
		}()
		await(1)
		return got
	}
	claim := func(id string) {
		t.Helper()
		if _, err := s.Update(t.Context(), func(tx *state.Tx) error {
			statetest.Claims.Put(tx, &statetest.Record{Id: id})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	got := next(t.Context())
	for i := range 50 {
		statetest.Put(t, s, &statetest.Record{Id: fmt.Sprint(i)})
		await(1)
	}
	claim("one")
	if events := <-got; events != 1 {
		t.Fatalf("woken with %v", events)
	}
	await(0)

	ctx, cancel := context.WithCancel(t.Context())
	got = next(ctx)
	cancel()
	if err := <-got; !errors.Is(err.(error), context.Canceled) {
		t.Fatalf("its context ended: %v", err)
	}
	await(0)
	claim("two")
	claim("three")
	if b, err := w.Next(t.Context()); err != nil || len(b.Events) != 2 {
		t.Fatalf("what came meanwhile: %v, %v", b.Events, err)
	}
}
