package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Standing is what a server says about itself.
type Standing struct {
	Speaks   uint32         `json:"speaks"`   // the version of its build
	Revision state.Revision `json:"revision"` // what it has applied
	// Authority is the generation of the certificate authorities that it has taken.
	Authority uint64 `json:"authority,omitempty"`
}

// standingTimeout is how long a server may take to say it.
const standingTimeout = 2 * time.Second

// Standing is a server's, this one's or another's, as of now.
func (p *Peers) Standing(ctx context.Context, id string) (Standing, error) {
	if id == p.ID {
		return p.standing(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, standingTimeout)
	defer cancel()
	text, err := p.askServer(ctx, id, "/standing", nil)
	if err != nil {
		return Standing{}, err
	}
	var s Standing
	if err := json.Unmarshal(text, &s); err != nil {
		return Standing{}, fmt.Errorf("server %s about itself: %w", id, err)
	}
	return s, nil
}

// Speaks is the version that a server's build speaks.
func (p *Peers) Speaks(ctx context.Context, id string) (uint32, error) {
	s, err := p.Standing(ctx, id)
	return s.Speaks, err
}

// standings asks all members at once. Who does not answer is left out.
func (p *Peers) standings(ctx context.Context, members []state.Member) map[string]Standing {
	var mu sync.Mutex
	var asking sync.WaitGroup
	all := map[string]Standing{}
	for _, m := range members {
		asking.Go(func() {
			s, err := p.Standing(ctx, m.ID)
			if err != nil {
				return // its health says so
			}
			mu.Lock()
			defer mu.Unlock()
			all[m.ID] = s
		})
	}
	asking.Wait()
	return all
}

// Silent are the addresses of the other members, as this server knows them, that do not answer just now.
func (p *Peers) Silent(ctx context.Context) (addresses []string) {
	known := p.Engine.Known()
	standings := p.standings(ctx, known)
	for _, m := range known {
		if _, answers := standings[m.ID]; !answers && m.ID != p.ID {
			addresses = append(addresses, m.Address)
		}
	}
	return addresses
}
