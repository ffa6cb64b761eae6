// Package ecsagent is the gateway of Amazon's ECS agent, the program on ECS-optimized images: it speaks that agent's protocol on the one side and,
// on the other, the one that the platform's own agents speak to the dispatcher. To the dispatcher such an agent is a subscriber like any other.
//
// An agent holds two WebSockets, each opened by a request that its instance's role has signed. By one it polls (ACS): payloads with tasks come
// down, acknowledgements go up. By the other it sends telemetry (TCS). What becomes of tasks it tells by operations of ECS (SubmitTaskStateChange).
// The gateway keeps nothing: what it knows of a session it has from records, and reads anew with the next.
//
// Invariants:
//
//  1. The session with the dispatcher lasts as long as the connection answers: that is what agentConnected shows.
//  2. An update is acknowledged to the dispatcher once the agent has acknowledged every message that it was made into. Until then at most the
//     dispatcher's window of updates is on the way: a slow agent fills no memory.
//  3. A task is never stopped because a record of it is missing: only where the record says that it is over, or is another node's.
//  4. What cannot be carried to the agent ends the task with the reason; it is not left out.
//  5. Credentials are made when they are sent and kept nowhere. Their ids, by which containers get at them, nobody can guess, and a task's stay the
//     same.
package ecsagent

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datachannel"
)

// Dispatcher is the server's; dispatcher.Server is one. It must take whoever ActsFor names for the agent of that node.
type Dispatcher interface {
	Session(stream agentapi.Dispatcher_SessionServer) error
	// ReportHealth takes in how containers of tasks on the node are.
	ReportHealth(ctx context.Context, node string, tasks []*agentapi.TaskStatus) error
}

// Roles make the credentials of tasks; sts.Service is one.
type Roles interface {
	TaskCredentials(account, role, taskARN string) (api.Credential, error)
}

// Config of a Gateway. All but the times are needed.
type Config struct {
	Store      *state.Store
	Dispatcher Dispatcher
	Roles      Roles
	Key        []byte // of the cluster: ids of credentials are made with it
	Rand       io.Reader
	Clock      clock.Clock
	Log        *slog.Logger

	Rotation time.Duration // a connection is ended after so long, and up to a tenth more, and the agent makes another; 25 minutes
	Patience time.Duration // for a message's acknowledgement; a minute
	Ping     time.Duration // how often the connection is tried; 3 s
}

// Gateway serves the connections of one server. Safe for concurrent use.
type Gateway struct {
	Config
	ids      []byte
	sessions [2]atomic.Int64
}

// New makes one.
func New(c Config) (*Gateway, error) {
	if c.Rotation == 0 {
		c.Rotation = 25 * time.Minute
	}
	if c.Patience == 0 {
		c.Patience = time.Minute
	}
	if c.Ping == 0 {
		c.Ping = 3 * time.Second
	}
	ids, err := hkdf.Key(sha256.New, c.Key, nil, "neargate ids of credentials for agents of ECS", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of credential ids: %w", err)
	}
	return &Gateway{Config: c, ids: ids}, nil
}

// Sessions are how many agents poll here, and send telemetry.
func (g *Gateway) Sessions() (poll, telemetry int64) {
	return g.sessions[0].Load(), g.sessions[1].Load()
}

type actingKey struct{}

// ActsFor is the node whose agent a session with ctx is, as the gateway has seen to; empty: it is none of the gateway's. No other process can
// make such a context.
func ActsFor(ctx context.Context) string {
	node, _ := ctx.Value(actingKey{}).(string)
	return node
}

// request is what an agent says of itself when it opens a channel.
type request struct {
	telemetry bool
	scope     controlplane.Scope
	cluster   string
	instance  string // id

	agentVersion, agentHash, dockerVersion string
}

// maxVersion is the length of what an agent says of its versions: it is kept in a record.
const maxVersion = 128

