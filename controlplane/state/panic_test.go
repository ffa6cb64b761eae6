package state

import (
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func key(v *wrapperspb.StringValue) Key { return K(v.GetValue()) }

func putOp(table, name string) *Transaction {
	value, _ := proto.Marshal(wrapperspb.String(name))
	return &Transaction{Ops: []Op{{Table: table, Key: K(name), Value: value, Touched: []IndexEntry{{Space: table + "#i", Key: K(name)}}}}}
}

// A transaction that panics on apply is dropped whole; its neighbours in the entry are applied, and guards after it hold.
func TestPanicOnApply(t *testing.T) {
	table := NewTable("t", key)
	m := newMachine(Schema{table}, Options{WatchHistory: 100, Logger: slog.New(slog.DiscardHandler)})
	m.beforePut = func(op *Op) {
		if op.Key == K("bad") {
			panic("bad record")
		}
	}
	both := putOp("t", "half")
	both.Ops = append(both.Ops, putOp("t", "bad").Ops...)
	guarded := putOp("t", "after")
	guarded.Guards = []Guard{{Kind: GuardRange, Space: "t", Key: K("half"), End: K("half").end()}, {Kind: GuardAbsent, Space: "t", Key: K("half")}}
	out, err := m.Apply(EncodeEntry([]*Transaction{putOp("t", "before"), both, guarded, putOp("unknown", "bad")}))
	if err != nil || len(out) != 4 {
		t.Fatalf("%v, %v", out, err)
	}
	if out[0].Revision != 1 || out[1].Refused != "bad record" || out[2].Revision != 2 || out[3].Refused != "bad record" {
		t.Errorf("outcomes: %+v", out)
	}
	var got []string
	for v := range table.Scan(m.view.Load(), K()) {
		got = append(got, v.GetValue())
	}
	if len(got) != 2 || got[0] != "after" || got[1] != "before" {
		t.Errorf("records: %q", got)
	}
	if n := m.feed.count; n != 2 {
		t.Errorf("%d events", n)
	}
	// The history holds what the two touched, once.
	if len(m.history.log) != 2 || m.history.bytes != 2*touchSize("t", "")+2*touchSize("t#i", "")+2*len(K("before"))+2*len(K("after")) {
		t.Errorf("history: %+v", m.history)
	}
}

// An index function that panics, or a value that does not decode, is this server's trouble: the outcome stands.
func TestPanicInIndex(t *testing.T) {
	table := NewTable("t", key)
	index := NewIndex(table, "i", func(v *wrapperspb.StringValue) []Key {
		if v.GetValue() == "bad" {
			panic("cannot index")
		}
		return []Key{K("x")}
	})
	m := newMachine(Schema{table}, Options{WatchHistory: 100, Logger: slog.New(slog.DiscardHandler)})
	undecodable := putOp("t", "broken")
	undecodable.Ops[0].Value = []byte{0xff}
	out, err := m.Apply(EncodeEntry([]*Transaction{putOp("t", "good"), putOp("t", "bad"), undecodable, putOp("t", "bad")}))
	if err != nil || out[0].Revision != 1 || out[1].Revision != 2 || out[2].Revision != 3 || out[3].Revision != 4 {
		t.Fatalf("%+v, %v", out, err)
	}
	v := m.view.Load()
	var got []string
	for v := range index.Scan(v, K()) {
		got = append(got, v.GetValue())
	}
	if len(got) != 1 || got[0] != "good" {
		t.Errorf("index: %q", got)
	}
	if _, ok := table.Get(v, K("bad")); !ok {
		t.Error("the record itself is gone")
	}
	defer func() {
		if recover() == nil {
			t.Error("a record that does not decode was handed out")
		}
	}()
	table.Get(v, K("broken"))
}
