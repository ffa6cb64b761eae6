// Package execute runs the sessions of ECS Exec: it makes the token by which a client opens one, and carries the session between the
// client's data channel (internal/datachannel) and the command on the task's node (the dispatcher).
//
// It keeps nothing: all that a session is stands in its token, sealed; that a token opens one session only is seen to by the agent,
// whose task it is, wherever the client comes. A session lives on the server that has the node's, and ends with either connection.
//
// Invariants: the command ends when the client leaves, and the session when the command ends; neither a slow client nor a slow command
// nor a slow log holds more than a bounded number of messages in memory; a log that takes nothing delays a session once, and a little; every
// session that was opened leaves one record of how it ended.
package execute

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/id"
	"github.com/seed-2f228079/neargate/internal/seal"
)

// Config is what sessions stand on. All but the times are needed.
type Config struct {
	Nodes Nodes
	// Open has a node run a command, which ends with ctx or Close.
	Open  func(ctx context.Context, node string, req *agentapi.ExecRequest) (Command, error)
	Seal  *seal.Sealer // of tokens
	Rand  io.Reader
	Clock clock.Clock
	Log   *slog.Logger
	// Keep keeps a part of what a session has shown in its log (logs.Family.KeepSession); nil: nothing is kept.
	Keep func(ctx context.Context, task string, to *agentapi.SessionLog, events []*agentapi.ShipEvent, mark uint64) error
	// KeepObject keeps what a session has shown in an object (Buckets.Keep); nil: there is no store.
	KeepObject func(ctx context.Context, task, session string, to *controlplane.SessionLog, c Content) error
	// Ended is told of every session that was opened, once it is over; nil: the log alone is.
	Ended func(Record)

	Idle time.Duration // without a byte either way the session ends; 20 minutes
}

// Command runs on a node; dispatcher.Execution is one. One goroutine may Send while another one receives.
type Command interface {
	Send(*agentapi.ExecInput) error
	Recv() (*agentapi.ExecOutput, error)
	Close()
}

// Nodes are the hosts' agents; dispatcher.Server is one.
type Nodes interface {
	// Connected says whether the node has its session with this server.
	Connected(node string) bool
	// Where is the other server that it has its session with; empty: none is known.
	Where(ctx context.Context, node string) (server string, err error)
}

// Service makes and runs sessions. Safe for concurrent use.
type Service struct{ Config }

// New returns the service.
func New(c Config) *Service {
	if c.Idle == 0 {
		c.Idle = 20 * time.Minute
	}
	return &Service{c}
}

// tokenLife is for how long a session can be opened.
const tokenLife = time.Minute

// Path is where data channels are opened, below a server's name.
const Path = "/v1/data-channel/"

// claims are what a token says.
type claims struct {
	Session   string
	Account   string
	Region    string
	Cluster   string
	Task      string
	Container string
	Node      string
	Command   []string
	Caller    string // ARN
	Expires   time.Time
	// What the session shows is kept there; nil: nowhere.
	Kept *controlplane.SessionLog `json:",omitempty"`
}

// Begin makes a session in which the command will run. It changes nothing: until it is opened it is but its token.
func (s *Service) Begin(ctx context.Context, t *controlplane.Task, node, container string, command []string, to *controlplane.SessionLog) (types.Session, error) {
	if !s.Nodes.Connected(node) {
		if server, err := s.Nodes.Where(ctx, node); err != nil || server == "" {
			return types.Session{}, awserr.New("TargetNotConnectedException", "The execute command failed due to an internal error. Try again later.")
		}
	}
	call := api.CallFrom(ctx)
	c := claims{
		Session: "ecs-execute-command-" + id.Hex(s.Rand, 17), Account: t.Account, Region: t.Region, Cluster: t.Cluster, Task: t.Id,
		Container: container, Node: node, Command: command, Caller: call.ARN, Expires: s.Clock.Now().Add(tokenLife), Kept: to,
	}
	text, err := json.Marshal(c)
	if err != nil {
		return types.Session{}, err
	}
	u := url.URL{Scheme: "ws", Host: call.Host, Path: Path + c.Session, RawQuery: url.Values{"role": {"publish_subscribe"}, "node": {node}}.Encode()}
	if call.Secure {
		u.Scheme = "wss"
	}
	return types.Session{SessionId: &c.Session, StreamUrl: aws.String(u.String()), TokenValue: aws.String(s.Seal.SealString(text, []byte(c.Session)))}, nil
}

// claims reads a token that is to open the session.
func (s *Service) claims(session, token string) (claims, bool) {
	var c claims
	text, err := s.Seal.OpenString(token, []byte(session))
	if err != nil || json.Unmarshal(text, &c) != nil || s.Clock.Now().After(c.Expires) {
		return claims{}, false
	}
	return c, true
}

// Elsewhere is the other server that has what a request for a data channel needs; empty: this one answers. The node in the request is a
// hint that is not believed: the token says it again.
func (s *Service) Elsewhere(r *http.Request) (server string) {
	node := r.URL.Query().Get("node")
	if node == "" || s.Nodes.Connected(node) {
		return ""
	}
	server, err := s.Nodes.Where(r.Context(), node)
	if err != nil {
		s.Log.Debug("where a session of ECS Exec belongs", "node", node, "error", err)
	}
	return server
}
