//go:build linux && cgo

package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// taskRecord is record.json: what Create was asked for, with the images as they were then.
type taskRecord struct {
	ID                    string
	Spec                  json.RawMessage // TaskSpec as protojson, without registry passwords
	DNSServers, DNSSearch []string
	ExtraHosts            []string
	Environment           map[string]string
	Images                map[string]imageRecord // by container
}

// sandboxRecord is sandbox.json.
type sandboxRecord struct {
	Mode     string
	Address  string
	IPv6     string // empty: none
	Gateway  string
	Groups   []string                // security groups
	Ports    map[string][]portRecord // by container
	Complete bool                    // everything of the sandbox was made
}

type portRecord struct {
	Container, Host uint16
	Count           uint16 // of ports in a row; 0: one
	Protocol        string
}

// startedRecord is a container's started.json, of its newest run.
type startedRecord struct {
	RuntimeID string
	PID       int
	At        time.Time
	Run       int // 0: the first; a restart begins the next
}

func (r startedRecord) started() runtime.Started {
	return runtime.Started{RuntimeID: r.RuntimeID, PID: r.PID, At: r.At}
}

// exitRecord is a container's exit.json.
type exitRecord struct {
	Code   int
	Signal string
	OOM    bool
	Reason string
	// NotStarted: the process never ran.
	NotStarted bool
	At         time.Time
	Run        int // which one ended; an end of a run before the newest is over and done with
}

func (r exitRecord) exit() runtime.Exit {
	return runtime.Exit{Code: r.Code, Signal: r.Signal, OOM: r.OOM, Reason: r.Reason, At: r.At}
}

// newTaskRecord makes the record, and the task that task makes of it again.
func newTaskRecord(t runtime.Task, images map[string]imageRecord) (taskRecord, runtime.Task, error) {
	t.Spec = proto.CloneOf(t.Spec)
	for _, c := range t.Spec.Containers {
		c.RegistryPassword = "" // of no use after the pull, and not to be kept on disk
	}
	b, err := protojson.Marshal(t.Spec)
	if err != nil {
		return taskRecord{}, t, err
	}
	return taskRecord{ID: t.ID, Spec: b, DNSServers: t.DNSServers, DNSSearch: t.DNSSearch, ExtraHosts: t.ExtraHosts,
		Environment: t.Environment, Images: images}, t, nil
}

func (r taskRecord) task() (runtime.Task, error) {
	spec := &agentapi.TaskSpec{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(r.Spec, spec); err != nil {
		return runtime.Task{}, fmt.Errorf("record of task %s: %w", r.ID, err)
	}
	return runtime.Task{ID: r.ID, Spec: spec, DNSServers: r.DNSServers, DNSSearch: r.DNSSearch, ExtraHosts: r.ExtraHosts, Environment: r.Environment}, nil
}

func (s *sandboxRecord) sandbox() runtime.Sandbox {
	out := runtime.Sandbox{Address: s.Address, IPv6: s.IPv6, Gateway: s.Gateway, Ports: map[string][]*agentapi.PortBinding{}}
	if s.Address != "" {
		out.MAC = s.networkInterface("").MAC().String()
	}
	for name, ports := range s.Ports {
		for _, p := range ports {
			out.Ports[name] = append(out.Ports[name], &agentapi.PortBinding{ContainerPort: uint32(p.Container),
				HostPort: uint32(p.Host), Count: uint32(p.Count), Protocol: p.Protocol, BindIp: "0.0.0.0"})
		}
	}
	return out
}

// writeRecord replaces a file by rename, so that readers and crashes see the old or the new one.
func writeRecord(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(aheadOf(path), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.CreateTemp(filepath.Dir(path), ".tmp-")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Truncate(int64(len(b))) // a file that was made ahead may hold something longer
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// aheadOf is where a record's file can be made ahead, which takes ten times as long as writing and naming it. One process writes such a record at a time.
func aheadOf(path string) string {
	return filepath.Join(filepath.Dir(path), ".ahead-"+filepath.Base(path))
}

func makeAhead(path string) error { return os.WriteFile(aheadOf(path), nil, 0o600) }

// readRecord says whether the file is there and whole.
func readRecord(path string, v any) (bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("record %s: %w", path, err)
	}
	return true, nil
}
