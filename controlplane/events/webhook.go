package events

import (
	"context"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/events/pattern"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/egress"
	"github.com/seed-2f228079/neargate/internal/id"
)

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative controlplane/events/events.proto

// The tables.
var (
	// Webhooks are written by the resources; the leader delivers to them.
	Webhooks = state.NewTable("events.webhook", func(h *Webhook) state.Key { return state.K(h.Account, h.Region, h.Id) })
	// Progress is written by the leader, and removed with its webhook.
	Progress = state.NewTable("events.webhookprogress", func(p *WebhookProgress) state.Key { return state.K(p.Account, p.Region, p.Id) })
)

// Schema is every table.
var Schema = state.Schema{Webhooks, Progress}

const (
	maxWebhooks         = 50  // of an account and region
	maxWebhooksTogether = 500 // each may wait for an answer at the same time
	maxURL              = 2048
	minSecret           = 16
	maxSecret           = 256
)

// WebhookShape is a webhook as it is shown.
type WebhookShape struct {
	ID            string    `json:"id"`
	URL           string    `json:"url"`
	Pattern       string    `json:"pattern,omitempty"`
	CreatedBy     string    `json:"createdBy"`
	CreatedAt     time.Time `json:"createdAt"`
	Secret        string    `json:"secret,omitempty" doc:"In the answer that makes it, and never again."`
	Delivered     uint64    `json:"delivered" doc:"Events that were answered with 2xx."`
	Dropped       uint64    `json:"dropped" doc:"Events that were given up."`
	LastError     string    `json:"lastError,omitempty" doc:"Of the last request, if it failed."`
	LastFailure   time.Time `json:"lastFailureAt,omitzero"`
	LastDelivered time.Time `json:"lastDeliveredAt,omitzero"`
}

func (h *Webhook) shape(r state.Reader) WebhookShape {
	s := WebhookShape{ID: h.Id, URL: h.Url, Pattern: h.Pattern, CreatedBy: h.By, CreatedAt: h.Created.AsTime()}
	if p, ok := Progress.Get(r, Webhooks.Key(h)); ok {
		s.Delivered, s.Dropped, s.LastError = p.Delivered, p.Dropped, p.LastError
		if p.Failed != nil {
			s.LastFailure = p.Failed.AsTime()
		}
		if p.Succeeded != nil {
			s.LastDelivered = p.Succeeded.AsTime()
		}
	}
	return s
}

// bound ties a secret to its webhook and to where that sends: a record that is changed elsewhere opens no more.
func (h *Webhook) bound() []byte {
	return []byte("webhook v1 " + h.Account + " " + h.Region + " " + h.Id + " " + h.Url)
}

// CreateEventWebhookInput has no parameters: what it says is in the body.
type CreateEventWebhookInput struct{}

// NewWebhook is the body that makes a webhook.
type NewWebhook struct {
	URL     string `json:"url" doc:"Where events are posted to: http or https."`
	Pattern string `json:"pattern,omitempty" doc:"Which events: an event pattern of EventBridge, as text; default all."`
	Secret  string `json:"secret,omitempty" doc:"What requests are signed by, 16 to 256 characters; default one is made."`
}

// ListEventWebhooksInput has no parameters.
type ListEventWebhooksInput struct{}

// ListEventWebhooksOutput is those of the account and region.
type ListEventWebhooksOutput struct {
	Webhooks []WebhookShape `json:"webhooks"`
}

// GetEventWebhookInput names a webhook.
type GetEventWebhookInput struct {
	ID string `json:"id" doc:"of the webhook"`
}

// DeleteEventWebhookInput names a webhook.
type DeleteEventWebhookInput GetEventWebhookInput

func webhooksTarget[I any](*api.Call, *I) string { return "*" }

func (s *Service) webhookResources() []api.RESTResource {
	return []api.RESTResource{
		api.Document("GET /event-webhooks", "The webhooks that events are delivered to, and how that goes, as of some seconds ago.", webhooksTarget[ListEventWebhooksInput], s.listWebhooks),
		api.Create("POST /event-webhooks", "Deliver events to a URL, from now on.", webhooksTarget[CreateEventWebhookInput], s.createWebhook),
		api.Document("GET /event-webhooks/{id}", "A webhook, and how its delivery goes, as of some seconds ago.", webhooksTarget[GetEventWebhookInput], s.getWebhook),
		api.Change("DELETE /event-webhooks/{id}", "Deliver no more events to a webhook.", webhooksTarget[DeleteEventWebhookInput], s.deleteWebhook),
	}
}

