package events

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// A record of the stream is the change's revision, and then either the event, as JSON, or kindTask and a TaskChange. Tasks change more than all
// else together and few of their events are ever read: whoever reads one makes its text.
const kindTask = 1

// writer makes records one after the other, in the same memory: on every server one is made of most that happens. It is used by one goroutine.
type writer struct {
	text   []byte // of the records of a batch
	status []byte
	change TaskChange

	// The hosts as of these versions of their tables, by node: beside tasks they seldom change.
	nodes, instances state.Version
	hosts            map[string]taskHost
}

// taskHost is what is kept of the host of a cluster's tasks.
type taskHost struct {
	scope   controlplane.Scope
	cluster string
	controlplane.TaskHost
}

// reset begins a batch: what was made of the one before is not needed any more.
func (w *writer) reset() {
	if w.text = w.text[:0]; cap(w.text) > keptBytes {
		w.text = nil
	}
}

func (w *writer) forgetHosts() { w.nodes, w.instances, w.hosts = state.Version{}, state.Version{}, nil }

// taskRecord is what the stream has of a task's event. It is valid until w is reset.
func (s *Service) taskRecord(w *writer, v *state.View, revision state.Revision, st *controlplane.TaskStatus) []byte {
	host := s.taskHost(w, v, st)
	var err error
	if w.status, err = (proto.MarshalOptions{}).MarshalAppend(w.status[:0], st); err != nil {
		panic(err) // it has been encoded before, for the state
	}
	w.change.Time, w.change.Status = s.Clock.Now().UnixNano(), w.status
	w.change.Zone, w.change.Architecture, w.change.Connected, w.change.Instance = host.Zone, host.Architecture, host.Connected, host.Instance
	at := len(w.text)
	w.text = append(binary.BigEndian.AppendUint64(w.text, uint64(revision)), kindTask)
	if w.text, err = (proto.MarshalOptions{}).MarshalAppend(w.text, &w.change); err != nil {
		panic(err) // ids, and names that were in the state
	}
	return w.text[at:len(w.text):len(w.text)]
}

// taskHost asks for the task's host as it is in v.
func (s *Service) taskHost(w *writer, v *state.View, st *controlplane.TaskStatus) controlplane.TaskHost {
	if st.Node == "" {
		return s.Shapes.TaskHost(v, st)
	}
	if nodes, instances := controlplane.Nodes.Version(v), controlplane.ContainerInstances.Version(v); w.hosts == nil || w.nodes != nodes || w.instances != instances {
		w.nodes, w.instances, w.hosts = nodes, instances, map[string]taskHost{}
	}
	scope := controlplane.Scope{Account: st.Account, Region: st.Region}
	h, ok := w.hosts[st.Node]
	if !ok || h.scope != scope || h.cluster != st.Cluster {
		h = taskHost{controlplane.Scope{Account: strings.Clone(st.Account), Region: strings.Clone(st.Region)}, strings.Clone(st.Cluster), s.Shapes.TaskHost(v, st)}
		w.hosts[strings.Clone(st.Node)] = h // the status would be kept by its text
	}
	return h.TaskHost
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
