package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"
)

// LogLine is one line of a task's output.
type LogLine struct {
	Time      time.Time `json:"time"`
	Container string    `json:"container"`
	Stream    string    `json:"stream"` // stdout, stderr
	Message   string    `json:"message"`
	Error     string    `json:"error,omitempty"` // reading failed here; the last line
}

// LogOptions selects lines.
type LogOptions struct {
	Container string // empty: all of the task's
	Follow    bool
	Tail      int // last lines of each container; 0: all
	Since     time.Time
}

// Logs hands every line of the task's output to each until the output ends, or ctx.
func (c *Client) Logs(ctx context.Context, t Task, o LogOptions, each func(LogLine) error) error {
	q := url.Values{}
	if o.Container != "" {
		q.Set("container", o.Container)
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	if o.Tail > 0 {
		q.Set("tail", strconv.Itoa(o.Tail))
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.Format(time.RFC3339Nano))
	}
	body, err := c.get(ctx, "/clusters/"+url.PathEscape(t.Cluster)+"/tasks/"+url.PathEscape(t.ID)+"/logs", q)
	if err != nil {
		return err
	}
	defer body.Close()
	for dec := json.NewDecoder(bufio.NewReader(body)); ; {
		var l LogLine
		switch err := dec.Decode(&l); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the log: %w", err)
		case l.Error != "":
			return errors.New(l.Error)
		}
		if err := each(l); err != nil {
			return err
		}
	}
}

// Explanation says why a task is where it is, host by host.
type Explanation struct {
	Task    string `json:"task"`
	Status  string `json:"status"`
	Summary string `json:"summary,omitempty"` // the service event, when no host takes it
	Node    string `json:"node,omitempty"`    // where it is, once placed
	Hosts   []struct {
		Node    string   `json:"node"`
		Reasons []string `json:"reasons"` // "cpu: asked 512, free 128"; empty: it fits
	} `json:"hosts"`
}

// Explain asks why a task is placed where it is, or nowhere.
func (c *Client) Explain(ctx context.Context, t Task) (Explanation, error) {
	var e Explanation
	body, err := c.get(ctx, "/clusters/"+url.PathEscape(t.Cluster)+"/tasks/"+url.PathEscape(t.ID)+"/placement", nil)
	if err != nil {
		return e, err
	}
	defer body.Close()
	return e, json.NewDecoder(body).Decode(&e)
}
