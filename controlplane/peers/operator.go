package peers

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/upgrade"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/trust"
	"github.com/seed-2f228079/neargate/internal/version"
)

// Operator is what whoever runs the cluster asks of it: who its servers are, and to change that; tokens for new hosts; snapshots.
type Operator struct {
	Engine Group
	Store  *state.Store
	Peers  *Peers        // nil: there are no other servers
	Tokens *trust.Tokens // nil: no host can join
	// Rotation exchanges the certificate authority; nil: there is none.
	Rotation *Rotation
	Rand     io.Reader
	Clock    clock.Clock
}

// A ServerDescription is one server as the leader sees it; without a leader, as the one sees it that was asked.
type ServerDescription struct {
	ID          string    `json:"id"`
	Address     string    `json:"address"`
	Role        string    `json:"role"` // leader, voter, or learner: a new one that has no vote yet
	Healthy     bool      `json:"healthy"`
	Reason      string    `json:"reason,omitempty"` // why it is not
	Version     uint32    `json:"version"`          // that its build speaks; 0: it does not answer
	Lag         uint64    `json:"lag"`              // log entries that it is behind the leader; with etcd, transactions that it has yet to apply
	LastContact time.Time `json:"lastContact"`
}

// Inputs and answers of the resources.
type (
	ListServersInput  struct{}
	ListServersOutput struct {
		Servers []ServerDescription `json:"servers"`
		Version uint32              `json:"version"` // of the cluster
	}
	RemoveServerInput struct {
		Server string `json:"server" doc:"Id of the server, or the beginning of it."`
	}
	RemoveServerOutput struct {
		ID string `json:"id"`
	}
	CreateJoinTokenInput struct {
		Role    string `json:"role" doc:"What the token is for: agent or server."`
		Minutes uint32 `json:"minutes" doc:"For how long it can be used; 60 by default, 10,080 at most."`
	}
	CreateJoinTokenOutput struct {
		Token string    `json:"token"`
		Ends  time.Time `json:"ends"`
	}
	RevokeSecretInput     struct{}
	RevokeSecretOutput    struct{}
	SaveSnapshotInput     struct{}
	RestoreSnapshotInput  struct{}
	RestoreSnapshotOutput struct {
		Revision uint64 `json:"revision"`
	}
)

// Resources are what the REST API has of it.
func (o *Operator) Resources() []api.RESTResource {
	const all = "*"
	return append(o.authorityResources(), []api.RESTResource{
		api.Change("POST /operator/tokens", "Make a token by which one host joins the cluster.", func(*api.Call, *CreateJoinTokenInput) string { return all }, o.createJoinToken),
		api.Change("DELETE /operator/secret", "Have the bootstrap secret admit no more hosts; they join by tokens.", func(*api.Call, *RevokeSecretInput) string { return all }, o.revokeSecret),
		api.Document("GET /operator/servers", "The servers of the cluster, as the leader sees them; without a leader, if what is stale will do, as the one that is asked does.", func(*api.Call, *ListServersInput) string { return all }, o.listServers),
		api.Change("DELETE /operator/servers/{server}", "Remove a server from the cluster.", func(*api.Call, *RemoveServerInput) string { return all }, o.removeServer),
		api.Upload("PUT /operator/snapshot", "Replace all of the state by a snapshot.", func(*api.Call, *RestoreSnapshotInput) string { return all }, o.restoreSnapshot),
		api.Download("GET /operator/snapshot", "All of the state, without the registry's blobs.", func(*api.Call, *SaveSnapshotInput) string { return all }, o.saveSnapshot),
	}...)
}

func (o *Operator) listServers(ctx context.Context, _ *ListServersInput) (*ListServersOutput, error) {
	members, err := o.leadersMembers(ctx)
	leaderless := errors.Is(err, state.ErrNoLeader)
	if leaderless { // whoever looks then wants to know who is missing
		members, err = o.Engine.Known(), nil
	}
	if err != nil {
		return nil, err
	}
	out := &ListServersOutput{Servers: []ServerDescription{}, Version: upgrade.Of(o.Store.View())}
	standings, newest := o.standings(ctx, members)
	for _, m := range members {
		s, answers := standings[m.ID]
		if leaderless {
			m.Healthy, m.Reason = answers, "it does not answer"
			if answers {
				m.LastContact, m.Reason = o.Clock.Now(), ""
			}
		}
		if answers && m.LastIndex == 0 { // the engine does not know
			m.Lag = uint64(newest - s.Revision)
		}
		d := ServerDescription{ID: m.ID, Address: m.Address, Role: "learner", Healthy: m.Healthy, Reason: m.Reason, Version: s.Speaks, Lag: m.Lag, LastContact: m.LastContact}
		switch {
		case m.Leader:
			d.Role = "leader"
		case m.Voter:
			d.Role = "voter"
		}
		out.Servers = append(out.Servers, d)
	}
	return out, nil
}

