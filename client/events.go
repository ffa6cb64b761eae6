package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"
)

// Event is something that happened in ECS, in EventBridge's envelope.
type Event struct {
	ID         string          `json:"id"`
	DetailType string          `json:"detail-type"`
	Source     string          `json:"source"`
	Account    string          `json:"account"`
	Time       time.Time       `json:"time"`
	Region     string          `json:"region"`
	Resources  []string        `json:"resources"`
	Detail     json.RawMessage `json:"detail"`
	Cursor     string          `json:"cursor"` // where to go on after it
}

// EventOptions selects events.
type EventOptions struct {
	Follow     bool
	After      string    // cursor
	Since      time.Time // zero: all that are kept or, followed, none
	DetailType string
	Cluster    string
}

// Events hands every event to each until there are no more, or ctx ends.
func (c *Client) Events(ctx context.Context, o EventOptions, each func(Event) error) error {
	q := url.Values{}
	for name, v := range map[string]string{"after": o.After, "detail-type": o.DetailType, "cluster": o.Cluster} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.Format(time.RFC3339Nano))
	}
	body, err := c.get(ctx, "/events", q)
	if err != nil {
		return err
	}
	defer body.Close()
	for dec := json.NewDecoder(bufio.NewReader(body)); ; {
		var e Event
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the events: %w", err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
}
