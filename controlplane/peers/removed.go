package peers

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// ErrRemoved ends a server that runs, or is started again, after it was removed. Nobody tells it: its leader is silent, as one is that is out of
// reach, and without this it would wait for one for ever, with the agents that are with it.
var ErrRemoved = errors.New("this server was removed from the cluster: empty its data directory and have it join anew, with a token")

const (
	// doubtAfter is for how long nobody must have led before a server asks whether it belongs to the cluster still.
	doubtAfter = 2 * time.Second
	// removedAnswers in a row have to say that it does not: what a leader knows of its members may not be committed yet.
	removedAnswers = 2
)

// belong returns ErrRemoved once the cluster's leader says that this server is no member.
func (p *Peers) belong(ctx context.Context) error {
	refused := 0
	for ctx.Err() == nil {
		l := p.Store.Leadership()
		if l.Term != 0 || l.Leader != "" {
			refused = 0
			select {
			case <-l.Changed:
			case <-ctx.Done():
			}
			continue
		}
		select {
		case <-l.Changed: // elections come and go
			continue
		case <-p.Clock.After(doubtAfter):
		case <-ctx.Done():
			continue
		}
		switch member, known := p.askMembership(ctx); {
		case !known || member:
			refused = 0
		default:
			if refused++; refused == removedAnswers {
				return ErrRemoved
			}
		}
	}
	return nil
}

// askMembership asks all others that this server knows of, of whom the leader answers.
func (p *Peers) askMembership(ctx context.Context) (member, known bool) {
	for _, m := range p.Engine.Known() {
		if m.ID == p.ID {
			continue
		}
		limit, cancel := context.WithTimeout(ctx, standingTimeout)
		text, err := p.askServer(limit, m.ID, "/membership", nil)
		cancel()
		if err == nil && json.Unmarshal(text, &member) == nil {
			return member, true
		}
	}
	return false, false
}

// membership answers, on the leader, whether the server that asks is a member.
func (p *Peers) membership(ctx context.Context, from string, _ []byte) ([]byte, error) {
	if p.Store.Leadership().Term == 0 {
		return nil, state.ErrNotLeader
	}
	if err := p.Engine.Barrier(ctx); err != nil { // it may have been replaced, and not know it
		return nil, err
	}
	for _, m := range p.Engine.Known() {
		if m.ID == from {
			return json.Marshal(true)
		}
	}
	return json.Marshal(false)
}
