package events

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// A record of the stream is the change's revision, and then either the event, as JSON, or kindTask and a TaskChange. Tasks change more than all
// else together and few of their events are ever read: whoever reads one makes its text.
const kindTask = 1

// taskRecord is what the stream has of a task's event.
func (s *Service) taskRecord(v *state.View, revision state.Revision, st *controlplane.TaskStatus) []byte {
	host := s.Shapes.TaskHost(v, st)
	status, err := proto.Marshal(st)
	if err != nil {
		panic(err) // it has been encoded before, for the state
	}
	change := &TaskChange{
		Time: s.Clock.Now().UnixNano(), Status: status, Zone: host.Zone, Architecture: host.Architecture, Connected: host.Connected, Instance: host.Instance,
	}
	b := make([]byte, 0, 9+proto.Size(change))
	b = append(binary.BigEndian.AppendUint64(b, uint64(revision)), kindTask)
	if b, err = (proto.MarshalOptions{}).MarshalAppend(b, change); err != nil {
		panic(err) // ids, and names that were in the state
	}
	return b
}

// record is what the stream has of another event.
func (e Event) record() []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 512+len(e.text)), uint64(e.revision)), e.document()...)
}

// document is the event, as JSON, with the text that it has of its detail.
func (e Event) document() []byte {
	envelope, err := json.Marshal(struct {
		Event
		Detail *struct{} `json:"detail,omitempty"` // in place of Event's; it is text already
	}{Event: e})
	if err != nil {
		panic(err) // strings and a time
	}
	b := make([]byte, 0, len(envelope)+len(`,"detail":`)+len(e.text))
	b = append(append(b, envelope[:len(envelope)-1]...), `,"detail":`...)
	return append(append(b, e.text...), '}')
}

func revisionOf(r stream.Record) state.Revision {
	if len(r.Data) < 8 {
		return 0
	}
	return state.Revision(binary.BigEndian.Uint64(r.Data))
}

// read reads an event; that of a task is without its detail.
func read(r stream.Record) (e Event, ok bool) {
	if len(r.Data) <= 8 {
		return e, false
	}
	if r.Data[8] != kindTask {
		return e, json.Unmarshal(r.Data[8:], &e) == nil
	}
	change, st := &TaskChange{}, &controlplane.TaskStatus{}
	if proto.Unmarshal(r.Data[9:], change) != nil || proto.Unmarshal(change.Status, st) != nil {
		return e, false
	}
	scope := controlplane.Scope{Account: st.Account, Region: st.Region}
	c := state.Event{Table: controlplane.TaskStatuses, Key: controlplane.TaskStatuses.Key(st), Revision: revisionOf(r)}
	e = event(c, 0, time.Unix(0, change.Time), taskChange, scope, scope.TaskARN(st.Cluster, st.Id), nil)
	e.task = change
	return e, true
}

// text is the whole of an event that was read from r, as JSON. False: its task is gone.
func (s *Service) text(r stream.Record, e Event) ([]byte, bool) {
	if e.task == nil {
		return r.Data[8:], true
	}
	var ok bool
	if e.text, ok = s.taskDetail(e.task); !ok {
		return nil, false
	}
	return e.document(), true
}

// complete gives an event that was read its detail. False: its task is gone.
func (s *Service) complete(e *Event) bool {
	if e.task == nil {
		return true
	}
	detail, ok := s.taskDetail(e.task)
	return ok && json.Unmarshal(detail, &e.Detail) == nil
}

// taskDetail makes the detail of a task's event. Task and definition never change; what does was kept.
func (s *Service) taskDetail(change *TaskChange) (json.RawMessage, bool) {
	st := &controlplane.TaskStatus{}
	if proto.Unmarshal(change.Status, st) != nil {
		return nil, false
	}
	host := controlplane.TaskHost{Zone: change.Zone, Architecture: change.Architecture, Connected: change.Connected, Instance: change.Instance}
	detail, ok := s.Shapes.TaskDetail(s.Store.View(), st, host)
	if !ok {
		return nil, false
	}
	return with(detail, map[string]any{"updatedAt": time.Unix(0, change.Time).UTC()}), true
}
