package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// newMachine is a machine that the test feeds itself.
func newMachine(t testing.TB, schema ...state.TableInfo) (*state.Machine, *state.Store) {
	t.Helper()
	c := &catcher{Engine: statetest.NewEngine()}
	s, err := state.New(c, schema, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c.machine, s
}

type catcher struct {
	*statetest.Engine
	machine *state.Machine
}

func (c *catcher) Start(m *state.Machine) error {
	c.machine = m
	return c.Engine.Start(m)
}

func randomKey(r *rand.Rand) state.Key {
	return state.K(fmt.Sprint(r.IntN(4)), fmt.Sprint(r.IntN(40)))
}

func randomEntry(r *rand.Rand, now state.Revision) []byte {
	var txs []*state.Transaction
	for range 1 + r.IntN(4) {
		tx := &state.Transaction{}
		for range r.IntN(2) {
			g := state.Guard{Kind: state.GuardKind(1 + r.IntN(3)), Space: "statetest.record", Key: randomKey(r), Revision: now - min(now, state.Revision(r.IntN(60)))}
			if g.Kind == state.GuardRange {
				if r.IntN(2) == 0 {
					g.Space += "#group"
				}
				g.End = max(g.Key, randomKey(r))
			}
			if g.Kind == state.GuardAbsent {
				g.Revision = 0
			}
			tx.Guards = append(tx.Guards, g)
		}
		for range 1 + r.IntN(3) {
			op := state.Op{Table: "statetest.record", Key: randomKey(r), Delete: r.IntN(3) == 0}
			if r.IntN(5) == 0 {
				op.Table = "a table of a later version"
			}
			if !op.Delete {
				op.Value, _ = proto.Marshal(&statetest.Record{Id: strings.Join(op.Key.Parts(), "/"), Number: r.Int64(), Payload: make([]byte, r.IntN(200))})
			}
			if r.IntN(2) == 0 {
				op.Touched = []state.IndexEntry{{Space: "statetest.record#group", Key: randomKey(r)}}
			}
			tx.Ops = append(tx.Ops, op)
		}
		txs = append(txs, tx)
	}
	return state.EncodeEntry(txs)
}

// A machine that was restored from a snapshot, at any time and again and again, and one that knows none of the tables, come
// to the same outcomes and the same state as one that has seen everything, with the history being cut meanwhile.
func TestMachinesAgree(t *testing.T) {
	seed := statetest.Seed(t)
	r := rand.New(rand.NewPCG(seed, 0))
	first, _ := newMachine(t, statetest.Schema...)
	restored, _ := newMachine(t, statetest.Schema...)
	ignorant, _ := newMachine(t)
	conflicts, floorMoved := 0, false
	for step := range 11000 {
		entry := randomEntry(r, first.Revision())
		want, err := first.Apply(entry)
		if err != nil {
			t.Fatal(err)
		}
		for name, m := range map[string]*state.Machine{"restored": restored, "ignorant": ignorant} {
			if got, err := m.Apply(entry); err != nil || !cmp.Equal(got, want) {
				t.Fatalf("step %d: %s comes to %v, %v, want %v", step, name, got, err, want)
			}
		}
		for _, o := range want {
			if o.Conflict {
				conflicts++
			}
		}
		if r.IntN(400) == 0 {
			snapshot := statetest.Bytes(t, first)
			if err := restored.Restore(bytes.NewReader(snapshot)); err != nil {
				t.Fatal(err)
			}
		}
		floorMoved = first.Revision() > 16384+1000
	}
	if conflicts == 0 || !floorMoved {
		t.Errorf("%d conflicts, revision %d: the test does not test", conflicts, first.Revision())
	}
	want := statetest.Bytes(t, first)
	for name, m := range map[string]*state.Machine{"restored": restored, "ignorant": ignorant} {
		if !bytes.Equal(statetest.Bytes(t, m), want) {
			t.Errorf("%s ends in another state", name)
		}
	}
}

// A machine keeps no part of an entry: what becomes of its bytes afterwards changes nothing, neither records nor tables it does not know nor
// the history.
func TestNothingOfAnEntryIsKept(t *testing.T) {
	seed := statetest.Seed(t)
	r := rand.New(rand.NewPCG(seed, 0))
	first, _ := newMachine(t, statetest.Schema...)
	second, s := newMachine(t, statetest.Schema...)
	for step := range 500 {
		entry := randomEntry(r, first.Revision())
		want, err := first.Apply(bytes.Clone(entry))
		if err != nil {
			t.Fatal(err)
		}
		got, err := second.Apply(entry)
		if err != nil || !cmp.Equal(got, want) {
			t.Fatalf("step %d: %v, %v, want %v", step, got, err, want)
		}
		for i := range entry {
			entry[i] = 0xff
		}
	}
	if !bytes.Equal(statetest.Bytes(t, second), statetest.Bytes(t, first)) {
		t.Error("the state is another one")
	}
	for rec := range statetest.Records.Scan(s.View(), "") {
		if strings.Contains(rec.Id, "\xff") {
			t.Fatalf("record %q", rec.Id)
		}
	}
}

// A guard older than the history is a conflict, on a restored machine too.
func TestGuardOlderThanHistory(t *testing.T) {
	m, _ := newMachine(t, statetest.Schema...)
	put := func(table string) *state.Transaction {
		return &state.Transaction{Ops: []state.Op{{Table: table, Key: state.K("k")}}}
	}
	apply := func(m *state.Machine, tx *state.Transaction) state.Outcome {
		out, err := m.Apply(state.EncodeEntry([]*state.Transaction{tx}))
		if err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	for m.Revision() < 16384+10 {
		apply(m, put("busy"))
	}
	quiet := func(r state.Revision) *state.Transaction {
		tx := put("quiet")
		tx.Guards = []state.Guard{{Kind: state.GuardRange, Space: "quiet", Revision: r}}
		return tx
	}
	copied, _ := newMachine(t, statetest.Schema...)
	if err := copied.Restore(bytes.NewReader(statetest.Bytes(t, m))); err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*state.Machine{"first": m, "restored": copied} {
		if !m.Conflicts(quiet(9)) || m.Conflicts(quiet(10)) {
			t.Errorf("%s: conflict at revision 9: %v, at 10: %v; want true, false", name, m.Conflicts(quiet(9)), m.Conflicts(quiet(10)))
		}
	}
}

func TestUnknownFieldsAreKept(t *testing.T) {
	m, s := newMachine(t, statetest.Schema...)
	value, _ := proto.Marshal(&statetest.Record{Id: "a"})
	value = append(value, 0xfa, 0x07, 3, 'n', 'e', 'w') // field 127 of a later version
	if _, err := m.Apply(state.EncodeEntry([]*state.Transaction{{Ops: []state.Op{{Table: statetest.Records.Name(), Key: state.K("a"), Value: value}}}})); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(t.Context(), func(tx *state.Tx) error {
		rec, _ := statetest.Records.Get(tx, state.K("a"))
		next := proto.Clone(rec).(*statetest.Record)
		next.Number = 7
		statetest.Records.Put(tx, next)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(statetest.Bytes(t, m), []byte("new")) {
		t.Error("a field of a later version was lost")
	}
}

func TestBrokenSnapshots(t *testing.T) {
	m, s := newMachine(t, statetest.Schema...)
	for i := range 50 {
		statetest.Put(t, s, &statetest.Record{Id: fmt.Sprint(i), Payload: make([]byte, 5000)})
	}
	good := statetest.Bytes(t, m)
	other, os := newMachine(t, statetest.Schema...)
	statetest.Put(t, os, &statetest.Record{Id: "mine"})
	refuse := func(what string, b []byte) {
		t.Helper()
		if err := other.Restore(bytes.NewReader(b)); err == nil {
			t.Fatalf("%s was restored", what)
		}
		if _, ok := statetest.Records.Get(os.View(), state.K("mine")); !ok {
			t.Fatalf("%s: the failed restore changed something", what)
		}
	}
	r := rand.New(rand.NewPCG(statetest.Seed(t), 0))
	for range 200 {
		i := r.IntN(len(good))
		changed := bytes.Clone(good)
		changed[i] ^= 1 << r.IntN(8)
		refuse(fmt.Sprintf("one changed at %d", i), changed)
		refuse(fmt.Sprintf("one cut at %d", i), good[:i])
	}
	refuse("one with more behind it", append(bytes.Clone(good), 0))
	newer := append([]byte("neargate state 2\n"), good[17:]...)
	refuse("a newer one", newer)
	if err := other.Restore(bytes.NewReader(newer)); !errors.Is(err, state.ErrUnknownFormat) {
		t.Errorf("a newer one: %v", err)
	}
	if err := other.Restore(bytes.NewReader(good)); err != nil || other.Revision() != 50 {
		t.Errorf("the good one: %v, revision %d", err, other.Revision())
	}
}

func TestUnknownEntryFormat(t *testing.T) {
	m, _ := newMachine(t)
	entry := state.EncodeEntry([]*state.Transaction{{Ops: []state.Op{{Table: "t", Key: "k"}}}})
	entry[0]++
	if _, err := m.Apply(entry); !errors.Is(err, state.ErrUnknownFormat) || m.Revision() != 0 {
		t.Errorf("got %v at revision %d", err, m.Revision())
	}
	entry[0]--
	if _, err := m.Apply(entry[:len(entry)-1]); err == nil || errors.Is(err, state.ErrUnknownFormat) || m.Revision() != 0 {
		t.Errorf("cut: got %v at revision %d", err, m.Revision())
	}
}

func FuzzDecodeEntry(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 8 {
		f.Add(randomEntry(r, 100))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		txs, err := state.DecodeEntry(b)
		if err != nil {
			return
		}
		again, err := state.DecodeEntry(state.EncodeEntry(txs))
		if err != nil || !cmp.Equal(txs, again, cmp.AllowUnexported(state.Transaction{}), cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "size" }, cmp.Ignore())) {
			t.Fatalf("%x decodes to %v, again to %v, %v", b, txs, again, err)
		}
	})
}

func FuzzRestore(f *testing.F) {
	m, s := newMachine(f, statetest.Schema...)
	statetest.Put(f, s, &statetest.Record{Id: "a", Groups: []string{"x"}})
	f.Add(statetest.Bytes(f, m))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _ := newMachine(t, statetest.Schema...)
		if err := m.Restore(bytes.NewReader(b)); err != nil && m.Revision() != 0 {
			t.Fatal("a failed restore changed something")
		}
	})
}
