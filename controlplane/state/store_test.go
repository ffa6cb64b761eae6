package state_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

func ids(seq func(func(*statetest.Record) bool)) []string {
	var out []string
	for r := range seq {
		out = append(out, r.GetId())
	}
	return out
}

func TestUpdateAndRead(t *testing.T) {
	s := statetest.New(t, statetest.Schema...)
	rev, err := s.Update(t.Context(), func(tx *state.Tx) error {
		statetest.Records.Put(tx, &statetest.Record{Id: "a/1", Groups: []string{"x", "y"}})
		statetest.Records.Put(tx, &statetest.Record{Id: "a/2", Groups: []string{"x"}})
		statetest.Records.Put(tx, &statetest.Record{Id: "b/1", Groups: []string{"y"}})
		if got := ids(statetest.RecordsByGroup.Scan(tx, state.K("x"))); !cmp.Equal(got, []string{"a/1", "a/2"}) {
			t.Errorf("own writes in the index: %q", got)
		}
		return nil
	})
	if err != nil || rev != 1 {
		t.Fatalf("revision %d, %v", rev, err)
	}
	v := s.View()
	if got := ids(statetest.Records.Scan(v, state.K("a"))); !cmp.Equal(got, []string{"a/1", "a/2"}) {
		t.Errorf("scan: %q", got)
	}
	if got := ids(statetest.Records.ScanFrom(v, state.K(), statetest.RecordKey("a/1"))); !cmp.Equal(got, []string{"a/2", "b/1"}) {
		t.Errorf("scan from: %q", got)
	}
	if _, r, ok := statetest.Records.GetRevision(v, statetest.RecordKey("b/1")); !ok || r != 1 {
		t.Errorf("revision of b/1: %d, %v", r, ok)
	}

	refused := errors.New("no")
	if _, err := s.Update(t.Context(), func(tx *state.Tx) error {
		statetest.Records.Delete(tx, statetest.RecordKey("a/1"))
		return refused
	}); err != refused {
		t.Errorf("error of the function: %v", err)
	}
	if rev, err := s.Update(t.Context(), func(tx *state.Tx) error {
		r, ok := statetest.Records.Get(tx, statetest.RecordKey("a/1"))
		if !ok {
			t.Error("a function that failed has written")
		}
		statetest.Records.Put(tx, &statetest.Record{Id: r.GetId(), Groups: []string{"z"}})
		statetest.Records.Delete(tx, statetest.RecordKey("a/2"))
		return nil
	}); err != nil || rev != 2 {
		t.Fatalf("revision %d, %v", rev, err)
	}
	if got := ids(statetest.RecordsByGroup.Scan(s.View(), state.K())); !cmp.Equal(got, []string{"b/1", "a/1"}) {
		t.Errorf("index after changes: %q", got)
	}
	if got := ids(statetest.RecordsByGroup.Scan(v, state.K())); !cmp.Equal(got, []string{"a/1", "a/2", "a/1", "b/1"}) {
		t.Errorf("the old view changed: %q", got)
	}

	w := s.Watch(t.Context(), 0, statetest.Records)
	b, err := w.Next(t.Context())
	if err != nil || b.Revision != 2 || len(b.Events) != 5 {
		t.Fatalf("watch: %d events to %d, %v", len(b.Events), b.Revision, err)
	}
	if last := b.Events[4]; last.Table != statetest.Records || last.Old == nil || last.New != nil || last.Revision != 2 {
		t.Errorf("last event: %+v", last)
	}
}
