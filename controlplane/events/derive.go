package events

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/id"
)

// Types of events.
const (
	taskChange       = "ECS Task State Change"
	instanceChange   = "ECS Container Instance State Change"
	deploymentChange = "ECS Deployment State Change"
	serviceAction    = "ECS Service Action"
)

// tables are those whose changes are events.
var tables = []state.TableInfo{controlplane.TaskStatuses, controlplane.ContainerInstances, controlplane.Nodes, controlplane.Deployments, controlplane.ServiceEventRings}

// derived yields the events of a batch as the stream has them, each made when it is asked for: a batch may be all that the history has. They are valid
// until w makes those of the next one.
func (s *Service) derived(w *writer, b state.Batch) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		w.reset()
		for _, c := range b.Events {
			if c.Table == controlplane.TaskStatuses {
				old, now := change[*controlplane.TaskStatus](c)
				if now != nil && (old == nil || old.Version != now.Version) && !yield(s.taskRecord(w, b.View, c.Revision, now)) {
					return
				}
				continue
			}
			if c.Table == controlplane.Nodes || c.Table == controlplane.ContainerInstances {
				w.forgetHosts() // or their tables would be kept as they were until there is a task's event
			}
			for _, e := range s.told(b.View, c) {
				if !yield(e.record()) {
					return
				}
			}
		}
	}
}

// told are the events of a change of anything but a task.
func (s *Service) told(v *state.View, c state.Event) []Event {
	switch c.Table {
	case controlplane.ContainerInstances:
		old, now := change[*controlplane.ContainerInstance](c)
		if now != nil && (old == nil || old.Version != now.Version || old.Status != now.Status) {
			return []Event{s.instance(v, c, 0, now)}
		}
		if gone := deregistered(v, old, now); gone != nil {
			return []Event{s.instance(v, c, 0, gone)}
		}
	case controlplane.Nodes: // its agent has been lost, or is back
		old, now := change[*controlplane.Node](c)
		if old == nil || now == nil || old.Status == now.Status {
			return nil
		}
		var list []Event
		for ci := range controlplane.ContainerInstancesByNode.Scan(v, state.K(now.Id)) {
			list = append(list, s.instance(v, c, len(list), ci))
		}
		return list
	case controlplane.Deployments:
		old, now := change[*controlplane.Deployment](c)
		if now != nil && (old == nil || old.RolloutState != now.RolloutState) {
			return s.deployment(c, now)
		}
	case controlplane.ServiceEventRings:
		old, now := change[*controlplane.ServiceEvents](c)
		return s.service(c, old, now)
	}
	return nil
}

// deregistered is an instance whose record has gone with its host, as it was last, INACTIVE; nil: it is none, or has been told of, or went with its cluster.
func deregistered(v *state.View, old, now *controlplane.ContainerInstance) *controlplane.ContainerInstance {
	if now != nil || old == nil || old.Status == capacity.Inactive {
		return nil
	}
	if c, ok := controlplane.Clusters.Get(v, old.Scope().Key(old.Cluster)); !ok || c.Status != capacity.Active {
		return nil
	}
	gone := proto.CloneOf(old)
	gone.Status = capacity.Inactive
	gone.Version++
	return gone
}

func change[M proto.Message](c state.Event) (old, now M) {
	old, _ = c.Old.(M)
	now, _ = c.New.(M)
	return old, now
}

func (s *Service) event(c state.Event, ordinal int, detailType string, scope controlplane.Scope, resource string, detail json.RawMessage) Event {
	return event(c, ordinal, s.Clock.Now(), detailType, scope, resource, detail)
}

func event(c state.Event, ordinal int, at time.Time, detailType string, scope controlplane.Scope, resource string, detail json.RawMessage) Event {
	name := id.UUIDOf(fmt.Sprintf("%s/%s/%d/%d", c.Table.Name(), c.Key, c.Revision, ordinal))
	return Event{
		Version: "0", ID: name, DetailType: detailType, Source: "aws.ecs", Account: scope.Account, Region: scope.Region, Time: at.UTC(),
		Resources: []string{resource}, text: detail, Cursor: cursor(c.Revision, name), revision: c.Revision,
	}
}

func (s *Service) instance(v *state.View, c state.Event, ordinal int, ci *controlplane.ContainerInstance) Event {
	detail := with(s.Shapes.ContainerInstanceDetail(v, ci), map[string]any{"clusterArn": ci.Scope().ClusterARN(ci.Cluster), "updatedAt": s.Clock.Now().UTC()})
	return s.event(c, ordinal, instanceChange, ci.Scope(), ci.ARN(), detail)
}

