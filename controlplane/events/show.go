package events

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// GetEventsInput selects events of the caller's account and region.
type GetEventsInput struct {
	Follow     bool      `json:"follow" doc:"Go on with what happens."`
	After      string    `json:"after" doc:"Begin after the event with this cursor; as server-sent events, Last-Event-ID says the same."`
	Since      time.Time `json:"since" doc:"Only events that are not older; without it and without after, a follower begins with what happens from now on."`
	DetailType string    `json:"detail-type" doc:"Only events of this type, for example ECS Task State Change."`
	Cluster    string    `json:"cluster" doc:"Only events of this cluster: its name or ARN."`
}

// Resources is what the REST API has of it.
func (s *Service) Resources() []api.RESTResource {
	return append([]api.RESTResource{
		api.Stream("GET /events", "What happened in ECS, in the shapes of EventBridge, kept for a week: as JSON lines, or as server-sent events.",
			func(*api.Call, *GetEventsInput) string { return "*" }, s.show),
	}, s.webhookResources()...)
}

// show implements neargate:GetEvents.
func (s *Service) show(ctx context.Context, in *GetEventsInput, emit func(...Event) error) error {
	call := api.CallFrom(ctx)
	wanted, err := filter(controlplane.Scope{Account: call.Account, Region: call.Region}, in)
	if err != nil {
		return err
	}
	pos, err := s.position(in)
	if err != nil {
		return err
	}
	if err := emit(); err != nil {
		return err
	}
	for {
		next := pos
		for r, err := range s.Streams.From(streamName, pos) {
			if err != nil {
				return err
			}
			next = r.Position + 1
			if e, ok := read(r); ok && wanted(r, &e) && s.complete(&e) {
				if err := emit(e); err != nil {
					return err
				}
			}
		}
		if pos = next; !in.Follow {
			return nil
		}
		if err := s.Streams.Wait(ctx, streamName, pos); err != nil {
			return ctx.Err()
		}
	}
}

// position is where in this server's stream to begin: after the event that the cursor is of or, if it is not here, after those of
// earlier changes. Rather an event twice than none.
func (s *Service) position(in *GetEventsInput) (uint64, error) {
	info, err := s.Streams.Stat(streamName)
	if err != nil {
		return 0, err
	}
	if in.After == "" {
		if in.Follow && in.Since.IsZero() {
			return info.Next, nil
		}
		return info.First, nil
	}
	revision, id, ok := parseCursor(in.After)
	if !ok {
		return 0, awserr.New("InvalidParameterException", "after is %q, which is no event's cursor.", in.After)
	}
	pos := info.Next
	for r, err := range s.Streams.Before(streamName, info.Next) {
		switch {
		case err != nil:
			return 0, err
		case revisionOf(r) < revision:
			return pos, nil
		}
		if e, ok := read(r); ok && e.ID == id {
			return r.Position + 1, nil
		}
		pos = r.Position
	}
	return pos, nil
}

// filter is what an input selects.
func filter(scope controlplane.Scope, in *GetEventsInput) (func(stream.Record, *Event) bool, error) {
	kinds := []string{taskChange, instanceChange, deploymentChange, serviceAction}
	if in.DetailType != "" && !slices.Contains(kinds, in.DetailType) {
		return nil, awserr.New("InvalidParameterException", "detail-type is %q: it is one of %s.", in.DetailType, strings.Join(kinds, ", "))
	}
	cluster := in.Cluster
	if arn.Is(cluster) {
		cluster = cluster[strings.LastIndexByte(cluster, '/')+1:]
	}
	return func(r stream.Record, e *Event) bool {
		return e.Account == scope.Account && e.Region == scope.Region && (in.DetailType == "" || e.DetailType == in.DetailType) &&
			(in.Since.IsZero() || !e.Time.Before(in.Since)) && (cluster == "" || slices.ContainsFunc(e.Resources, func(name string) bool { return inCluster(name, cluster) }))
	}, nil
}

// inCluster says whether the resource, kind/cluster/name, is of the cluster.
func inCluster(name, cluster string) bool {
	_, path, _ := strings.Cut(name, "/")
	of, _, _ := strings.Cut(path, "/")
	return of == cluster
}