// read reads it. The two channels name things differently.
func read(c *api.Call, telemetry bool, q url.Values) (request, error) {
	ref := q.Get("containerInstanceArn")
	if telemetry {
		ref = q.Get("containerInstance")
	}
	a, err := arn.Parse(ref)
	if err != nil || a.Service != "ecs" || a.Type() != "container-instance" {
		return request{}, awserr.New("InvalidInstanceException", "The container instance '%s' is not an ARN of one.", ref)
	}
	cluster, name, ok := strings.Cut(a.Rest(), "/")
	if !ok || a.Account != c.Account || a.Region != c.Region {
		return request{}, awserr.New("InvalidInstanceException", "The container instance %s is not one of account %s and region %s.", ref, c.Account, c.Region)
	}
	r := request{telemetry: telemetry, scope: controlplane.Scope{Account: a.Account, Region: a.Region}, cluster: cluster, instance: name,
		agentVersion: q.Get("agentVersion"), agentHash: q.Get("agentHash"), dockerVersion: q.Get("dockerVersion")}
	if max(len(r.agentVersion), len(r.agentHash), len(r.dockerVersion)) > maxVersion {
		return request{}, awserr.New("BadRequestException", "A version is longer than %d characters.", maxVersion)
	}
	return r, nil
}

// Needs is what the caller has to be allowed for the channel: ecs:Poll, or ecs:StartTelemetrySession, on the instance.
func (g *Gateway) Needs(c *api.Call, telemetry bool, q url.Values) (api.Access, error) {
	r, err := read(c, telemetry, q)
	if err != nil {
		return api.Access{}, err
	}
	a := api.Access{Action: "ecs:Poll", Resources: []string{r.scope.ContainerInstanceARN(r.cluster, r.instance)}, Key: func(key string) ([]string, bool) {
		if key != "ecs:cluster" {
			return nil, false
		}
		return []string{r.scope.ClusterARN(r.cluster)}, true
	}}
	if telemetry {
		a.Action = "ecs:StartTelemetrySession"
	}
	return a, nil
}

// Open opens a channel for who may: the function serves it, until the connection or ctx ends.
func (g *Gateway) Open(c *api.Call, telemetry bool, q url.Values) (func(ctx context.Context, conn *datachannel.Conn), error) {
	r, err := read(c, telemetry, q)
	if err != nil {
		return nil, err
	}
	v := g.Store.View()
	ci, ok := controlplane.ContainerInstances.Get(v, r.scope.Key(r.cluster, r.instance))
	if !ok {
		return nil, awserr.New("InvalidInstanceException", "The container instance %s was not found.", r.instance)
	}
	// The agent knows it is to give up its instance by the exception's name.
	if ci.Status == inactive {
		return nil, awserr.New("InactiveInstanceException", "The container instance %s is INACTIVE.", r.instance)
	}
	n, ok := controlplane.Nodes.Get(v, state.K(ci.Node))
	if !ok || n.AmazonAgent == nil {
		return nil, awserr.New("InvalidInstanceException", "The container instance %s was not registered by RegisterContainerInstance.", r.instance)
	}
	base := "http://" + c.Host
	if c.Secure {
		base = "https://" + c.Host
	}
	count := &g.sessions[0]
	run := func(ctx context.Context, conn *datachannel.Conn) error { return g.poll(ctx, conn, r, ci.Node, base) }
	if telemetry {
		count = &g.sessions[1]
		run = func(ctx context.Context, conn *datachannel.Conn) error { return g.listen(ctx, conn, ci.Node) }
	}
	return func(ctx context.Context, conn *datachannel.Conn) {
		count.Add(1)
		defer count.Add(-1)
		err := run(context.WithValue(ctx, actingKey{}, ci.Node), conn)
		g.Log.Info("session of an ECS agent ended", "node", ci.Node, "telemetry", telemetry, "reason", err)
		if e := ended(""); err == nil || errors.As(err, &e) || ctx.Err() != nil {
			conn.Close() // the agent comes back at once
			return
		}
		conn.Refuse(err.Error()) // it comes back after a pause that grows
	}, nil
}

const inactive = "INACTIVE"

// ended is a session's end that is nobody's failure.
type ended string

func (e ended) Error() string { return string(e) }

// credentialsID is that of a task's credentials for a role: containers have it in their environment for life.
func (g *Gateway) credentialsID(taskARN, roleType string) string {
	m := hmac.New(sha256.New, g.ids)
	m.Write([]byte(roleType + "\x00" + taskARN))
	s := hex.EncodeToString(m.Sum(nil)[:16])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
