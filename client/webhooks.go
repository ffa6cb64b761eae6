package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// EventWebhook is a URL that events are delivered to.
type EventWebhook struct {
	ID              string    `json:"id"`
	URL             string    `json:"url"`
	Pattern         string    `json:"pattern,omitempty"`
	CreatedBy       string    `json:"createdBy"`
	CreatedAt       time.Time `json:"createdAt"`
	Secret          string    `json:"secret,omitempty"` // in the answer that makes it
	Delivered       uint64    `json:"delivered"`
	Dropped         uint64    `json:"dropped"`
	LastError       string    `json:"lastError,omitempty"`
	LastFailureAt   time.Time `json:"lastFailureAt,omitzero"`
	LastDeliveredAt time.Time `json:"lastDeliveredAt,omitzero"`
}

// NewEventWebhook says what to make.
type NewEventWebhook struct {
	URL     string `json:"url"`
	Pattern string `json:"pattern,omitempty"` // of EventBridge; empty: every event
	Secret  string `json:"secret,omitempty"`  // empty: one is made
}

// EventWebhooks are those of the account and region.
func (c *Client) EventWebhooks(ctx context.Context) ([]EventWebhook, error) {
	var out struct{ Webhooks []EventWebhook }
	err := c.document(ctx, http.MethodGet, "/event-webhooks", nil, &out)
	return out.Webhooks, err
}

// CreateEventWebhook has events delivered to a URL from now on.
func (c *Client) CreateEventWebhook(ctx context.Context, in NewEventWebhook) (*EventWebhook, error) {
	text, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	body, err := c.rest(ctx, http.MethodPost, "/event-webhooks", nil, jsonDocument{bytes.NewReader(text)})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	out := &EventWebhook{}
	return out, json.NewDecoder(body).Decode(out)
}

// DeleteEventWebhook ends the delivery to a webhook.
func (c *Client) DeleteEventWebhook(ctx context.Context, id string) error {
	return c.document(ctx, http.MethodDelete, "/event-webhooks/"+url.PathEscape(id), nil, &EventWebhook{})
}
