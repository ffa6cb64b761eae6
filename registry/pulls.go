package registry

import (
	"maps"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// pulls is when images were last pulled. That happens too often to be written to the log, so a restart forgets it; nothing
// is decided from its absence.
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

func (p *pulls) of(manifest state.Key) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.last[manifest]
	return t, ok
}

// forget drops manifests that are gone.
func (p *pulls) forget(exists func(manifest state.Key) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.last, func(k state.Key, _ time.Time) bool { return !exists(k) })
}
