package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// taskStore keeps one file a task, DIR/tasks/ID: what was assigned and how far it got; DIR/ended/ID, empty, for a task of
// which only logs are left, its time the end's; and DIR/ship/ID.CONTAINER for an output that is still to be shipped. Files are
// replaced as a whole, but a task's statuses are appended: making a file is what costs most.
// They are not synced: they have to outlive this process, not the machine, with whose crash the tasks end too. A task's file of which such a crash left nothing, or not the
// whole assignment, is of a task that was never here: what is wanted of it comes again.
type taskStore struct{ dir string }

type kept struct {
	assignment *agentapi.Assignment
	status     *agentapi.TaskStatus
}

func (s taskStore) save(as *agentapi.Assignment, st *agentapi.TaskStatus) error {
	b, err := proto.Marshal(&agentapi.KeptTask{Assignment: as, Status: st})
	if err != nil {
		return err
	}
	return s.replace(filepath.Join(s.tasks(), as.TaskId), b)
}

// maxKept is how large a task's file may become before it is written anew.
const maxKept = 64 << 10

// note appends a status to the task's file.
func (s taskStore) note(as *agentapi.Assignment, st *agentapi.TaskStatus) error {
	b, err := proto.Marshal(&agentapi.KeptTask{Later: []*agentapi.TaskStatus{st}})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.tasks(), as.TaskId), os.O_WRONLY|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return s.save(as, st)
	}
	if err != nil {
		return err
	}
	var n int
	info, err := f.Stat()
	if err == nil && info.Size() < maxKept {
		n, err = f.Write(b)
	}
	if err = errors.Join(err, f.Close()); err == nil && n == len(b) {
		return nil
	}
	return s.save(as, st) // it is large, or has half a status at its end, after which no other could be read
}

// readKept reads a task's file. Half a status at its end was never appended; the one before it counts. whole is the size without it. errUnwritten: there is not even
// the assignment.
func readKept(b []byte) (_ kept, whole int, _ error) {
	for whole < len(b) {
		_, _, n := protowire.ConsumeField(b[whole:])
		if n < 0 {
			break
		}
		whole += n
	}
	if _, _, n := protowire.ConsumeField(b); whole == 0 && errors.Is(protowire.ParseError(n), io.ErrUnexpectedEOF) {
		return kept{}, 0, errUnwritten
	}
	var k agentapi.KeptTask
	if err := proto.Unmarshal(b[:whole], &k); err != nil {
		return kept{}, 0, err
	}
	if n := len(k.Later); n > 0 {
		k.Status = k.Later[n-1]
	}
	return kept{k.Assignment, k.Status}, whole, nil
}

var errUnwritten = errors.New("the file is not whole")

func (s taskStore) replace(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func (s taskStore) tasks() string { return filepath.Join(s.dir, "tasks") }
func (s taskStore) ended() string { return filepath.Join(s.dir, "ended") }

// remove forgets a task that ended at the given time, but for its logs.
func (s taskStore) remove(id string, at time.Time) error {
	mark := filepath.Join(s.ended(), id)
	if err := s.replace(mark, nil); err != nil {
		return err
	}
	if err := os.Chtimes(mark, at, at); err != nil {
		return err
	}
	return gone(os.Remove(filepath.Join(s.tasks(), id)))
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// endedBefore lists the tasks of which only logs are left and that ended before t.
func (s taskStore) endedBefore(t time.Time) ([]string, error) {
	entries, err := os.ReadDir(s.ended())
	if gone(err) != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.ModTime().Before(t) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// forgetLogs takes the mark away once the logs are gone.
func (s taskStore) forgetLogs(id string) error { return gone(os.Remove(filepath.Join(s.ended(), id))) }

// load reads every kept task. A half-written file is one that was never renamed; it is removed.
func (s taskStore) load() (map[string]kept, error) {
	out := map[string]kept{}
	entries, err := os.ReadDir(s.tasks())
	if gone(err) != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(s.tasks(), e.Name())
		if e.Name()[0] == '.' {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		k, whole, err := readKept(b)
		if errors.Is(err, errUnwritten) {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil || k.assignment.GetTaskId() != e.Name() || k.status == nil {
			return nil, fmt.Errorf("%s is damaged (%v): move it away; its task is then removed from this host", path, err)
		}
		if whole < len(b) { // nothing can be appended to that
			if err := s.save(k.assignment, k.status); err != nil {
				return nil, err
			}
		}
		out[e.Name()] = k
	}
	return out, nil
}

func (s taskStore) shipmentPath(p *shipment) string {
	return filepath.Join(s.dir, "ship", p.task+"."+p.container)
}

// keepShipment remembers that the container's output is to be shipped.
func (s taskStore) keepShipment(p *shipment) error {
	b, err := proto.Marshal(p.log)
	if err != nil {
		return err
	}
	return s.replace(s.shipmentPath(p), b)
}

func (s taskStore) forgetShipment(p *shipment) error { return gone(os.Remove(s.shipmentPath(p))) }

// shipments are those that were kept; what cannot be read is in the error.
func (s taskStore) shipments() ([]*shipment, error) {
	dir := filepath.Join(s.dir, "ship")
	entries, err := os.ReadDir(dir)
	if gone(err) != nil {
		return nil, err
	}
	var list []*shipment
	var errs []error
	for _, e := range entries {
		task, container, ok := strings.Cut(e.Name(), ".")
		if !ok || task == "" {
			continue // being written, or never renamed
		}
		p, err := readShipment(filepath.Join(dir, e.Name()), task, container)
		switch {
		case err == nil:
			list = append(list, p)
		case gone(err) != nil: // one that ended meanwhile is none
			errs = append(errs, err)
		}
	}
	return list, errors.Join(errs...)
}

func readShipment(path, task, container string) (*shipment, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var log agentapi.LogConfiguration
	if err := proto.Unmarshal(b, &log); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): move it away; what its container wrote is then shipped no further", path, err)
	}
	p, err := newShipment(task, container, &log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// roleKey is what tasks' ids for their credentials follow from: DIR/role-key, made at the first start, and anew when the machine's crash
// has left half of it.
func (s taskStore) roleKey() ([]byte, error) {
	path := filepath.Join(s.dir, "role-key")
	key, err := os.ReadFile(path)
	switch {
	case gone(err) != nil:
		return nil, err
	case len(key) == roleKeySize:
		return key, nil
	}
	key = newRoleKey()
	return key, s.replace(path, key)
}

// positionSize is that of the file, filled up with spaces.
const positionSize = 256

func (s taskStore) positionPath() string { return filepath.Join(s.dir, "position.json") }

func (s taskStore) loadPosition() (position, error) {
	var p position
	b, err := os.ReadFile(s.positionPath())
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("%s: %w", s.positionPath(), err)
	}
	return p, nil
}

func (s taskStore) savePosition(p position) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	// One write within a page, over what was there: it is done or not, whenever this process ends.
	if b = append(b, bytes.Repeat([]byte(" "), max(0, positionSize-len(b)))...); len(b) == positionSize {
		if f, err := os.OpenFile(s.positionPath(), os.O_WRONLY, 0); err == nil {
			info, err := f.Stat()
			if err == nil && info.Size() == positionSize {
				_, err = f.WriteAt(b, 0)
				return errors.Join(err, f.Close())
			}
			f.Close()
		}
	}
	return s.replace(s.positionPath(), b)
}