// leaderTimeout is how long a list of the servers waits for one that leads. Who wants the latest has waited longer before (the barrier).
const leaderTimeout = 2 * time.Second

func (o *Operator) leadersMembers(ctx context.Context) ([]state.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	return o.Engine.Members(ctx)
}

// standings are what the members say about themselves, and the last revision that any of them has applied.
func (o *Operator) standings(ctx context.Context, members []state.Member) (all map[string]Standing, newest state.Revision) {
	if o.Peers != nil {
		all = o.Peers.standings(ctx, members)
	} else {
		all = map[string]Standing{}
		for _, m := range members { // this server alone
			all[m.ID] = Standing{Speaks: version.Speaks, Revision: o.Store.Revision()}
		}
	}
	for _, s := range all {
		newest = max(newest, s.Revision)
	}
	return all, newest
}

func (o *Operator) removeServer(ctx context.Context, in *RemoveServerInput) (*RemoveServerOutput, error) {
	members, err := o.Engine.Members(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, m := range members {
		if strings.HasPrefix(m.ID, in.Server) {
			found = append(found, m.ID)
		}
	}
	switch {
	case len(found) == 0:
		return nil, awserr.WithStatus(http.StatusNotFound, "ServerNotFoundException", "The cluster has no server %s.", in.Server)
	case len(found) > 1:
		return nil, awserr.New("InvalidParameterException", "Several servers have an id that begins with %s: %s.", in.Server, strings.Join(found, ", "))
	}
	err = o.Engine.RemoveServer(ctx, found[0])
	switch {
	case errors.Is(err, state.ErrLastVoter):
		return nil, awserr.New("InvalidParameterException", "The server %s is the only one that has a vote.", found[0])
	case err != nil:
		return nil, err // a leader has handed over first: its successor is asked with the next try
	}
	return &RemoveServerOutput{found[0]}, nil
}

const (
	defaultTokenLife = time.Hour
	maxTokenLife     = 7 * 24 * time.Hour
)

func alone() error {
	return awserr.New("InvalidRequestException", "This platform runs in one process: no host can join it.")
}

func (o *Operator) createJoinToken(_ context.Context, in *CreateJoinTokenInput) (*CreateJoinTokenOutput, error) {
	life := time.Duration(in.Minutes) * time.Minute
	if life == 0 {
		life = defaultTokenLife
	}
	role := trust.Role(in.Role)
	switch {
	case o.Tokens == nil:
		return nil, alone()
	case role != trust.Agent && role != trust.Server:
		return nil, awserr.New("InvalidParameterException", "The role is %q: it is agent or server.", in.Role)
	case life > maxTokenLife:
		return nil, awserr.New("InvalidParameterException", "A token can be used for %d minutes at most.", int(maxTokenLife.Minutes()))
	}
	ends := o.Clock.Now().Add(life).Truncate(time.Second)
	token, err := o.Tokens.Make(role, ends, o.Rand)
	if err != nil {
		return nil, err
	}
	return &CreateJoinTokenOutput{token, ends.UTC()}, nil
}

func (o *Operator) saveSnapshot(ctx context.Context, _ *SaveSnapshotInput, w io.Writer) error {
	_, err := o.Engine.Save(ctx, w, false)
	return err
}

func (o *Operator) restoreSnapshot(ctx context.Context, _ *RestoreSnapshotInput, body io.Reader) (*RestoreSnapshotOutput, error) {
	r, err := o.Engine.Restore(ctx, body)
	switch {
	case errors.Is(err, state.ErrUnknownFormat):
		return nil, awserr.New("InvalidParameterException", "This snapshot is of a newer version; nothing was changed: %v.", err)
	case damaged(err):
		return nil, awserr.New("InvalidParameterException", "This is no snapshot, or it is damaged or cut short; nothing was changed: %v.", err)
	case err != nil:
		return nil, err
	}
	return &RestoreSnapshotOutput{uint64(r)}, nil
}

func damaged(err error) bool {
	var d *state.DamagedError
	return errors.As(err, &d)
}
