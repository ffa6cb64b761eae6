package registry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// pullTimeEvery is how old the record of an image's last pull may become while it is being pulled. Every pull in the log would
// be too many; what a crash forgets is less than pullsEvery.
const pullTimeEvery = time.Hour

// pullsEvery is the pause between two writes of pull times.
const pullsEvery = time.Minute

// pulls is when images were last pulled from this server, as far as the records do not say it.
type pulls struct {
	mu   sync.Mutex
	last map[state.Key]time.Time // by Manifests key
}

func newPulls() *pulls { return &pulls{last: map[state.Key]time.Time{}} }

func (p *pulls) note(manifest state.Key, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last[manifest] = now
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

// recordPulls writes the pull times that are newer than their record by more than pullTimeEvery, and forgets those of images
// that are gone.
func (r *Registry) recordPulls(ctx context.Context) error {
	all := r.pulls.all()
	v := r.Store.View()
	var batch []state.Key
	write := func() error {
		_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
			for _, key := range batch {
				m, ok := Manifests.Get(tx, key)
				if p, had := PullTimes.Get(tx, key); ok && (!had || all[key].After(p.Pulled.AsTime())) {
					PullTimes.Put(tx, &PullTime{Account: m.Account, Region: m.Region, Repository: m.Repository, Digest: m.Digest, Pulled: timestamppb.New(all[key])})
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("record pull times: %w", err)
		}
		for _, key := range batch {
			r.pulls.recorded(key, all[key])
		}
		batch = nil
		return nil
	}
	for key, at := range all {
		if _, ok := Manifests.Get(v, key); !ok {
			r.pulls.recorded(key, at)
			continue
		}
		if p, ok := PullTimes.Get(v, key); ok && at.Sub(p.Pulled.AsTime()) < pullTimeEvery {
			continue
		}
		if batch = append(batch, key); len(batch) == state.MaxOps/2 {
			if err := write(); err != nil {
				return err
			}
		}
	}
	if batch == nil {
		return nil
	}
	return write()
}
