package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/events/pattern"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/egress"
	"github.com/seed-2f228079/neargate/internal/webhook"
)

const (
	// deliveryTimeout is for a request and its answer.
	deliveryTimeout = 10 * time.Second
	// firstPause and lastPause are the back-off between requests that fail: it doubles.
	firstPause, lastPause = time.Second, 5 * time.Minute
	// eventsAtOnce is how many events of a webhook are read ahead.
	eventsAtOnce = 16
	// maxError is how much of an error is shown.
	maxError = 256
)

// newOutside makes the client for webhooks: checked addresses, and no redirects, which would be taken for deliveries.
func newOutside() *http.Client {
	transport := egress.Transport()
	transport.MaxIdleConns = maxWebhooksTogether
	return &http.Client{Transport: transport, Timeout: deliveryTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// courier delivers to one webhook, one request at a time.
type courier struct {
	*Service
	hook *Webhook
	end  context.CancelFunc

	mu        sync.Mutex
	now       *WebhookProgress // never changed, replaced
	dirty     bool             // now is not saved, and not only its cursor is new
	skipped   bool             // its cursor is
	skipSaved time.Time        // when last the cursor was

	from  state.Revision // of the cursor it began with: what the stream has yet to be told of earlier changes is done with
	pause time.Duration  // after the last request; 0: it did not fail
}

// parcel is an event that is the webhook's.
type parcel struct {
	event Event
	body  []byte
}

func (c *courier) run(ctx context.Context) {
	p := &pattern.Pattern{}
	if c.hook.Pattern != "" {
		var err error
		if p, err = pattern.Parse([]byte(c.hook.Pattern)); err != nil { // it was of another version
			c.Log.Error("a webhook's pattern is not understood; it gets no events", "webhook", c.hook.Id, "error", err)
			c.note(func(now *WebhookProgress) { now.LastError = brief(err) })
			return
		}
	}
	c.from, _, _ = parseCursor(c.now.Cursor)
	pos, err := c.position(&GetEventsInput{After: c.now.Cursor})
	for ctx.Err() == nil {
		var list []parcel
		next := pos
		if err == nil {
			list, next, err = c.read(p, pos)
		}
		if err != nil {
			c.Log.Error("read events for a webhook", "webhook", c.hook.Id, "error", err)
			if !c.wait(ctx, retry) {
				return
			}
			pos, err = c.position(&GetEventsInput{After: c.now.Cursor})
			continue
		}
		for _, one := range list {
			if !c.handOver(ctx, one) {
				return
			}
		}
		if pos = next; len(list) < eventsAtOnce {
			err = c.Streams.Wait(ctx, streamName, pos)
		}
	}
}

func (c *courier) wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-c.Clock.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// read reads on from pos, until there are enough events or no more.
func (c *courier) read(p *pattern.Pattern, pos uint64) (list []parcel, next uint64, err error) {
	next, last := pos, ""
	for r, err := range c.Streams.From(streamName, pos) {
		if err != nil {
			return nil, pos, err
		}
		next = r.Position + 1
		e, ok := read(r)
		if !ok || revisionOf(r) < c.from {
			continue
		}
		last = e.Cursor
		if e.Account != c.hook.Account || e.Region != c.hook.Region {
			continue
		}
		body, ok := c.text(r, e)
		if !ok {
			continue
		}
		if is, err := p.Match(body); err != nil || !is {
			continue
		}
		if list = append(list, parcel{e, bytes.Clone(body)}); len(list) == eventsAtOnce {
			return list, next, nil
		}
	}
	if len(list) == 0 && last != "" {
		c.mu.Lock()
		c.now, c.skipped = proto.CloneOf(c.now), true
		c.now.Cursor = last
		c.mu.Unlock()
	}
	return list, next, nil
}

// handOver delivers an event or gives it up; false: ctx has ended before.
func (c *courier) handOver(ctx context.Context, one parcel) bool {
	for {
		// Whoever answers gets what is old as well; whoever does not is not waited for with every old event anew.
		if c.pause > 0 {
			if c.Clock.Now().Sub(one.event.Time) >= c.GiveUp {
				c.note(func(now *WebhookProgress) { now.Cursor, now.Dropped = one.event.Cursor, now.Dropped+1 })
				return true
			}
			if !c.wait(ctx, c.pause) {
				return false
			}
		}
		err := c.post(ctx, one)
		if ctx.Err() != nil {
			return false // rather twice than never
		}
		at := timestamppb.New(c.Clock.Now())
		if err == nil {
			c.pause = 0
			c.note(func(now *WebhookProgress) {
				now.Cursor, now.Delivered, now.LastError, now.Succeeded = one.event.Cursor, now.Delivered+1, "", at
			})
			return true
		}
		if c.pause == 0 {
			c.Log.Warn("a webhook takes no events", "webhook", c.hook.Id, "error", err)
		}
		c.pause = min(max(2*c.pause, firstPause), lastPause)
		c.note(func(now *WebhookProgress) { now.LastError, now.Failed = brief(err), at })
	}
}

// post makes one request. Its error says nothing of URL or secret.
func (c *courier) post(ctx context.Context, one parcel) error {
	secret, err := c.Seal.Open(c.hook.Sealed, c.hook.bound())
	if err != nil {
		return fmt.Errorf("open the secret: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.hook.Url, bytes.NewReader(one.body))
	if err != nil {
		return errors.New("the URL is not valid")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "neargate")
	req.Header.Set("X-Neargate-Event-Id", one.event.ID)
	webhook.Sign(req.Header, string(secret), c.Clock.Now(), one.body)
	resp, err := c.outside.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the answer is %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return nil
}

func brief(err error) string {
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), maxError)], "")
}

// note changes the progress.
func (c *courier) note(change func(now *WebhookProgress)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.dirty = proto.CloneOf(c.now), true
	change(c.now)
}

// unsaved is the progress that is due to be written; nil: none.
func (c *courier) unsaved() *WebhookProgress {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dirty || c.skipped && c.Clock.Now().Sub(c.skipSaved) >= saveSkipped {
		return c.now
	}
	return nil
}

// saved says that p is written.
func (c *courier) saved(p *WebhookProgress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipSaved = c.Clock.Now()
	if c.now == p {
		c.dirty, c.skipped = false, false
	}
}
