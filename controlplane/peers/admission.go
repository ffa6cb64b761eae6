package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/upgrade"
	"github.com/seed-2f228079/neargate/internal/version"
)

// usedTokens are the join tokens that have served their host, until they would have ended anyway.
var usedTokens = state.NewTable("peers.usedtoken", func(t *UsedToken) state.Key { return state.K(t.Id) })

// Schema is this package's tables.
var Schema = state.Schema{usedTokens, authorities, serverKeys}

// Why a host is not taken in although its token is good.
var (
	ErrUsed         = errors.New("another host has used this token")
	ErrAddressInUse = errors.New("another server has this address")
	ErrTooOld       = errors.New("the server's build does not speak the version of the cluster")
)

// Admission is a host that comes by a token that the cluster has made.
type Admission struct {
	Token   string    `json:"token"`
	Ends    time.Time `json:"ends"`
	Host    string    `json:"host"`              // role and id
	Server  string    `json:"server,omitempty"`  // its id, if it is one
	Address string    `json:"address,omitempty"` // and its peer port's address
	Speaks  uint32    `json:"speaks,omitempty"`  // and the version that its build speaks
}

// verdict is what the leader says to an admission.
type verdict struct {
	Used, AddressInUse, TooOld, NotLeader bool

	Error string
}

func (v verdict) err() error {
	switch {
	case v.Used:
		return ErrUsed
	case v.AddressInUse:
		return ErrAddressInUse
	case v.TooOld:
		return ErrTooOld
	case v.NotLeader:
		return state.ErrNotLeader
	case v.Error != "":
		return errors.New(v.Error)
	}
	return nil
}

// Admit notes that a host has used its token, and makes it a member if it is a server. A host may come again by the same token.
func (p *Peers) Admit(ctx context.Context, a Admission) error {
	v := p.admit(ctx, a)
	if !v.NotLeader {
		return v.err()
	}
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	text, err := p.ask(ctx, "/admission", body)
	if err != nil {
		return err
	}
	v = verdict{}
	if err := json.Unmarshal(text, &v); err != nil {
		return fmt.Errorf("the leader's verdict: %w", err)
	}
	return v.err()
}

// admit is Admit on the leader.
func (p *Peers) admit(ctx context.Context, a Admission) verdict {
	err := p.use(ctx, a)
	if err == nil && a.Server != "" {
		err = p.Engine.AddServer(ctx, a.Server, a.Address)
	}
	var inUse *state.AddressInUseError
	switch {
	case errors.As(err, &inUse):
		return verdict{AddressInUse: true}
	case err == nil:
		return verdict{}
	}
	return verdict{Used: errors.Is(err, ErrUsed), TooOld: errors.Is(err, ErrTooOld), NotLeader: errors.Is(err, state.ErrNotLeader), Error: err.Error()}
}

func (p *Peers) use(ctx context.Context, a Admission) error {
	_, err := p.Store.Update(ctx, func(tx *state.Tx) error {
		if a.Server != "" && version.Of(a.Speaks) < upgrade.Of(tx) {
			return ErrTooOld // it would stop at the first thing that it is told, a member all the same
		}
		if t, ok := usedTokens.Get(tx, state.K(a.Token)); ok {
			if t.Host != a.Host {
				return ErrUsed
			}
			return nil
		}
		looked := 0
		for t := range usedTokens.Scan(tx, state.K()) {
			if looked++; looked > tidied {
				break
			}
			if p.Clock.Now().After(t.Ends.AsTime().Add(usedKept)) {
				usedTokens.Delete(tx, usedTokens.Key(t))
			}
		}
		usedTokens.Put(tx, &UsedToken{Id: a.Token, Host: a.Host, Ends: timestamppb.New(a.Ends)})
		return nil
	})
	return err
}

// revokedSecret is the record that the bootstrap secret admits nobody any more. It is no token's id, and does not end.
const revokedSecret = "bootstrap secret"

// SecretRevoked says whether the bootstrap secret admits nobody any more, as far as this server knows.
func (p *Peers) SecretRevoked() bool {
	_, revoked := usedTokens.Get(p.Store.View(), state.K(revokedSecret))
	return revoked
}

// revokeSecret has the bootstrap secret admit nobody from now on.
func (o *Operator) revokeSecret(ctx context.Context, _ *RevokeSecretInput) (*RevokeSecretOutput, error) {
	if o.Tokens == nil {
		return nil, alone()
	}
	_, err := o.Store.Update(ctx, func(tx *state.Tx) error {
		usedTokens.Put(tx, &UsedToken{Id: revokedSecret, Ends: timestamppb.New(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))})
		return nil
	})
	return &RevokeSecretOutput{}, err
}

// usedKept is how long it is kept that a token was used, after the token has ended by the clock of whoever leads: if that was set forwards by
// mistake, and is set right again, the token has not ended.
const usedKept = 30 * 24 * time.Hour

// tidied is how many records are looked through, for those that have had their time, when one is written.
const tidied = 50
