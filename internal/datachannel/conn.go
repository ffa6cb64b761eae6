package datachannel

import (
	"context"
	"fmt"
	"net/http"

	"github.com/coder/websocket"
)

// Conn is one end of a WebSocket.
type Conn struct{ ws *websocket.Conn }

// Accept answers a client's request to open a channel. After an error the request is answered.
func Accept(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	// Whoever comes needs a token, which no web page has: where the page is from does not matter.
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(MaxMessage)
	return &Conn{ws}, nil
}

// Dial opens a channel at a ws or wss URL.
func Dial(ctx context.Context, url string, client *http.Client) (*Conn, error) {
	ws, answer, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: client, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		if answer != nil {
			return nil, fmt.Errorf("the server answered %s: %w", answer.Status, err)
		}
		return nil, err
	}
	ws.SetReadLimit(MaxMessage)
	return &Conn{ws}, nil
}

// ReadText reads the first message.
func (c *Conn) ReadText(ctx context.Context) ([]byte, error) {
	return c.read(ctx, websocket.MessageText)
}

// WriteText writes the first message.
func (c *Conn) WriteText(ctx context.Context, b []byte) error {
	return c.ws.Write(ctx, websocket.MessageText, b)
}

func (c *Conn) read(ctx context.Context, want websocket.MessageType) ([]byte, error) {
	kind, b, err := c.ws.Read(ctx)
	if err == nil && kind != want {
		return nil, fmt.Errorf("a %v where a %v is due", kind, want)
	}
	return b, err
}

func (c *Conn) readMessage(ctx context.Context) ([]byte, error) {
	return c.read(ctx, websocket.MessageBinary)
}

func (c *Conn) write(ctx context.Context, b []byte) error {
	return c.ws.Write(ctx, websocket.MessageBinary, b)
}

// Close ends the connection in good order, or at once if the other end does not answer soon.
func (c *Conn) Close() { c.ws.Close(websocket.StatusNormalClosure, "") }

// Refuse ends it for a reason that the other end is told, of 120 bytes at most.
func (c *Conn) Refuse(reason string) {
	c.ws.Close(websocket.StatusPolicyViolation, reason[:min(len(reason), 120)])
}

// Drop ends it at once.
func (c *Conn) Drop() { c.ws.CloseNow() }

// Limit sets the size of the largest message that is taken, where it is not MaxMessage.
func (c *Conn) Limit(bytes int64) { c.ws.SetReadLimit(bytes) }

// Ping returns once the other end has answered a ping. Somebody must be reading meanwhile.
func (c *Conn) Ping(ctx context.Context) error { return c.ws.Ping(ctx) }
