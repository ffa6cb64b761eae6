package upgrade_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/controlplane/upgrade"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/testcluster"
	"github.com/seed-2f228079/neargate/internal/version"
)

// builds are the versions of a cluster's servers; 0: it does not answer.
type builds struct {
	*testcluster.Cluster
	speaks map[string]*atomic.Uint32
	asked  atomic.Uint32
}

func newBuilds(t *testing.T, speaks ...uint32) *builds {
	b := &builds{Cluster: testcluster.New(t, testcluster.Config{Servers: len(speaks), Schema: upgrade.Schema, Configure: testcluster.Patient}), speaks: map[string]*atomic.Uint32{}}
	for i, server := range b.Servers() {
		b.speaks[server.ID] = &atomic.Uint32{}
		b.speaks[server.ID].Store(speaks[i])
	}
	return b
}

// keep runs a keeper on a server, as its build does, until the function that it returns.
func (b *builds) keep(t *testing.T, s *testcluster.Server) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	k := &upgrade.Keeper{
		Store: s.Store(), Speaks: b.speaks[s.ID].Load(), Members: s.Engine().Members, Self: s.ID, Clock: quick{}, Log: slog.New(slog.DiscardHandler),
		Ask: func(_ context.Context, id string) (uint32, error) {
			b.asked.Add(1)
			if n := b.speaks[id].Load(); n != 0 {
				return n, nil
			}
			return 0, errors.New("it does not answer")
		},
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

// quick is a clock whose time is always up soon.
type quick struct{ clock.Real }

func (q quick) After(d time.Duration) <-chan time.Time { return q.Real.After(d / 1000) }

func (b *builds) of() uint32 { return upgrade.Of(b.Leader().Store().View()) }

// The cluster is at what the oldest build speaks, and a member that does not answer holds it where it is.
func TestRaisedOnceAllSpeakIt(t *testing.T) {
	b := newBuilds(t, 4, 4, 4)
	leader := b.Leader()
	followers := b.Followers(leader)
	b.speaks[followers[0].ID].Store(1)
	b.speaks[followers[1].ID].Store(0)
	b.keep(t, leader)
	asked := func(more uint32) {
		t.Helper()
		from := b.asked.Load()
		b.Await("the others are asked again", func() bool { return b.asked.Load() >= from+more })
	}
	asked(20)
	if n := b.of(); n != 1 {
		t.Fatalf("version %d while one is old and one is silent", n)
	}
	b.speaks[followers[0].ID].Store(4)
	asked(20)
	if n := b.of(); n != 1 {
		t.Fatalf("version %d while one is silent", n)
	}
	b.speaks[followers[1].ID].Store(3)
	b.Await("the version is that of the oldest build", func() bool { return b.of() == 3 })
	b.speaks[followers[1].ID].Store(2) // whoever starts such a build is refused by the state itself
	asked(20)
	if n := b.of(); n != 3 {
		t.Fatalf("the version went back to %d", n)
	}
	b.speaks[followers[1].ID].Store(4)
	b.Await("the version is that of all", func() bool { return b.of() == 4 })
	before := b.asked.Load()
	if _, err := b.Update(t.Context(), func(tx *state.Tx) error { _ = upgrade.Of(tx); return nil }); err != nil {
		t.Fatal(err)
	}
	if b.asked.Load() != before {
		t.Error("a leader that is no longer ahead asks on")
	}
}

// A leader of an old build leaves the version where it is; a newer one that follows raises it.
func TestRaisedByTheLeaderThatKnows(t *testing.T) {
	b := newBuilds(t, 1, 1, 1)
	first := b.Leader()
	b.keep(t, first)()
	for _, s := range b.Servers() {
		b.speaks[s.ID].Store(2)
	}
	for _, s := range b.Followers(first) {
		b.keep(t, s)
	}
	if n := b.of(); n != 1 {
		t.Fatalf("version %d under a leader of an old build", n)
	}
	first.Stop()
	b.Leader()
	first.Start()
	b.Await("the next leader has raised it", func() bool { return b.of() == 2 })
}

// A snapshot of before takes the version back; it is raised again at once. One of a newer cluster is refused, as is a log.
func TestSnapshots(t *testing.T) {
	b := newBuilds(t, 5)
	server := b.Leader()
	var before bytes.Buffer
	if _, err := server.Engine().Save(t.Context(), &before, false); err != nil {
		t.Fatal(err)
	}
	b.keep(t, server)
	b.Await("it is raised", func() bool { return b.of() == 5 })
	var after bytes.Buffer
	if _, err := server.Engine().Save(t.Context(), &after, false); err != nil {
		t.Fatal(err)
	}
	r, err := server.Engine().Restore(t.Context(), &before)
	if err != nil {
		t.Fatal(err)
	}
	b.Await("it is raised again", func() bool { return server.Store().Revision() > r && b.of() == 5 })

	old := statetest.NewEngine()
	var machine *state.Machine
	store, err := state.New(starts{old, &machine}, upgrade.Schema, state.Options{Admit: upgrade.Admit})
	if err != nil {
		t.Fatal(err)
	}
	if version.Speaks >= 5 {
		t.Fatal("the test is to be of a version that this build does not speak")
	}
	var newer *upgrade.NewerError
	for name, err := range map[string]error{
		"restored":   machine.Restore(bytes.NewReader(after.Bytes())),
		"renumbered": second(machine.Renumbered(bytes.NewReader(after.Bytes()))),
	} {
		if !errors.As(err, &newer) || !errors.Is(err, state.ErrUnknownFormat) || !strings.Contains(err.Error(), "the cluster has moved to version 5") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if store.Revision() != 0 {
		t.Error("it was taken in all the same")
	}
}

func second[A any](_ A, err error) error { return err }

// starts keeps the machine that it is started with.
type starts struct {
	*statetest.Engine
	machine **state.Machine
}

func (s starts) Start(m *state.Machine) error {
	*s.machine = m
	return s.Engine.Start(m)
}
