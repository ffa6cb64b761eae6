package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Authority is how the cluster's certificate authority stands, and its exchange for a new one.
type Authority struct {
	Phase       string                 `json:"phase"` // steady, spreading, issuing, switching or forgetting
	Since       time.Time              `json:"since,omitzero"`
	Waits       string                 `json:"waits,omitempty"`
	Authorities []AuthorityCertificate `json:"authorities"` // the oldest first
	Servers     []AuthorityServer      `json:"servers"`
	Hosts       int                    `json:"hosts"`
	Behind      int                    `json:"behind"` // of the hosts: they have yet to renew their certificates
	HostsBehind []AuthorityHost        `json:"hostsBehind,omitempty"`
}

// AuthorityCertificate is one authority.
type AuthorityCertificate struct {
	ID          string    `json:"id"`
	Ends        time.Time `json:"ends"`
	Certificate string    `json:"certificate"` // PEM
}

// AuthorityServer is a server, and whether it has what is agreed upon.
type AuthorityServer struct {
	ID      string `json:"id"`
	Current bool   `json:"current"`
}

// AuthorityHost is a host that is waited for.
type AuthorityHost struct {
	Node   string `json:"node"`
	Name   string `json:"name"`
	Status string `json:"status"`
}

// Authority is the answer of the server that is asked.
func (c *Client) Authority(ctx context.Context) (*Authority, error) {
	out := &Authority{}
	return out, c.document(ctx, http.MethodGet, "/operator/authority", nil, out)
}

// RotateAuthority begins to exchange the certificate authority for a new one.
func (c *Client) RotateAuthority(ctx context.Context) (*Authority, error) {
	out := &Authority{}
	return out, c.document(ctx, http.MethodPost, "/operator/authority/rotation", nil, out)
}

// RetireAuthority has the old authority trusted no longer. With force, hosts that have no certificate of the new one are not waited for.
func (c *Client) RetireAuthority(ctx context.Context, force bool) (*Authority, error) {
	out := &Authority{}
	return out, c.document(ctx, http.MethodPost, "/operator/authority/retirement", url.Values{"force": {strconv.FormatBool(force)}}, out)
}
