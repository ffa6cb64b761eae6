package peers_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/peers"
	"github.com/seed-2f228079/neargate/controlplane/upgrade"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/version"
)

// raise has every server of the cluster seem to speak n.
func (s *several) raise(t *testing.T, n uint32) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()
	for _, server := range s.Servers() {
		k := &upgrade.Keeper{Store: server.Store(), Speaks: n, Self: server.ID, Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler)}
		running.Go(func() { _ = k.Run(ctx) })
	}
	for _, server := range s.Servers() {
		s.Await("the version is raised", func() bool { return upgrade.At(server.Store().View(), n) })
	}
}

// Any server hears from each what it speaks; one that is gone is named by nobody.
func TestStanding(t *testing.T) {
	s := newSeveral(t)
	s.Leader()
	for _, asks := range s.Servers() {
		for _, asked := range s.Servers() {
			got, err := s.of[asks.ID].Standing(t.Context(), asked.ID)
			if err != nil || got.Speaks != version.Speaks || got.Revision > s.Leader().Store().Revision() {
				t.Errorf("%s of %s: %+v, %v", asks.ID, asked.ID, got, err)
			}
		}
	}
	if got, err := s.of["s0"].Standing(t.Context(), "nobody"); err == nil {
		t.Errorf("of nobody: %+v", got)
	}
}

// A server whose build is too old for the cluster is not taken in, and its token still serves one that is not.
func TestAdmitOfAnOldBuild(t *testing.T) {
	s := newSeveral(t)
	follower := s.Followers(s.Leader())[0]
	s.raise(t, 2)
	old := peers.Admission{Token: "t", Ends: time.Now().Add(time.Hour), Host: "server x", Server: "x", Address: "x:1", Speaks: 1}
	if err := s.of[follower.ID].Admit(t.Context(), old); !errors.Is(err, peers.ErrTooOld) {
		t.Errorf("an old build: %v", err)
	}
	for _, m := range follower.Engine().Known() {
		if m.ID == "x" {
			t.Error("it is a member all the same")
		}
	}
	agent := peers.Admission{Token: "a", Ends: time.Now().Add(time.Hour), Host: "agent y"}
	if err := s.of[follower.ID].Admit(t.Context(), agent); err != nil {
		t.Errorf("an agent, which says what it speaks later: %v", err)
	}
	recent := old
	recent.Speaks = 2
	if err := s.of[follower.ID].Admit(t.Context(), recent); err != nil {
		t.Errorf("a newer build: %v", err)
	}
}
