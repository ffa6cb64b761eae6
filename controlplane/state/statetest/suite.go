package statetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Opener opens an engine on dir; the same dir again after Close is a restart.
type Opener func(dir string) (state.Engine, error)

// RunEngine is what every engine must pass.
func RunEngine(t *testing.T, open Opener) {
	for name, test := range map[string]func(*testing.T, *state.Store){
		"WriteSkew":          testWriteSkew,
		"PhantomInsert":      testPhantomInsert,
		"PhantomDelete":      testPhantomDelete,
		"PhantomInIndex":     testPhantomInIndex,
		"RangeReadInPart":    testRangeReadInPart,
		"TwoCreates":         testTwoCreates,
		"Counter":            testCounter,
		"OnlyReading":        testOnlyReading,
		"FailedFunction":     testFailedFunction,
		"Limits":             testLimits,
		"WatchOrder":         testWatchOrder,
		"CancelledContext":   testCancelledContext,
		"Linearizable":       testLinearizable,
		"LeaderRuns":         testLeaderRuns,
		"RandomAgainstModel": RunRandom,
	} {
		t.Run(name, func(t *testing.T) { test(t, Open(t, open, t.TempDir())) })
	}
	t.Run("Close", func(t *testing.T) { testClose(t, open) })
}

// Open makes a store of the tables of tests on an engine, which is closed when t ends.
func Open(t testing.TB, open Opener, dir string) *state.Store {
	t.Helper()
	engine, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := state.New(engine, Schema, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Put puts records in one transaction.
func Put(t testing.TB, s *state.Store, records ...*Record) state.Revision {
	t.Helper()
	return update(t, s, func(tx *state.Tx) {
		for _, r := range records {
			Records.Put(tx, r)
		}
	})
}

func update(t testing.TB, s *state.Store, fn func(tx *state.Tx)) state.Revision {
	t.Helper()
	r, err := s.Update(t.Context(), func(tx *state.Tx) error { fn(tx); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// IDs are the ids of records, in the order in which they come.
func IDs(records func(yield func(*Record) bool)) []string {
	var ids []string
	for r := range records {
		ids = append(ids, r.GetId())
	}
	return ids
}

// interleave runs fn in a transaction; its first run is interrupted by other, committed, after fn has read. It returns
// how often fn ran.
func interleave(t *testing.T, s *state.Store, fn func(tx *state.Tx), other func(tx *state.Tx)) int {
	t.Helper()
	runs := 0
	update(t, s, func(tx *state.Tx) {
		runs++
		fn(tx)
		if runs == 1 {
			update(t, s, other)
		}
	})
	return runs
}

// Two transactions each read what the other writes. One must see the other.
func testWriteSkew(t *testing.T, s *state.Store) {
	Put(t, s, &Record{Id: "a", Number: 1}, &Record{Id: "b", Number: 1})
	// Each may switch its record off only while the other is on.
	off := func(mine, its string) func(tx *state.Tx) {
		return func(tx *state.Tx) {
			if r, _ := Records.Get(tx, RecordKey(its)); r.GetNumber() == 1 {
				Records.Put(tx, &Record{Id: mine})
			}
		}
	}
	if runs := interleave(t, s, off("a", "b"), off("b", "a")); runs != 2 {
		t.Errorf("ran %d times, want 2", runs)
	}
	a, _ := Records.Get(s.View(), RecordKey("a"))
	b, _ := Records.Get(s.View(), RecordKey("b"))
	if a.GetNumber()+b.GetNumber() != 1 {
		t.Errorf("a is %d, b is %d", a.GetNumber(), b.GetNumber())
	}
}

func countInto(id string, scan func(tx *state.Tx) int) func(tx *state.Tx) {
	return func(tx *state.Tx) { Claims.Put(tx, &Record{Id: id, Number: int64(scan(tx))}) }
}

func wantCount(t *testing.T, s *state.Store, id string, want int64) {
	t.Helper()
	if r, ok := Claims.Get(s.View(), RecordKey(id)); !ok || r.GetNumber() != want {
		t.Errorf("%s is %d, want %d", id, r.GetNumber(), want)
	}
}

func countUnder(id string) func(tx *state.Tx) int {
	return func(tx *state.Tx) int { return len(IDs(Records.Scan(tx, RecordKey(id)))) }
}

func testPhantomInsert(t *testing.T, s *state.Store) {
	Put(t, s, &Record{Id: "p/1"})
	if runs := interleave(t, s, countInto("n", countUnder("p")), func(tx *state.Tx) { Records.Put(tx, &Record{Id: "p/2"}) }); runs != 2 {
		t.Errorf("ran %d times, want 2", runs)
	}
	wantCount(t, s, "n", 2)
	// Under another prefix there is no phantom.
	if runs := interleave(t, s, countInto("n", countUnder("p")), func(tx *state.Tx) { Records.Put(tx, &Record{Id: "q/1"}) }); runs != 1 {
		t.Errorf("ran %d times, want 1", runs)
	}
}

func testPhantomDelete(t *testing.T, s *state.Store) {
	Put(t, s, &Record{Id: "p/1"}, &Record{Id: "p/2"}, &Record{Id: "q/1"})
	if runs := interleave(t, s, countInto("n", countUnder("p")), func(tx *state.Tx) { Records.Delete(tx, RecordKey("p/1")) }); runs != 2 {
		t.Errorf("ran %d times, want 2", runs)
	}
	wantCount(t, s, "n", 1)
	if runs := interleave(t, s, countInto("n", countUnder("p")), func(tx *state.Tx) { Records.Delete(tx, RecordKey("q/1")) }); runs != 1 {
		t.Errorf("ran %d times, want 1", runs)
	}
}

func testPhantomInIndex(t *testing.T, s *state.Store) {
	count := func(tx *state.Tx) int { return len(IDs(RecordsByGroup.Scan(tx, state.K("x")))) }
	Put(t, s, &Record{Id: "1", Groups: []string{"x"}}, &Record{Id: "2", Groups: []string{"y"}})
	for _, c := range []struct {
		name  string
		other func(tx *state.Tx)
		runs  int
		want  int64
	}{
		{"enters", func(tx *state.Tx) { Records.Put(tx, &Record{Id: "2", Groups: []string{"x"}}) }, 2, 2},
		{"stays, changed", func(tx *state.Tx) { Records.Put(tx, &Record{Id: "2", Groups: []string{"x"}, Number: 1}) }, 2, 2},
		{"leaves", func(tx *state.Tx) { Records.Put(tx, &Record{Id: "2", Groups: []string{"y"}}) }, 2, 1},
		{"elsewhere", func(tx *state.Tx) { Records.Put(tx, &Record{Id: "2", Groups: []string{"y", "xx"}}) }, 1, 1},
		{"created", func(tx *state.Tx) { Records.Put(tx, &Record{Id: "3", Groups: []string{"z", "x"}}) }, 2, 2},
		{"deleted", func(tx *state.Tx) { Records.Delete(tx, RecordKey("1")) }, 2, 1},
	} {
		if runs := interleave(t, s, countInto("n", count), c.other); runs != c.runs {
			t.Errorf("%s: ran %d times, want %d", c.name, runs, c.runs)
		}
		wantCount(t, s, "n", c.want)
	}
}

// A scan that was left early depends only on what it has seen.
func testRangeReadInPart(t *testing.T, s *state.Store) {
	Put(t, s, &Record{Id: "p/2"}, &Record{Id: "p/4"}, &Record{Id: "p/6"})
	first := func(tx *state.Tx) int {
		for range Records.ScanFrom(tx, RecordKey("p"), RecordKey("p/2")) {
			return 1
		}
		return 0
	}
	for id, want := range map[string]int{"p/1": 1, "p/3": 2, "p/5": 1, "p/7": 1} {
		if runs := interleave(t, s, countInto("n", first), func(tx *state.Tx) { Records.Put(tx, &Record{Id: id}) }); runs != want {
			t.Errorf("insert of %s: ran %d times, want %d", id, runs, want)
		}
		update(t, s, func(tx *state.Tx) { Records.Delete(tx, RecordKey(id)) })
	}
}

var errExists = errors.New("exists")

// Of many that create one name exactly one succeeds.
func testTwoCreates(t *testing.T, s *state.Store) {
	var created, refused atomic.Int32
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			_, err := s.Update(t.Context(), func(tx *state.Tx) error {
				if _, ok := Records.Get(tx, RecordKey("name")); ok {
					return errExists
				}
				Records.Put(tx, &Record{Id: "name", Number: int64(i)})
				return nil
			})
			switch err {
			case nil:
				created.Add(1)
			case errExists:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if created.Load() != 1 || refused.Load() != 15 {
		t.Errorf("%d created, %d refused", created.Load(), refused.Load())
	}
}

// Many add to one record: nothing is lost, and each gets on.
func testCounter(t *testing.T, s *state.Store) {
	const clients, each = 8, 25
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for range each {
				if _, err := s.Update(t.Context(), func(tx *state.Tx) error {
					r, _ := Records.Get(tx, RecordKey("counter"))
					Records.Put(tx, &Record{Id: "counter", Number: r.GetNumber() + 1})
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	r, revision, _ := Records.GetRevision(s.View(), RecordKey("counter"))
	if r.GetNumber() != clients*each || revision != clients*each {
		t.Errorf("counter is %d at revision %d, want %d", r.GetNumber(), revision, clients*each)
	}
}

func testOnlyReading(t *testing.T, s *state.Store) {
	before := Put(t, s, &Record{Id: "a"})
	for name, fn := range map[string]func(tx *state.Tx){
		"read":               func(tx *state.Tx) { Records.Get(tx, RecordKey("a")) },
		"delete what is not": func(tx *state.Tx) { Records.Delete(tx, RecordKey("b")) },
		"create and delete":  func(tx *state.Tx) { Records.Put(tx, &Record{Id: "b"}); Records.Delete(tx, RecordKey("b")) },
		"nothing":            func(*state.Tx) {},
	} {
		if after := update(t, s, fn); after != before || s.Revision() != before {
			t.Errorf("%s: committed revision %d after %d", name, after, before)
		}
	}
}

func testFailedFunction(t *testing.T, s *state.Store) {
	before := Put(t, s, &Record{Id: "a"})
	_, err := s.Update(t.Context(), func(tx *state.Tx) error {
		Records.Put(tx, &Record{Id: "b"})
		Records.Delete(tx, RecordKey("a"))
		return errExists
	})
	if err != errExists {
		t.Errorf("got %v", err)
	}
	if got := IDs(Records.Scan(s.View(), state.K())); s.Revision() != before || !cmp.Equal(got, []string{"a"}) {
		t.Errorf("at revision %d: %q", s.Revision(), got)
	}
}

func testLimits(t *testing.T, s *state.Store) {
	put := func(n, size int) error {
		_, err := s.Update(t.Context(), func(tx *state.Tx) error {
			for i := range n {
				Records.Put(tx, &Record{Id: fmt.Sprint(i), Payload: make([]byte, size)})
			}
			return nil
		})
		return err
	}
	if err := put(state.MaxOps, 10<<10); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	before := s.Revision()
	var limit *state.LimitError
	if err := put(state.MaxOps+1, 0); !errors.As(err, &limit) || limit.What != "operations" || limit.Got != state.MaxOps+1 {
		t.Errorf("too many: %v", err)
	}
	limit = nil
	if err := put(1, state.MaxBytes); !errors.As(err, &limit) || limit.What != "bytes" || limit.Max != state.MaxBytes {
		t.Errorf("too large: %v", err)
	}
	if _, err := s.Update(t.Context(), func(tx *state.Tx) error {
		Records.Put(tx, &Record{Id: "good"})
		Records.Put(tx, &Record{Id: "\xff"})
		return nil
	}); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("not UTF-8: %v", err)
	}
	if s.Revision() != before {
		t.Error("something was committed")
	}
}

// Watchers see every change once, in order, from wherever they begin, and a view that fits.
func testWatchOrder(t *testing.T, s *state.Store) {
	const writers, each = 4, 50
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				if _, err := s.Update(ctx, func(tx *state.Tx) error {
					id := fmt.Sprintf("%d/%d", w, i%5)
					if i%7 == 6 {
						Records.Delete(tx, RecordKey(id))
						Claims.Put(tx, &Record{Id: id, Number: int64(i)})
						return nil
					}
					Records.Put(tx, &Record{Id: id, Number: int64(i)})
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		group.Go(func() {
			w := s.Watch(ctx, 0, Records)
			replica, last := map[string]int64{}, state.Revision(0)
			for last < writers*each {
				b, err := w.Next(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range b.Events {
					if e.Table != Records || e.Revision < last || e.Revision > b.Revision {
						t.Errorf("event of %s at %d after %d in batch to %d", e.Table.Name(), e.Revision, last, b.Revision)
					}
					last = e.Revision
					id := strings.Join(e.Key.Parts(), "/")
					if _, ok := replica[id]; ok != (e.Old != nil) {
						t.Errorf("%s at %d: old is %v, known %v", id, e.Revision, e.Old, ok)
					}
					if e.New == nil {
						delete(replica, id)
					} else {
						replica[id] = e.New.(*Record).GetNumber()
					}
				}
				if diff := cmp.Diff(contents(b.View), replica); b.View.Revision() != b.Revision || diff != "" {
					t.Errorf("view of batch to %d: %s", b.Revision, diff)
				}
				if b.Revision == writers*each {
					return // the last changes may have been of the other table
				}
			}
		})
	}
	group.Wait()
}

func contents(r state.Reader) map[string]int64 {
	m := map[string]int64{}
	for rec := range Records.Scan(r, state.K()) {
		m[rec.GetId()] = rec.GetNumber()
	}
	return m
}

func testCancelledContext(t *testing.T, s *state.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	w := s.Watch(ctx, s.Revision())
	cancel()
	if _, err := s.Update(ctx, func(tx *state.Tx) error { Records.Put(tx, &Record{Id: "a"}); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("update: %v", err)
	}
	if _, err := s.Linearizable(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("linearizable: %v", err)
	}
	if _, err := w.Next(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("watch: %v", err)
	}
	if _, ok := Records.Get(s.View(), RecordKey("a")); ok {
		t.Error("a cancelled update was committed")
	}
}

func testLinearizable(t *testing.T, s *state.Store) {
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := range 20 {
				id := fmt.Sprintf("%d/%d", w, i)
				r, err := s.Update(t.Context(), func(tx *state.Tx) error { Records.Put(tx, &Record{Id: id}); return nil })
				if err != nil {
					t.Error(err)
					return
				}
				v, err := s.Linearizable(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if _, ok := Records.Get(v, RecordKey(id)); !ok || v.Revision() < r {
					t.Errorf("%s of revision %d is not in the view of %d", id, r, v.Revision())
				}
			}
		})
	}
	group.Wait()
}

func testLeaderRuns(t *testing.T, s *state.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.RunLeader(ctx, func(ctx context.Context) error {
			close(started)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-started
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("after its context ended: %v", err)
	}
	if err := s.RunLeader(t.Context(), func(context.Context) error { return errExists }); err != errExists {
		t.Errorf("a function that fails: %v", err)
	}
}

// What a closed engine answers, and that whoever waits for it is woken.
func testClose(t *testing.T, open Opener) {
	engine, err := open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := state.New(engine, Schema, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	Put(t, s, &Record{Id: "a"})
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.RunLeader(t.Context(), func(ctx context.Context) error {
			close(started)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-started
	for range 2 {
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("leader: %v", err)
	}
	if _, err := s.Update(t.Context(), func(tx *state.Tx) error { return nil }); !errors.Is(err, state.ErrClosed) {
		t.Errorf("update: %v", err)
	}
	if _, err := s.Linearizable(t.Context()); !errors.Is(err, state.ErrClosed) {
		t.Errorf("linearizable: %v", err)
	}
	if got := slices.Collect(maps.Keys(contents(s.View()))); !cmp.Equal(got, []string{"a"}) {
		t.Errorf("what was there is no longer readable: %q", got)
	}
}
