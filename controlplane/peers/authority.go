package peers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/trust"
	"github.com/seed-2f228079/neargate/internal/version"
)

var authorityKey = state.K("authority")

// authorities is the table of one record: what the servers have agreed upon. An operator and the leader write it, every server follows it. There is
// none before the first exchange.
var authorities = state.NewTable("peers.authorities", func(*Authorities) state.Key { return authorityKey })

// Rotation exchanges the certificate authority: it brings this server's to what the servers have agreed upon, and, on the leader, goes from one phase
// to the next once all servers are there. docs/design/trust.md has the phases and the reasons.
//
// Invariants:
//
//  1. A key goes from server to server over the peer port alone, sealed to the receiver's host key; never into the state.
//  2. A server's own generation never goes back. A record of an earlier one, from a restored snapshot, is replaced by what the servers have.
//  3. The phase moves on from one that a server could miss only when every member, with a vote or without, says that it is there.
type Rotation struct {
	Authority *trust.Authority
	Store     *state.Store
	Engine    Group
	Peers     *Peers
	// Cut closes the connections of hosts that came by an authority which is trusted no longer.
	Cut   func() int
	Clock clock.Clock
	Log   *slog.Logger
}

const (
	// rotationLook is how often a server that is behind, or a leader in the midst of an exchange, looks again.
	rotationLook = 500 * time.Millisecond
	// cutGrace is for requests under way when an authority was retired: nobody new is let in by it, and those that are idle have left by then.
	cutGrace = time.Minute
	// issuedLife is how long certificates last that the old authority has signed last; trust has the same and a day for clocks.
	issuedLife = 8 * 24 * time.Hour
)

// Run follows and leads until ctx ends.
func (r *Rotation) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { r.register(ctx) })
	running.Go(func() { r.cut(ctx) })
	running.Go(func() { r.follow(ctx) })
	return r.Store.RunLeader(ctx, r.lead)
}

// look waits a moment; idle, until the record may be another one than in v or this server's authority is.
func (r *Rotation) look(ctx context.Context, v *state.View, taken <-chan struct{}, idle bool) {
	if !idle {
		select {
		case <-r.Clock.After(rotationLook):
		case <-ctx.Done():
		}
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = r.Store.Watch(ctx, v.Revision(), authorities).Next(ctx) // whatever it is, it is looked at anew
	}()
	select {
	case <-written:
	case <-taken:
	case <-ctx.Done():
	}
	cancel()
	<-written
}

func ringOf(a *Authorities) trust.Ring {
	return trust.Ring{Generation: a.GetGeneration(), Phase: trust.Phase(a.GetPhase()), Authorities: a.GetCertificates()}
}

// follow takes what is agreed upon.
func (r *Rotation) follow(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		own, taken := r.Authority.Ring()
		v := r.Store.View()
		a, _ := authorities.Get(v, authorityKey)
		if ringOf(a).Generation <= own.Generation {
			r.look(ctx, v, taken, true)
			continue
		}
		err := r.take(ctx, ringOf(a))
		if err == nil {
			said = ""
			r.Log.Info("this server has the cluster's authorities", "generation", a.Generation, "phase", a.Phase)
			continue
		}
		if err.Error() != said && ctx.Err() == nil {
			said = err.Error()
			r.Log.Warn("cannot take the cluster's authorities yet; trying again", "generation", a.Generation, "error", err)
		}
		r.look(ctx, v, taken, false)
	}
}

// take asks the other servers for what is missing here.
func (r *Rotation) take(ctx context.Context, want trust.Ring) error {
	var handed [][]byte
	for _, id := range r.Authority.Missing(want) {
		text, err := r.fetch(ctx, id)
		if err != nil {
			return err
		}
		handed = append(handed, text)
	}
	return r.Authority.Take(want, handed...)
}

// errNobodyHas: all other members have been asked for an authority.
var errNobodyHas = errors.New("no server has the key of an authority that the state names")

