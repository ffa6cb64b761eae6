package datachannel

import (
	"context"
	"encoding/json"
	"strconv"
	"time"
)

// Opening is the first message, in text.
type Opening struct {
	SchemaVersion string `json:"MessageSchemaVersion"` // "1.0"
	RequestID     string `json:"RequestId"`
	Token         string `json:"TokenValue"`
	ClientID      string `json:"ClientId"`
	ClientVersion string `json:"ClientVersion,omitempty"`
	// SessionType is not AWS's: a client of ours says by it that it knows exit codes, and whether it wants a terminal.
	SessionType string `json:"SessionType,omitempty"`
}

// Types of sessions.
const (
	Interactive    = "InteractiveCommands"    // on a terminal
	NonInteractive = "NonInteractiveCommands" // with pipes, and stderr apart
)

// Handshake is what the end with the command asks of the client.
type Handshake struct {
	AgentVersion string            `json:"AgentVersion"`
	Actions      []HandshakeAction `json:"RequestedClientActions"`
}

// HandshakeAction is one thing that the client is to do.
type HandshakeAction struct {
	Type       string           `json:"ActionType"`
	Parameters ActionParameters `json:"ActionParameters"`
}

// ActionParameters are those of the action SessionType, the only one there is here.
type ActionParameters struct {
	SessionType string `json:"SessionType"`
	Properties  any    `json:"Properties"`
}

// NewHandshake asks for a session of a type.
func NewHandshake(sessionType string) Handshake {
	return Handshake{AgentVersion: agentVersion, Actions: []HandshakeAction{{actionSessionType, ActionParameters{SessionType: sessionType}}}}
}

// agentVersion is compared by clients with versions of AWS's agent, which know ECS Exec and exit codes since 3.
const (
	agentVersion      = "3.3.0.0"
	actionSessionType = "SessionType"
)

// HandshakeAnswer is what the client has done.
type HandshakeAnswer struct {
	ClientVersion string            `json:"ClientVersion"`
	Processed     []ProcessedAction `json:"ProcessedClientActions"`
	Errors        []string          `json:"Errors"`
}

// ProcessedAction is one of them.
type ProcessedAction struct {
	Type   string `json:"ActionType"`
	Status int    `json:"ActionStatus"` // 1 done, 2 failed, 3 unsupported
	Result any    `json:"ActionResult"`
	Error  string `json:"Error"`
}

// Answer does what a handshake asks of a client of ours.
func (h Handshake) Answer(version string) HandshakeAnswer {
	a := HandshakeAnswer{ClientVersion: version, Processed: []ProcessedAction{}}
	for _, action := range h.Actions {
		p := ProcessedAction{Type: action.Type, Status: 1}
		if action.Type != actionSessionType {
			p.Status, p.Error = 3, "Unsupported action "+action.Type
			a.Errors = append(a.Errors, p.Error)
		}
		a.Processed = append(a.Processed, p)
	}
	return a
}

// Completion ends the handshake.
type Completion struct {
	Time    time.Duration `json:"HandshakeTimeToComplete"` // nanoseconds
	Message string        `json:"CustomerMessage"`
}

// TerminalSize is the payload of Size.
type TerminalSize struct {
	Columns uint32 `json:"cols"`
	Rows    uint32 `json:"rows"`
}

// Closing is the payload of ChannelClosed.
type Closing struct {
	MessageID     string `json:"MessageId"`
	Created       string `json:"CreatedDate"` // milliseconds of the epoch
	Destination   string `json:"DestinationId"`
	Session       string `json:"SessionId"`
	Type          string `json:"MessageType"`
	SchemaVersion int    `json:"SchemaVersion"`
	Output        string `json:"Output"` // why, if there is something to say
}

// SendJSON is Send of a payload in JSON.
func (c *Channel) SendJSON(ctx context.Context, t PayloadType, payload any) error {
	b, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	return c.Send(ctx, t, 0, b)
}

// Closed tells the client that the session is over.
func (c *Channel) Closed(ctx context.Context, session, destination, said string) error {
	m := c.message(ChannelClosed, nil)
	b, err := json.Marshal(Closing{m.ID.String(), strconv.FormatInt(m.Created, 10), destination, session, m.Type, schemaVersion, said})
	if err != nil {
		return err
	}
	m.Payload = b
	return c.frames.write(ctx, m.Marshal())
}
