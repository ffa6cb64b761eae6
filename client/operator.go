package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ServerDescription is a server of the cluster, as its leader sees it.
type ServerDescription struct {
	ID          string    `json:"id"`
	Address     string    `json:"address"`
	Role        string    `json:"role"`
	Healthy     bool      `json:"healthy"`
	Reason      string    `json:"reason,omitempty"`
	Version     uint32    `json:"version"` // that its build speaks; 0: it does not answer
	Lag         uint64    `json:"lag"`
	LastContact time.Time `json:"lastContact"`
}

// Servers are those of the cluster.
func (c *Client) Servers(ctx context.Context) ([]ServerDescription, error) {
	list, _, err := c.Members(ctx)
	return list, err
}

// Members are the servers of the cluster, and the version of the cluster, which is what they all speak. While none of them leads they are what the
// one that is asked knows.
func (c *Client) Members(ctx context.Context) ([]ServerDescription, uint32, error) {
	var out struct {
		Servers []ServerDescription
		Version uint32
	}
	body, err := c.get(ctx, "/operator/servers", nil)
	if e, ok := err.(*restError); ok && e.status == http.StatusServiceUnavailable {
		body, err = c.restWith(ctx, http.Header{"X-Neargate-Consistency": {"stale"}}, http.MethodGet, "/operator/servers", nil, nil)
	}
	if err != nil {
		return nil, 0, err
	}
	defer body.Close()
	err = json.NewDecoder(body).Decode(&out)
	return out.Servers, out.Version, err
}

// RemoveServer removes a server, by its id or the beginning of it, and says which it was.
func (c *Client) RemoveServer(ctx context.Context, server string) (string, error) {
	var out struct{ ID string }
	err := c.document(ctx, http.MethodDelete, "/operator/servers/"+url.PathEscape(server), nil, &out)
	return out.ID, err
}

// Scrub says how the image layers on a server's disk are, as it reads them again.
type Scrub struct {
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended,omitzero"`
	After    string    `json:"after,omitempty"`
	Blobs    uint64    `json:"blobs"`
	Bytes    uint64    `json:"bytes"`
	Rotten   uint64    `json:"rotten"`
	Repaired uint64    `json:"repaired"`
	Lost     []string  `json:"lost,omitempty"`
}

// Scrub asks the server that answers.
func (c *Client) Scrub(ctx context.Context) (*Scrub, error) {
	out := &Scrub{}
	return out, c.document(ctx, http.MethodGet, "/operator/scrub", nil, out)
}

// ObjectStore says how what is in the object store stands to what the registry has.
type ObjectStore struct {
	Compared time.Time `json:"compared,omitzero"`
	Objects  uint64    `json:"objects"`
	Bytes    uint64    `json:"bytes"`
	Moved    uint64    `json:"moved"`
	Waiting  uint64    `json:"waiting"`
	Lost     []string  `json:"lost,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// ObjectStore is the leader's answer.
func (c *Client) ObjectStore(ctx context.Context) (*ObjectStore, error) {
	out := &ObjectStore{}
	return out, c.document(ctx, http.MethodGet, "/operator/object-store", nil, out)
}

// JoinToken is a token by which one host joins.
type JoinToken struct {
	Token string    `json:"token"`
	Ends  time.Time `json:"ends"`
}

// CreateJoinToken makes a token for one host of a role, agent or server.
func (c *Client) CreateJoinToken(ctx context.Context, role string, life time.Duration) (JoinToken, error) {
	var out JoinToken
	query := url.Values{"role": {role}, "minutes": {strconv.Itoa(int(life.Minutes()))}}
	return out, c.document(ctx, http.MethodPost, "/operator/tokens", query, &out)
}

// RevokeSecret has the bootstrap secret admit no more hosts.
func (c *Client) RevokeSecret(ctx context.Context) error {
	return c.document(ctx, http.MethodDelete, "/operator/secret", nil, &struct{}{})
}

// SaveSnapshot writes all of the state to w. A snapshot that breaks off is an error.
func (c *Client) SaveSnapshot(ctx context.Context, w io.Writer) error {
	body, err := c.get(ctx, "/operator/snapshot", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	return err
}

// RestoreSnapshot replaces all of the state by a snapshot.
func (c *Client) RestoreSnapshot(ctx context.Context, r io.Reader) (revision uint64, err error) {
	body, err := c.rest(ctx, http.MethodPut, "/operator/snapshot", nil, r)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	var out struct{ Revision uint64 }
	return out.Revision, json.NewDecoder(body).Decode(&out)
}

// leaderPatience is for how long somebody who asks waits for a leader; each answer that there is none takes a server up to 15 s.
const leaderPatience = 20 * time.Second

// document calls a resource that answers one JSON document. While the cluster changes its leader it tries again.
func (c *Client) document(ctx context.Context, method, path string, query url.Values, out any) error {
	for began := time.Now(); ; {
		body, err := c.rest(ctx, method, path, query, nil)
		if err == nil {
			defer body.Close()
			return json.NewDecoder(body).Decode(out)
		}
		if e, ok := err.(*restError); !ok || e.status != http.StatusServiceUnavailable || time.Since(began) > leaderPatience {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}