func (r *Rotation) fetch(ctx context.Context, id string) ([]byte, error) {
	members, err := r.others(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, m := range members {
		text, err := r.Peers.askServer(ctx, m, "/authority", []byte(id))
		if err == nil && len(text) > 0 {
			return text, nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("server %s: %w", m, err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return nil, fmt.Errorf("%w: %s", errNobodyHas, id)
}

// others are the ids of the other members.
func (r *Rotation) others(ctx context.Context) ([]string, error) {
	members, err := r.Engine.Members(ctx)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, m := range members {
		if m.ID != r.Peers.ID {
			ids = append(ids, m.ID)
		}
	}
	return ids, nil
}

// lead goes through the phases.
func (r *Rotation) lead(ctx context.Context) error {
	said := ""
	for ctx.Err() == nil {
		own, taken := r.Authority.Ring()
		v := r.Store.View()
		a, _ := authorities.Get(v, authorityKey)
		agreed := ringOf(a)
		idle := own.Generation == agreed.Generation && (a == nil || slices.Equal(own.IDs(), agreed.IDs())) && (agreed.Phase == trust.Steady || agreed.Phase == trust.Issuing)
		if !idle {
			err := r.step(ctx, own, agreed)
			if err != nil && err.Error() != said && ctx.Err() == nil {
				r.Log.Info("the exchange of the certificate authority waits", "phase", agreed.Phase, "because", err)
				said = err.Error()
			}
		}
		r.look(ctx, v, taken, idle)
	}
	return nil
}

// step does what is to be done next. An error says what it waits for.
func (r *Rotation) step(ctx context.Context, own, agreed trust.Ring) error {
	switch {
	case own.Generation > agreed.Generation: // the state is of before
		return r.agree(ctx, agreed.Generation, own)
	case own.Generation == agreed.Generation && !slices.Equal(own.IDs(), agreed.IDs()): // it is from elsewhere
		r.Log.Warn("the state names other certificate authorities than the servers have; going on with the servers' own")
		own.Generation++
		return r.agree(ctx, agreed.Generation, own)
	case own.Generation < agreed.Generation:
		for _, id := range r.Authority.Missing(agreed) {
			if _, err := r.fetch(ctx, id); errors.Is(err, errNobodyHas) {
				// A state from elsewhere, or a server that took the key with it when it was lost. What the servers have is what there is.
				r.Log.Error("the state names a certificate authority whose key no server has; going on with the servers' own", "authority", id)
				own.Generation = agreed.Generation + 1
				return r.agree(ctx, agreed.Generation, own)
			} else if err != nil {
				return err
			}
		}
		return errors.New("this server has yet to take what is agreed upon")
	}
	if err := r.everybody(ctx, agreed.Generation); err != nil {
		return err
	}
	next := agreed
	next.Generation++
	switch agreed.Phase {
	case trust.Spreading:
		next.Phase = trust.Issuing
	case trust.Switching:
		next.Phase, next.Authorities = trust.Forgetting, agreed.Authorities[1:]
	case trust.Forgetting:
		if n := len(hostsWithout(r.Store.View(), agreed.IDs(), true)); n > 0 {
			return fmt.Errorf("%d hosts have yet to forget the old authority", n)
		}
		next.Phase = trust.Steady
	default:
		return nil
	}
	return r.agree(ctx, agreed.Generation, next)
}

// everybody says whether all members are at a generation.
func (r *Rotation) everybody(ctx context.Context, generation uint64) error {
	members, err := r.others(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		s, err := r.Peers.Standing(ctx, m)
		switch {
		case err != nil:
			return fmt.Errorf("server %s does not answer: %w", m, err)
		case s.Authority < generation:
			return fmt.Errorf("server %s is at generation %d of the authorities, not %d", m, s.Authority, generation)
		}
	}
	return nil
}

// agree writes the record, if it is still at the generation that next was made from.
func (r *Rotation) agree(ctx context.Context, from uint64, next trust.Ring) error {
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		if a, _ := authorities.Get(tx, authorityKey); a.GetGeneration() != from {
			return nil // somebody was faster
		}
		return r.put(tx, next)
	})
	if err == nil {
		r.Log.Info("the certificate authority", "generation", next.Generation, "phase", next.Phase)
	}
	return err
}

func (r *Rotation) put(tx *state.Tx, next trust.Ring) error {
	authorities.Put(tx, &Authorities{
		Generation: next.Generation, Phase: string(next.Phase), Certificates: next.Authorities, Since: timestamppb.New(r.Clock.Now()),
	})
	return nil
}

// cut closes what came by an authority that is no longer trusted, once requests under way have had their time.
func (r *Rotation) cut(ctx context.Context) {
	for ctx.Err() == nil {
		own, taken := r.Authority.Ring()
		var grace <-chan time.Time
		if own.Phase == trust.Forgetting {
			grace = r.Clock.After(cutGrace)
		}
		select {
		case <-grace:
			if n := r.Cut(); n > 0 {
				r.Log.Warn("connections were closed whose hosts had certificates of the old authority", "connections", n)
			}
			select {
			case <-taken:
			case <-ctx.Done():
			}
		case <-taken:
			if grace != nil { // an exchange that ends sooner owes the rest of the time
				select {
				case <-grace:
					r.Cut()
				case <-ctx.Done():
				}
			}
		case <-ctx.Done():
		}
	}
}

// hostsWithout are the nodes whose papers, by their last hello, are not of the newest of the authorities alone; present says that only those count
// that are not lost.
func hostsWithout(v *state.View, ids []string, present bool) []*controlplane.Node {
	var list []*controlplane.Node
	newest := ids[len(ids)-1]
	for n := range controlplane.Nodes.Scan(v, state.K()) {
		p := n.GetPapers()
		switch {
		case present && n.Status != capacity.NodeReady:
		case p.GetIssuer() == newest && (!present || slices.Equal(p.GetAuthorities(), ids)):
		default:
			list = append(list, n)
		}
	}
	return list
}

// standing is what this server says of itself.
func (p *Peers) standing() Standing {
	s := Standing{Speaks: version.Speaks, Revision: p.Store.Revision()}
	if p.Authority != nil {
		ring, _ := p.Authority.Ring()
		s.Authority = ring.Generation
	}
	return s
}
