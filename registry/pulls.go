package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// pullTimeEvery is how old the record of an image's last pull may become while it is being pulled. Every pull in the log would
// be too many; what a crash forgets is less than pullsEvery.
const pullTimeEvery = time.Hour

// pullsEvery is the pause between two writes of pull times.
const pullsEvery = 15 * time.Second

// pulls is when images were last pulled from this server, as far as the records do not say it.
//
// Of several servers each keeps its own in mind, and those that follow report to the leader what has to be written down, in batches, every
// pullsEvery. The leader forgets nothing that it has taken: it has written it down before it says so.
type pulls struct {
	mu    sync.Mutex
	last  map[state.Key]time.Time // by Manifests key
	heard map[string]time.Time    // by server: when it last said that it has reported all
}

func newPulls() *pulls { return &pulls{last: map[state.Key]time.Time{}, heard: map[string]time.Time{}} }

func (p *pulls) note(manifest state.Key, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.After(p.last[manifest]) {
		p.last[manifest] = now
	}
}

// all is a copy.
func (p *pulls) all() map[state.Key]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[state.Key]time.Time, len(p.last))
	for k, t := range p.last {
		all[k] = t
	}
	return all
}

// recorded forgets a time unless the image was pulled again since.
func (p *pulls) recorded(manifest state.Key, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last[manifest].Equal(at) {
		delete(p.last, manifest)
	}
}

// lastPull is when an image was last pulled; zero: never.
func (r *Registry) lastPull(v state.Reader, manifest state.Key) time.Time {
	r.pulls.mu.Lock()
	last := r.pulls.last[manifest]
	r.pulls.mu.Unlock()
	if p, ok := PullTimes.Get(v, manifest); ok && p.Pulled.AsTime().After(last) {
		return p.Pulled.AsTime()
	}
	return last
}

// due are the pull times that are newer than their record by pullTimeEvery. Those of images that are gone are forgotten.
func (r *Registry) due() map[state.Key]time.Time {
	v := r.Store.View()
	due := r.pulls.all()
	for key, at := range due {
		if _, ok := Manifests.Get(v, key); !ok {
			r.pulls.recorded(key, at)
			delete(due, key)
		} else if p, ok := PullTimes.Get(v, key); ok && at.Sub(p.Pulled.AsTime()) < pullTimeEvery {
			delete(due, key)
		}
	}
	return due
}

// recordPulls writes the pull times that are due.
func (r *Registry) recordPulls(ctx context.Context) error {
	due := r.due()
	for batch := range slices.Chunk(slices.Collect(maps.Keys(due)), state.MaxOps/2) {
		_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
			for _, key := range batch {
				m, ok := Manifests.Get(tx, key)
				if p, had := PullTimes.Get(tx, key); ok && (!had || due[key].After(p.Pulled.AsTime())) {
					PullTimes.Put(tx, &PullTime{Account: m.Account, Region: m.Region, Repository: m.Repository, Digest: m.Digest, Pulled: timestamppb.New(due[key])})
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("record pull times: %w", err)
		}
		for _, key := range batch {
			r.pulls.recorded(key, due[key])
		}
	}
	return nil
}