// with is a JSON object that has members, with more of them.
func with(object string, more map[string]any) json.RawMessage {
	return append(append([]byte(object[:len(object)-1]), ','), text(more)[1:]...)
}

func text(members map[string]any) json.RawMessage {
	b, err := json.Marshal(members)
	if err != nil {
		panic(err) // strings and times
	}
	return b
}

func (s *Service) deployment(c state.Event, d *controlplane.Deployment) []Event {
	kind := "INFO"
	switch d.RolloutState {
	case "IN_PROGRESS", "COMPLETED":
	case "FAILED":
		kind = "ERROR"
	default:
		return nil // of a kind that has no rollout
	}
	scope := controlplane.Scope{Account: d.Account, Region: d.Region}
	detail := map[string]any{
		"eventType": kind, "eventName": "SERVICE_DEPLOYMENT_" + d.RolloutState, "deploymentId": d.Id, "updatedAt": d.Updated.AsTime(), "reason": d.RolloutReason,
	}
	return []Event{s.event(c, 0, deploymentChange, scope, scope.ServiceARN(d.Cluster, d.Service), text(detail))}
}

// actions are the service events that EventBridge is told, by how ECS words them.
var actions = []struct{ words, kind, name string }{
	{"has reached a steady state", "INFO", "SERVICE_STEADY_STATE"},
	{"was unable to place a task", "ERROR", "SERVICE_TASK_PLACEMENT_FAILURE"},
	{"is not AZ balanced with", "INFO", "SERVICE_REBALANCING_STARTED"},
	{"is AZ balanced with", "INFO", "SERVICE_REBALANCING_COMPLETED"},
	{"stopped AZ Rebalancing", "INFO", "SERVICE_REBALANCING_STOPPED"},
	{"to AZ Rebalance:", "INFO", "TASKS_STARTED"},
	{"due to AZ rebalancing:", "INFO", "TASKS_STOPPED"},
	{"is unable to consistently start tasks", "WARN", "SERVICE_TASK_START_IMPAIRED"},
}

// service tells of what is new in a service's ring, the oldest first.
func (s *Service) service(c state.Event, old, now *controlplane.ServiceEvents) []Event {
	var list []Event
	seen := ""
	if e := old.GetEvents(); len(e) > 0 {
		seen = e[0].Id
	}
	for i, e := range slices.Backward(until(now.GetEvents(), seen)) {
		for _, a := range actions {
			if !strings.Contains(e.Message, a.words) {
				continue
			}
			scope := controlplane.Scope{Account: now.Account, Region: now.Region}
			detail := map[string]any{"eventType": a.kind, "eventName": a.name, "clusterArn": scope.ClusterARN(now.Cluster), "createdAt": e.Created.AsTime()}
			if a.kind != "INFO" {
				detail["reason"] = e.Message
			}
			list = append(list, s.event(c, i, serviceAction, scope, scope.ServiceARN(now.Cluster, now.Service), text(detail)))
		}
	}
	return list
}

// until are the events of a ring, the newest first, that came after the one that was seen.
func until(ring []*controlplane.ServiceEvent, seen string) []*controlplane.ServiceEvent {
	i := slices.IndexFunc(ring, func(e *controlplane.ServiceEvent) bool { return e.Id == seen })
	if i < 0 {
		return ring
	}
	return ring[:i]
}

// missed yields events of what changed after from and is there still, in the order of its changes.
func (s *Service) missed(w *writer, v *state.View, from state.Revision) iter.Seq[[]byte] {
	var list []state.Event
	add := func(c state.Event) { list = append(list, c) }
	missed(v, controlplane.TaskStatuses, from, nil, add)
	missed(v, controlplane.ContainerInstances, from, nil, add)
	missed(v, controlplane.Deployments, from, nil, add)
	// Of a ring only the newest is surely new.
	missed(v, controlplane.ServiceEventRings, from, func(r *controlplane.ServiceEvents) proto.Message {
		return &controlplane.ServiceEvents{Events: r.Events[min(1, len(r.Events)):]}
	}, add)
	slices.SortStableFunc(list, func(a, b state.Event) int { return cmp.Compare(a.Revision, b.Revision) })
	return s.derived(w, state.Batch{View: v, Events: list})
}

func missed[T proto.Message](v *state.View, t *state.Table[T], from state.Revision, before func(T) proto.Message, add func(state.Event)) {
	for r := range t.Scan(v, state.K()) {
		key := t.Key(r)
		_, at, ok := t.GetRevision(v, key)
		if !ok || at <= from {
			continue
		}
		c := state.Event{Table: t, Key: key, New: r, Revision: at}
		if before != nil {
			c.Old = before(r)
		}
		add(c)
	}
}
