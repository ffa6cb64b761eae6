package state_test

import (
	"cmp"
	"errors"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

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
		if got := ids(statetest.RecordsByGroup.Scan(tx, state.K("x"))); !gocmp.Equal(got, []string{"a/1", "a/2"}) {
			t.Errorf("own writes in the index: %q", got)
		}
		return nil
	})
	if err != nil || rev != 1 {
		t.Fatalf("revision %d, %v", rev, err)
	}
	v := s.View()
	if got := ids(statetest.Records.Scan(v, state.K("a"))); !gocmp.Equal(got, []string{"a/1", "a/2"}) {
		t.Errorf("scan: %q", got)
	}
	if got := ids(statetest.Records.ScanFrom(v, state.K(), statetest.RecordKey("a/1"))); !gocmp.Equal(got, []string{"a/2", "b/1"}) {
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
	if got := ids(statetest.RecordsByGroup.Scan(s.View(), state.K())); !gocmp.Equal(got, []string{"b/1", "a/1"}) {
		t.Errorf("index after changes: %q", got)
	}
	if got := ids(statetest.RecordsByGroup.Scan(v, state.K())); !gocmp.Equal(got, []string{"a/1", "a/2", "a/1", "b/1"}) {
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

func TestScanKeysAndVersion(t *testing.T) {
	s := statetest.New(t, statetest.Schema...)
	statetest.Put(t, s, &statetest.Record{Id: "a/1", Groups: []string{"x"}}, &statetest.Record{Id: "b/1", Groups: []string{"x", "y"}}, &statetest.Record{Id: "c/1"})
	before := s.View()
	var keys []state.Key
	for k, r := range statetest.RecordsByGroup.ScanKeys(before, state.K("x")) {
		if keys = append(keys, k); k != statetest.Records.Key(r) {
			t.Errorf("%q has key %q", r.GetId(), k)
		}
	}
	if !gocmp.Equal(keys, []state.Key{statetest.RecordKey("a/1"), statetest.RecordKey("b/1")}) {
		t.Errorf("got %q", keys)
	}
	// It guards as Scan does.
	reads := 0
	if _, err := s.Update(t.Context(), func(tx *state.Tx) error {
		n := 0
		for range statetest.RecordsByGroup.ScanKeys(tx, state.K("x")) {
			n++
		}
		if reads++; reads == 1 {
			statetest.Put(t, s, &statetest.Record{Id: "d/1", Groups: []string{"x"}})
		}
		statetest.Records.Put(tx, &statetest.Record{Id: "sum", Number: int64(n)})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if sum, _ := statetest.Records.Get(s.View(), statetest.RecordKey("sum")); sum.GetNumber() != 3 || reads != 2 {
		t.Errorf("counted %d in %d runs", sum.GetNumber(), reads)
	}

	was := statetest.Records.Version(before)
	if again := statetest.Records.Version(before); again != was {
		t.Error("a view has two versions")
	}
	if was == statetest.Records.Version(s.View()) {
		t.Error("a change is no new version")
	}
	now := s.View()
	if _, err := s.Update(t.Context(), func(tx *state.Tx) error {
		statetest.Claims.Put(tx, &statetest.Record{Id: "a"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if statetest.Records.Version(now) != statetest.Records.Version(s.View()) {
		t.Error("a change of another table is a new version")
	}
}

func TestKeysSortAsTheirParts(t *testing.T) {
	alphabet := []string{"", "a", "b", "ab", "\x00", "\x01", "\x01\x02", "a\x00", "a\x01b", "\x02", "é", "\xff"}
	lists := [][]string{nil}
	for _, a := range alphabet {
		lists = append(lists, []string{a})
		for _, b := range alphabet {
			lists = append(lists, []string{a, b})
		}
	}
	for _, a := range lists {
		if got := state.K(a...).Parts(); !slices.Equal(got, a) {
			t.Errorf("%q became %q", a, got)
		}
		for _, b := range lists {
			if got, want := cmp.Compare(state.K(a...), state.K(b...)), slices.Compare(a, b); got != want {
				t.Errorf("%q and %q compare as %d, not %d", a, b, got, want)
			}
		}
	}
}
