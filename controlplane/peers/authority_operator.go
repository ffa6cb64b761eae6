package peers

import (
	"context"
	"crypto/x509"
	"net/http"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// maxHostsNamed is how many of the hosts that are waited for are named.
const maxHostsNamed = 100

// Inputs and answers of the resources.
type (
	GetAuthorityInput    struct{}
	RotateAuthorityInput struct{}
	RetireAuthorityInput struct {
		Force bool `json:"force" doc:"Do not wait for hosts that have no certificate of the new authority: they join again by a token."`
	}
	// AuthorityDescription is how the cluster's certificate authority stands.
	AuthorityDescription struct {
		Phase       string                 `json:"phase"` // steady, spreading, issuing, switching or forgetting
		Since       time.Time              `json:"since,omitzero"`
		Waits       string                 `json:"waits,omitempty"` // for what, or for whom
		Authorities []AuthorityCertificate `json:"authorities"`     // the oldest first
		Servers     []AuthorityServer      `json:"servers"`
		Hosts       int                    `json:"hosts"`                 // in all
		Behind      int                    `json:"behind"`                // hosts that have yet to renew
		HostsBehind []AuthorityHost        `json:"hostsBehind,omitempty"` // at most 100 of them
	}
	// AuthorityCertificate is one authority.
	AuthorityCertificate struct {
		ID          string    `json:"id"`
		Ends        time.Time `json:"ends"`
		Certificate string    `json:"certificate"` // PEM
	}
	// AuthorityServer is a server, and whether it has what is agreed upon.
	AuthorityServer struct {
		ID      string `json:"id"`
		Current bool   `json:"current"`
	}
	// AuthorityHost is a host that is waited for.
	AuthorityHost struct {
		Node   string `json:"node"`
		Name   string `json:"name"`
		Status string `json:"status"` // READY or DOWN
	}
)

// authorityResources are what the REST API has of the certificate authority.
func (o *Operator) authorityResources() []api.RESTResource {
	const all = "*"
	return []api.RESTResource{
		api.Document("GET /operator/authority", "The cluster's certificate authority, and how far its exchange for a new one has come.", func(*api.Call, *GetAuthorityInput) string { return all }, o.getAuthority),
		api.Change("POST /operator/authority/rotation", "Begin to exchange the cluster's certificate authority for a new one.", func(*api.Call, *RotateAuthorityInput) string { return all }, o.rotateAuthority),
		api.Change("POST /operator/authority/retirement", "Trust the old certificate authority no longer, once hosts and clients know the new one.", func(*api.Call, *RetireAuthorityInput) string { return all }, o.retireAuthority),
	}
}

func (o *Operator) rotation() (*Rotation, error) {
	if o.Rotation == nil {
		return nil, awserr.New("InvalidRequestException", "This platform runs in one process: it has no certificate authority.")
	}
	return o.Rotation, nil
}

func (o *Operator) getAuthority(ctx context.Context, _ *GetAuthorityInput) (*AuthorityDescription, error) {
	r, err := o.rotation()
	if err != nil {
		return nil, err
	}
	v := o.Store.View()
	ring, since := r.agreed(v)
	d := &AuthorityDescription{Phase: string(ring.Phase), Since: since, Authorities: []AuthorityCertificate{}, Servers: []AuthorityServer{}}
	if ring.Phase == trust.Steady {
		d.Phase = "steady"
	}
	for i, der := range ring.Authorities {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		d.Authorities = append(d.Authorities, AuthorityCertificate{ring.IDs()[i], cert.NotAfter.UTC(), string(trust.EncodeCertificate(der))})
	}
	members, err := o.Engine.Members(ctx)
	if err != nil {
		return nil, err
	}
	standings, _ := o.standings(ctx, members)
	lacking := ""
	for _, m := range members {
		s, answers := standings[m.ID]
		one := AuthorityServer{ID: m.ID, Current: answers && s.Authority >= ring.Generation}
		if !one.Current && lacking == "" {
			lacking = m.ID
		}
		d.Servers = append(d.Servers, one)
	}
	for range controlplane.Nodes.Scan(v, state.K()) {
		d.Hosts++
	}
	behind := hostsBehind(v, ring)
	d.Behind = len(behind)
	for _, n := range behind[:min(len(behind), maxHostsNamed)] {
		d.HostsBehind = append(d.HostsBehind, AuthorityHost{n.Id, n.Name, n.Status})
	}
	switch {
	case ring.Phase != trust.Steady && ring.Phase != trust.Issuing && lacking != "":
		d.Waits = "for server " + lacking
	case d.Behind > 0:
		d.Waits = "for hosts to renew their certificates"
	case ring.Phase == trust.Issuing:
		d.Waits = "for the old authority to be retired"
	}
	return d, nil
}

// agreed is what the servers have agreed upon; before the first exchange, what this one has.
func (r *Rotation) agreed(v state.Reader) (trust.Ring, time.Time) {
	if a, ok := authorities.Get(v, authorityKey); ok {
		return ringOf(a), a.Since.AsTime()
	}
	own, _ := r.Authority.Ring()
	return own, time.Time{}
}

// hostsBehind are those that are to renew in the phase.
func hostsBehind(v *state.View, ring trust.Ring) []*controlplane.Node {
	switch ring.Phase {
	case trust.Issuing, trust.Switching:
		return hostsWithout(v, ring.IDs(), false)
	case trust.Forgetting:
		return hostsWithout(v, ring.IDs(), true)
	}
	return nil
}

func (o *Operator) rotateAuthority(ctx context.Context, _ *RotateAuthorityInput) (*AuthorityDescription, error) {
	r, err := o.rotation()
	if err != nil {
		return nil, err
	}
	ring, _ := r.agreed(o.Store.View())
	if ring.Phase != trust.Steady {
		return nil, underWay(ring)
	}
	own, _ := r.Authority.Ring()
	if own.Generation != ring.Generation {
		return nil, awserr.WithStatus(http.StatusServiceUnavailable, "ServiceUnavailable", "The leader has yet to take the cluster's certificate authority. Please try again.")
	}
	next, err := r.Authority.Prepare()
	if err != nil {
		return nil, err
	}
	_, err = o.Store.Update(ctx, func(tx *state.Tx) error {
		if now, _ := r.agreed(tx); now.Generation != ring.Generation {
			return underWay(now)
		}
		return r.put(tx, trust.Ring{Generation: ring.Generation + 1, Phase: trust.Spreading, Authorities: [][]byte{ring.Authorities[0], next}})
	})
	if err != nil {
		return nil, err
	}
	return o.getAuthority(ctx, nil)
}

func underWay(ring trust.Ring) error {
	return awserr.New("InvalidRequestException", "The certificate authority is being exchanged already: the phase is %s.", ring.Phase)
}

func (o *Operator) retireAuthority(ctx context.Context, in *RetireAuthorityInput) (*AuthorityDescription, error) {
	r, err := o.rotation()
	if err != nil {
		return nil, err
	}
	_, err = o.Store.Update(ctx, func(tx *state.Tx) error {
		ring, since := r.agreed(tx)
		switch ring.Phase {
		case trust.Steady:
			return awserr.New("InvalidRequestException", "There is no old certificate authority to retire: begin with `neargate operator authority rotate`.")
		case trust.Issuing:
		case trust.Spreading:
			return awserr.New("InvalidRequestException", "Not all servers have the new certificate authority yet.")
		default:
			return nil // it is being retired
		}
		if n := len(hostsWithout(o.Store.View(), ring.IDs(), false)); n > 0 && !in.Force && r.Clock.Now().Before(since.Add(issuedLife)) {
			return awserr.New("InvalidRequestException", "%d hosts have no certificate of the new authority yet; without one they would have to join again, by a token.", n)
		}
		ring.Generation++
		ring.Phase = trust.Switching
		return r.put(tx, ring)
	})
	if err != nil {
		return nil, err
	}
	return o.getAuthority(ctx, nil)
}
