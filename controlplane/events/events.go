// Package events tells what happens in ECS in the shapes of EventBridge: tasks, container instances and deployments that change
// their state, and what services do.
//
// Events are not written by whoever changes something, and are in no log of their own: they follow from the records. Every server derives
// them from the committed changes as it applies these, into a stream on its own disk, so that they cost the replicated log
// nothing and any server has them. An event's id follows from the record and the revision of its change, so it is the same on all of them.
//
// Invariants: an event is told at least once, and a change that ECS counts (a task's or an instance's version, a deployment's rollout state, a
// service event) is one event. After a gap, of a server that was down or too slow for the history of changes, what changed
// meanwhile is told once, as it is now; what was deleted meanwhile is not told. Positions (Event.Cursor) are good on any server.
//
// The leader delivers them to webhooks, out of its own stream: to each one after the other, in the order of changes, at least once or until the
// event is too old. What is kept of that in the state is the cursor. A webhook's secret is in the state only sealed, and in no log line or error.
package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// streamName is the stream that all events are in.
const streamName = "ecs-events"

// Config is what events are made of and kept in.
type Config struct {
	Store   *state.Store
	Streams *stream.Store
	Shapes  Shapes
	Clock   clock.Clock
	Log     *slog.Logger
	Rand    io.Reader
	Seal    api.Sealer // of webhooks' secrets; for them alone

	Retention time.Duration // 7 days
	// GiveUp is for how long a webhook is tried to be given an event. 24 hours.
	GiveUp time.Duration
}

// Shapes show records as ECS does, as JSON objects that have members; ecs.Service is one.
type Shapes interface {
	// TaskHost is what is to be kept of the task's host, TaskDetail the task as of st. False: it is gone.
	TaskHost(r state.Reader, st *controlplane.TaskStatus) controlplane.TaskHost
	TaskDetail(r state.Reader, st *controlplane.TaskStatus, host controlplane.TaskHost) (string, bool)
	ContainerInstanceDetail(r state.Reader, ci *controlplane.ContainerInstance) string
}

// Service derives, keeps and shows events.
type Service struct {
	Config
	outside *http.Client // that webhooks are reached by
}

// New returns the service. Run it.
func New(c Config) *Service {
	if c.Retention == 0 {
		c.Retention = 7 * 24 * time.Hour
	}
	if c.GiveUp == 0 {
		c.GiveUp = 24 * time.Hour
	}
	return &Service{c, newOutside()}
}

// Event is one, in EventBridge's envelope.
type Event struct {
	Version    string         `json:"version"` // "0"
	ID         string         `json:"id"`
	DetailType string         `json:"detail-type"`
	Source     string         `json:"source"` // "aws.ecs"
	Account    string         `json:"account"`
	Time       time.Time      `json:"time"` // when the server that tells it has seen the change
	Region     string         `json:"region"`
	Resources  []string       `json:"resources"`
	Detail     map[string]any `json:"detail"`
	// Cursor is the event's place: events after it are those that came later. Not EventBridge's.
	Cursor string `json:"cursor"`

	revision state.Revision
	text     json.RawMessage // Detail, of an event that is derived
	task     *TaskChange     // of a task's event: what Detail is made from by whoever wants it
}

// EventID is what server-sent events are resumed by.
func (e Event) EventID() string { return e.Cursor }

// Run follows the changes until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.follow(ctx) })
	g.Go(func() error { return s.expire(ctx) })
	g.Go(func() error { return s.Store.RunLeader(ctx, s.deliver) })
	return g.Wait()
}

// retry is the pause after the stream takes nothing.
const retry = time.Second

// follow goes on from the last change that the stream has. A stream that is new begins with what happens from now on.
func (s *Service) follow(ctx context.Context) error {
	info, err := s.Streams.Stat(streamName)
	if err != nil {
		return fmt.Errorf("stream of events: %w", err)
	}
	from := state.Revision(info.Mark)
	if from == 0 {
		from = s.Store.Revision()
	}
	for ctx.Err() == nil {
		if from, err = s.followFrom(ctx, from); err == nil || ctx.Err() != nil {
			continue
		}
		s.Log.Error("keep events", "error", err)
		select {
		case <-s.Clock.After(retry):
		case <-ctx.Done():
		}
	}
	return nil
}

// followFrom derives events of the changes after from. It returns the last change that the stream has everything of.
func (s *Service) followFrom(ctx context.Context, from state.Revision) (state.Revision, error) {
	changes, w := s.Store.Watch(ctx, from, tables...), &writer{}
	for {
		b, err := changes.Next(ctx)
		switch {
		case errors.Is(err, state.ErrCompacted):
			v := s.Store.View()
			if err := s.keep(ctx, s.missed(w, v, from), v.Revision()); err != nil {
				return from, err
			}
			return v.Revision(), nil
		case err != nil:
			return from, err
		}
		if err := s.keep(ctx, s.derived(w, b), b.Revision); err != nil {
			return from, err
		}
		from = b.Revision
	}
}

// A batch of the stream, which is synced to disk before the next one, is so many events, or fewer with so many bytes.
const (
	keptAtOnce = 200
	keptBytes  = 1 << 20
)

// keep appends events; with the last of them the stream has everything up to revision.
func (s *Service) keep(ctx context.Context, events iter.Seq[[]byte], revision state.Revision) error {
	now := s.Clock.Now().UnixMilli()
	b, size := stream.Batch{Ingested: now}, 0
	for data := range events {
		if len(b.Records) == keptAtOnce || size >= keptBytes {
			if err := s.append(ctx, b); err != nil {
				return err
			}
			b.Records, size = b.Records[:0], 0
		}
		b.Records, size = append(b.Records, stream.Record{Time: now, Data: data}), size+len(data)
	}
	if len(b.Records) == 0 {
		return nil
	}
	b.Mark = uint64(revision)
	return s.append(ctx, b)
}

func (s *Service) append(ctx context.Context, b stream.Batch) error {
	_, added, err := s.Streams.Append(ctx, streamName, b)
	if err == nil && !added {
		s.Log.Warn("events of an older state are not kept", "revision", b.Mark)
	}
	return err
}

// expireEvery is the pause between two looks for old events.
const expireEvery = time.Hour

func (s *Service) expire(ctx context.Context) error {
	for {
		if _, err := s.Streams.Drop(streamName, s.Clock.Now().Add(-s.Retention).UnixMilli(), 0); err != nil && ctx.Err() == nil {
			s.Log.Error("remove old events", "error", err)
		}
		select {
		case <-s.Clock.After(expireEvery):
		case <-ctx.Done():
			return nil
		}
	}
}

// cursor is the place of a change's event.
func cursor(revision state.Revision, id string) string { return fmt.Sprintf("%d-%s", revision, id) }

func parseCursor(c string) (revision state.Revision, id string, ok bool) {
	number, id, ok := strings.Cut(c, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	return state.Revision(n), id, ok && err == nil
}