func invalid(field, why string) error {
	return awserr.New("InvalidParameterException", "Invalid parameter at '%s': %s.", field, why)
}

// checkURL refuses what can be seen to be wrong; where a name leads is checked when it is dialed.
func checkURL(text string) string {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxURL:
		return "it is longer than 2048 characters"
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "it is no URL like https://host/path"
	case u.User != nil:
		return "it has a user name or password; the secret signs requests"
	case u.Fragment != "":
		return "it has a fragment"
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		if err := egress.Check(a); err != nil {
			return err.Error()
		}
	}
	return ""
}

func (s *Service) createWebhook(ctx context.Context, _ *CreateEventWebhookInput, in *NewWebhook) (*WebhookShape, error) {
	if why := checkURL(in.URL); why != "" {
		return nil, invalid("url", why)
	}
	if in.Pattern != "" {
		if _, err := pattern.Parse([]byte(in.Pattern)); err != nil {
			return nil, invalid("pattern", err.Error())
		}
	}
	secret := in.Secret
	switch {
	case secret == "":
		secret = id.Hex(s.Rand, 64)
	case len(secret) < minSecret || len(secret) > maxSecret:
		return nil, invalid("secret", "it has 16 to 256 characters")
	}
	c := api.CallFrom(ctx)
	h := &Webhook{Account: c.Account, Region: c.Region, Id: id.Hex(s.Rand, 16), Url: in.URL, Pattern: in.Pattern, By: c.ARN, Created: timestamppb.New(s.Clock.Now())}
	h.Sealed = s.Seal.Seal([]byte(secret), h.bound())
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error {
		mine, all := 0, 0
		for o := range Webhooks.Scan(tx, state.K()) {
			if all++; o.Account == c.Account && o.Region == c.Region {
				mine++
			}
		}
		switch {
		case mine >= maxWebhooks:
			return awserr.New("LimitExceededException", "An account has at most %d webhooks for events in a region.", maxWebhooks)
		case all >= maxWebhooksTogether:
			return awserr.New("LimitExceededException", "The platform has at most %d webhooks for events.", maxWebhooksTogether)
		}
		Webhooks.Put(tx, h)
		return nil
	})
	if err != nil {
		return nil, err
	}
	shape := h.shape(s.Store.View())
	shape.Secret = secret
	return &shape, nil
}

func findWebhook(ctx context.Context, r state.Reader, name string) (*Webhook, error) {
	c := api.CallFrom(ctx)
	h, ok := Webhooks.Get(r, state.K(c.Account, c.Region, name))
	if !ok {
		return nil, awserr.WithStatus(404, "ResourceNotFoundException", "There is no webhook with the id '%s'.", strings.ToValidUTF8(name, "?"))
	}
	return h, nil
}

func (s *Service) getWebhook(ctx context.Context, in *GetEventWebhookInput) (*WebhookShape, error) {
	v := s.Store.View()
	h, err := findWebhook(ctx, v, in.ID)
	if err != nil {
		return nil, err
	}
	shape := h.shape(v)
	return &shape, nil
}

func (s *Service) listWebhooks(ctx context.Context, _ *ListEventWebhooksInput) (*ListEventWebhooksOutput, error) {
	c, v := api.CallFrom(ctx), s.Store.View()
	out := &ListEventWebhooksOutput{Webhooks: []WebhookShape{}}
	for h := range Webhooks.Scan(v, state.K(c.Account, c.Region)) {
		out.Webhooks = append(out.Webhooks, h.shape(v))
	}
	return out, nil
}

func (s *Service) deleteWebhook(ctx context.Context, in *DeleteEventWebhookInput) (*WebhookShape, error) {
	var shape WebhookShape
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error {
		h, err := findWebhook(ctx, tx, in.ID)
		if err != nil {
			return err
		}
		shape = h.shape(tx)
		Webhooks.Delete(tx, Webhooks.Key(h))
		Progress.Delete(tx, Webhooks.Key(h))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &shape, nil
}
