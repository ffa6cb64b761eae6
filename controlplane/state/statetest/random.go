package statetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Seed is the seed of a random test: NEARGATE_SEED if that is set, else a new one. It is logged.
func Seed(t testing.TB) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("NEARGATE_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("NEARGATE_SEED: %v", err)
		}
	}
	t.Logf("NEARGATE_SEED=%d", seed)
	return seed
}

// model is the plainest store there is.
type model map[string]*Record

func (m model) keys() iter.Seq[state.Key] {
	return func(yield func(state.Key) bool) {
		for id := range m {
			if !yield(RecordKey(id)) {
				return
			}
		}
	}
}

func (m model) clone() model { return maps.Clone(m) }

func (m model) group(g string) []string {
	var keys []state.Key
	for id, r := range m {
		if slices.Contains(r.GetGroups(), g) {
			keys = append(keys, RecordKey(id))
		}
	}
	return named(keys)
}

func named(keys []state.Key) []string {
	slices.Sort(keys)
	var ids []string
	for _, k := range keys {
		ids = append(ids, strings.Join(k.Parts(), "/"))
	}
	return ids
}

// Random names include one that is a prefix of another, and bytes that keys escape.
var parts = []string{"a", "aa", "b", "", "\x00", "\x01", "a\x00b", "é", "\U0010ffff"}

func randomID(r *rand.Rand) string {
	id := parts[r.IntN(len(parts))]
	for range r.IntN(3) {
		id += "/" + parts[r.IntN(len(parts))]
	}
	return id
}

func randomRecord(r *rand.Rand) *Record {
	rec := &Record{Id: randomID(r), Number: r.Int64(), Payload: make([]byte, r.IntN(50))}
	for range r.IntN(4) {
		rec.Groups = append(rec.Groups, parts[r.IntN(len(parts))])
	}
	return rec
}

// RunRandom compares a store with the model over random transactions, read from within and without. The server may lose the leadership, if it
// gets it back: what was surely not committed is tried again, and of what may have been it is looked up.
func RunRandom(t *testing.T, s *state.Store) {
	r := rand.New(rand.NewPCG(Seed(t), 0))
	m := model{}
	type past struct {
		view  *state.View
		model model
	}
	var kept []past
	for step := range 300 {
		fail := r.IntN(10) == 0
		var next model
		err := settled(t, s, func() (model, model) { return m, next }, func(tx *state.Tx) error {
			next = m.clone() // anew if this runs again
			for range r.IntN(8) {
				if r.IntN(3) == 0 {
					id := randomID(r)
					Records.Delete(tx, RecordKey(id))
					delete(next, id)
				} else {
					rec := randomRecord(r)
					Records.Put(tx, rec)
					next[rec.GetId()] = rec
				}
				compare(t, r, tx, next)
			}
			if fail {
				return errExists
			}
			return nil
		})
		if (err != nil) != fail || fail && err != errExists {
			t.Fatalf("step %d: %v", step, err)
		}
		if err == nil {
			m = next
		}
		compare(t, r, s.View(), m)
		if r.IntN(20) == 0 {
			kept = append(kept, past{s.View(), m.clone()})
		}
	}
	for _, p := range kept {
		compare(t, r, p.view, p.model)
	}
}

// settled runs fn in a transaction until it is known what became of it. An error is fn's own, or one that nothing else will come of. Of an
// outcome that is not known a read of a later term tells: it sees either of the models, after which nothing of the old term can come.
func settled(t *testing.T, s *state.Store, models func() (before, after model), fn func(tx *state.Tx) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		term := s.Leadership().Term
		_, err := s.Update(ctx, fn)
		if err == nil || ctx.Err() != nil || !errors.Is(err, state.ErrUncertain) && !state.Retryable(err) {
			return err
		}
		for l := s.Leadership(); l.Term == 0 || l.Term == term && errors.Is(err, state.ErrUncertain); l = s.Leadership() {
			select {
			case <-l.Changed:
			case <-ctx.Done():
				return err
			}
		}
		if !errors.Is(err, state.ErrUncertain) {
			continue
		}
		v, rerr := s.Linearizable(ctx)
		for ; rerr != nil && ctx.Err() == nil; v, rerr = s.Linearizable(ctx) { // it was lost again
		}
		if rerr != nil {
			return rerr
		}
		before, after := models()
		switch {
		case after.is(v):
			return nil
		case !before.is(v):
			t.Fatalf("after %v the store has neither what was before the transaction nor what it puts", err)
		}
	}
}

// is says whether that is all there is.
func (m model) is(v *state.View) bool {
	n := 0
	for rec := range Records.Scan(v, state.K()) {
		if want, ok := m[rec.GetId()]; !ok || !proto.Equal(rec, want) {
			return false
		}
		n++
	}
	return n == len(m)
}

func compare(t *testing.T, r *rand.Rand, from state.Reader, m model) {
	t.Helper()
	prefix, after, g := randomID(r), randomID(r), parts[r.IntN(len(parts))]
	check := func(what string, got, want []string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s: %s", what, diff)
		}
	}
	check("all", IDs(Records.Scan(from, state.K())), named(slices.Collect(m.keys())))
	check(fmt.Sprintf("under %q", prefix), IDs(Records.Scan(from, RecordKey(prefix))), m.prefix(prefix))
	check(fmt.Sprintf("after %q", after), IDs(Records.ScanFrom(from, state.K(), RecordKey(after))), m.after(after))
	check(fmt.Sprintf("in group %q", g), unique(IDs(RecordsByGroup.Scan(from, state.K(g)))), m.group(g))
	got, ok := Records.Get(from, RecordKey(prefix))
	if want, there := m[prefix]; ok != there || got.GetNumber() != want.GetNumber() {
		t.Fatalf("get %q: %v, want %v", prefix, got, want)
	}
}

func (m model) prefix(id string) []string {
	var keys []state.Key
	for other := range m {
		if strings.HasPrefix(string(RecordKey(other)), string(RecordKey(id))) {
			keys = append(keys, RecordKey(other))
		}
	}
	return named(keys)
}

func (m model) after(id string) []string {
	var keys []state.Key
	for other := range m {
		if RecordKey(other) > RecordKey(id) {
			keys = append(keys, RecordKey(other))
		}
	}
	return named(keys)
}

// unique drops repetitions next to one another: a record may name a group twice, and is in it once.
func unique(ids []string) []string { return slices.Compact(ids) }
