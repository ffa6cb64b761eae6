package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"sync"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// wantedPapers are the papers that hosts should have, for the dispatcher.
func wantedPapers(a *trust.Authority) func() (*agentapi.Papers, <-chan struct{}) {
	return func() (*agentapi.Papers, <-chan struct{}) { return told(a.Wanted()) }
}

// papersOf are a host's own, for the agent.
func papersOf(c *trust.Credential) func() (*agentapi.Papers, <-chan struct{}) {
	return func() (*agentapi.Papers, <-chan struct{}) { return told(c.Papers()) }
}

func told(p trust.Papers, others <-chan struct{}) (*agentapi.Papers, <-chan struct{}) {
	return &agentapi.Papers{Issuer: p.Issuer, Authorities: p.Authorities}, others
}

// renewing has a host's certificate renewed when a server asks for it.
func renewing(c *trust.Credential) func(*agentapi.Renew) {
	return func(r *agentapi.Renew) {
		c.Hasten(trust.Papers{Issuer: r.GetWanted().GetIssuer(), Authorities: r.GetWanted().GetAuthorities()}, time.Duration(r.WithinMillis)*time.Millisecond)
	}
}

// clusterTransport carries requests to registries, the cluster's own among them, whose certificate is of the cluster's authority: of the one
// that there is when a request begins.
type clusterTransport struct {
	credential *trust.Credential
	system     *x509.CertPool

	mu     sync.Mutex
	papers trust.Papers
	now    *http.Transport
}

func newClusterTransport(c *trust.Credential) (*clusterTransport, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("certificates that this system trusts: %w", err)
	}
	return &clusterTransport{credential: c, system: roots}, nil
}

// RoundTrip implements http.RoundTripper.
func (t *clusterTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.current().RoundTrip(r)
}

func (t *clusterTransport) current() *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	papers, _ := t.credential.Papers()
	if t.now != nil && papers.Equal(t.papers) {
		return t.now
	}
	roots := t.system.Clone()
	roots.AppendCertsFromPEM(t.credential.Authorities())
	old := t.now
	t.papers, t.now = papers, http.DefaultTransport.(*http.Transport).Clone()
	t.now.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	if old != nil {
		old.CloseIdleConnections() // what is under way ends in its own time
	}
	return t.now
}
