package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// refuses a state that has a record called "newer".
func refuses(v *state.View) error {
	if rec, ok := statetest.Records.Get(v, statetest.RecordKey("newer")); ok {
		return fmt.Errorf("%w: number %d", state.ErrUnknownFormat, rec.Number)
	}
	return nil
}

func putEntry(id string, value []byte) []byte {
	if value == nil {
		value, _ = proto.Marshal(&statetest.Record{Id: id, Number: 7})
	}
	return state.EncodeEntry([]*state.Transaction{{Ops: []state.Op{{Table: statetest.Records.Name(), Key: statetest.RecordKey(id), Value: value}}}})
}

// A state that is not admitted is never published, and leaves no trace: also if what decides does not decode.
func TestStateIsNotAdmitted(t *testing.T) {
	open := func() (*state.Machine, *state.Store) {
		c := &catcher{Engine: statetest.NewEngine()}
		s, err := state.New(c, statetest.Schema, state.Options{Admit: refuses})
		if err != nil {
			t.Fatal(err)
		}
		return c.machine, s
	}
	m, s := open()
	twin, _ := open()
	for _, machine := range []*state.Machine{m, twin} {
		if _, err := machine.Apply(putEntry("a", nil)); err != nil {
			t.Fatal(err)
		}
	}
	for name, entry := range map[string][]byte{"newer": putEntry("newer", nil), "damaged": putEntry("newer", []byte{0xff})} {
		if _, err := m.Apply(entry); !errors.Is(err, state.ErrUnknownFormat) || m.Revision() != 1 {
			t.Errorf("%s: %v at revision %d", name, err, m.Revision())
		}
		if n := len(statetest.IDs(statetest.Records.Scan(s.View(), state.K()))); n != 1 {
			t.Errorf("%s: there are %d records", name, n)
		}
	}
	for _, machine := range []*state.Machine{m, twin} {
		if out, err := machine.Apply(putEntry("b", nil)); err != nil || out[0].Revision != 2 {
			t.Errorf("the next entry: %v, %v", out, err)
		}
	}
	if !bytes.Equal(statetest.Bytes(t, m), statetest.Bytes(t, twin)) {
		t.Error("what was refused has left a trace")
	}

	free, _ := newMachine(t, statetest.Schema...)
	if _, err := free.Apply(putEntry("newer", nil)); err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(bytes.NewReader(statetest.Bytes(t, free))); !errors.Is(err, state.ErrUnknownFormat) || !strings.Contains(err.Error(), "number 7") || m.Revision() != 2 {
		t.Errorf("restored: %v at revision %d", err, m.Revision())
	}
	if _, err := m.Renumbered(bytes.NewReader(statetest.Bytes(t, free))); !errors.Is(err, state.ErrUnknownFormat) {
		t.Errorf("renumbered: %v", err)
	}
}

// A record that is put anew, and not changed, keeps what a later version wrote into the one that it replaces; one that was deleted before does not.
func TestReplacedRecordKeepsUnknownFields(t *testing.T) {
	m, s := newMachine(t, statetest.Schema...)
	for _, id := range []string{"kept", "deleted"} {
		value, _ := proto.Marshal(&statetest.Record{Id: id})
		if _, err := m.Apply(putEntry(id, append(value, 0xfa, 0x07, 3, 'n', 'e', 'w'))); err != nil { // field 127 of a later version
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := s.Update(t.Context(), func(tx *state.Tx) error {
			statetest.Records.Put(tx, &statetest.Record{Id: "kept", Number: 1})
			statetest.Records.Put(tx, &statetest.Record{Id: "kept", Number: 2}) // also within one transaction
			statetest.Records.Delete(tx, statetest.RecordKey("deleted"))
			statetest.Records.Put(tx, &statetest.Record{Id: "deleted", Number: 2})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string]int{"kept": 6, "deleted": 0} {
		rec, _ := statetest.Records.Get(s.View(), statetest.RecordKey(id))
		if got := len(rec.ProtoReflect().GetUnknown()); rec.Number != 2 || got != want {
			t.Errorf("%s: %v has %d bytes of a later version, want %d", id, rec, got, want)
		}
	}
}
