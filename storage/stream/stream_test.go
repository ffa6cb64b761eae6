package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/seed-2f228079/neargate/storage/stream"
)

func open(t testing.TB, dir string, opt stream.Options) *stream.Store {
	t.Helper()
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := stream.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// batch has one record a time; their data say the time and a number.
func batch(ingested int64, times ...int64) stream.Batch {
	b := stream.Batch{Ingested: ingested}
	for i, at := range times {
		b.Records = append(b.Records, stream.Record{Time: at, Data: fmt.Appendf(nil, "%d/%d", at, i)})
	}
	return b
}

func put(t testing.TB, s *stream.Store, name string, b stream.Batch) uint64 {
	t.Helper()
	first, _, err := s.Append(context.Background(), name, b)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// positions are those of the stream forwards; backwards they must be the same.
func positions(t testing.TB, s *stream.Store, name string) (list []uint64) {
	t.Helper()
	for r, err := range s.From(name, 0) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r.Position)
	}
	var back []uint64
	for r, err := range s.Before(name, 1<<63) {
		if err != nil {
			t.Fatal(err)
		}
		back = append(back, r.Position)
	}
	if slices.Reverse(back); !slices.Equal(list, back) {
		t.Errorf("%s forwards %d records, backwards %d", name, len(list), len(back))
	}
	return list
}

func TestAppendedIsReadAlsoAfterReopening(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, stream.Options{})
	if at := put(t, s, "aaa", batch(9, 5, 3, 4)); at != 0 {
		t.Errorf("first position %d", at)
	}
	if at := put(t, s, "aaa", batch(10, 6)); at != 3 {
		t.Errorf("second batch at %d", at)
	}
	put(t, s, "bbb", batch(11, -7))
	want := stream.Info{First: 0, Next: 4, MinTime: 3, MaxTime: 6, Ingested: 10, Bytes: 12}
	for _, how := range []string{"at once", "from the journal", "from the segments"} {
		if got, err := s.Stat("aaa"); err != nil || got != want {
			t.Errorf("%s: %+v, %v", how, got, err)
		}
		if got := positions(t, s, "aaa"); !slices.Equal(got, []uint64{0, 1, 2, 3}) {
			t.Errorf("%s: %v", how, got)
		}
		for r, err := range s.From("aaa", 2) {
			if err != nil || r.Time != 4 || r.Ingested != 9 || string(r.Data) != "4/2" {
				t.Errorf("%s: record 2 is %+v, %v", how, r, err)
			}
			break
		}
		if how == "from the journal" {
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		s = open(t, dir, stream.Options{})
	}
	var names []string
	for n, err := range s.All() {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, n)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"aaa", "bbb"}) {
		t.Errorf("streams %v", names)
	}
}

func TestMarkedBatchIsAppendedOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, stream.Options{})
	b := batch(1, 1, 2)
	b.Mark = 7
	put(t, s, "aaa", b)
	for range 2 {
		if _, added, err := s.Append(t.Context(), "aaa", b); err != nil || added {
			t.Errorf("again: added %v, %v", added, err)
		}
		s.Close()
		s = open(t, dir, stream.Options{})
	}
	// The mark outlives the records that carried it.
	if n, err := s.Drop("aaa", 100, 0); err != nil || n != 2 {
		t.Fatalf("dropped %d, %v", n, err)
	}
	s.Close()
	s = open(t, dir, stream.Options{})
	if i, err := s.Stat("aaa"); err != nil || i.Mark != 7 || i.Next != 2 || i.First != 2 || i.Bytes != 0 {
		t.Errorf("after all went: %+v, %v", i, err)
	}
	if _, added, err := s.Append(t.Context(), "aaa", b); err != nil || added {
		t.Errorf("after all went: added %v, %v", added, err)
	}
}

func TestRetentionDropsWholeSegments(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, stream.Options{SegmentBytes: 300})
	for i := range int64(20) {
		put(t, s, "aaa", batch(i, i))
	}
	was := positions(t, s, "aaa")
	if n, err := s.Drop("aaa", 10, 0); err != nil || n == 0 {
		t.Fatalf("dropped %d, %v", n, err)
	}
	now := positions(t, s, "aaa")
	if len(now) == len(was) || len(now) < 10 || now[len(now)-1] != 19 {
		t.Errorf("kept %v", now)
	}
	if n, err := s.Drop("aaa", 0, 700); err != nil || n == 0 {
		t.Errorf("dropped %d for their bytes, %v", n, err)
	}
	kept := positions(t, s, "aaa")
	if n, err := s.Drop("aaa", 0, 1); err != nil || n == 0 || len(positions(t, s, "aaa")) == 0 {
		t.Errorf("the segment that is appended to must stay: dropped %d, %v", n, err)
	}
	s.Close()
	s = open(t, dir, stream.Options{SegmentBytes: 300}) // the journal still speaks of what went
	if got := positions(t, s, "aaa"); len(got) >= len(kept) || got[len(got)-1] != 19 {
		t.Errorf("after opening %v", got)
	}
	if n, err := s.Drop("aaa", 1000, 0); err != nil || n == 0 || len(positions(t, s, "aaa")) != 0 {
		t.Errorf("all are too old: dropped %d, %v", n, err)
	}
	if at := put(t, s, "aaa", batch(1, 1)); at != 20 {
		t.Errorf("positions begin anew: %d", at)
	}
	files, err := filepath.Glob(filepath.Join(dir, "aa", "aaa", "*.seg"))
	if err != nil || len(files) != 1 {
		t.Errorf("files %v, %v", files, err)
	}
}

func TestDeleted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, stream.Options{})
	put(t, s, "aaa", batch(1, 1))
	put(t, s, "aab", batch(1, 1))
	if err := s.Delete("aaa"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir, stream.Options{}) // the journal still has its records
	if got := positions(t, s, "aaa"); len(got) != 0 {
		t.Errorf("deleted, and has %v", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "aa", "aaa")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder: %v", err)
	}
	if len(positions(t, s, "aab")) != 1 {
		t.Error("the other stream went too")
	}
}

// TestTornTail: whatever is behind the last whole frame is cut off, said, and written over.
func TestTornTail(t *testing.T) {
	for cut := 1; cut < 60; cut += 7 {
		dir := t.TempDir()
		s := open(t, dir, stream.Options{})
		put(t, s, "aaa", batch(1, 1))
		put(t, s, "aaa", batch(2, 2))
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		seg := filepath.Join(dir, "aa", "aaa", "00000000000000000000.seg")
		st, err := os.Stat(seg)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(seg, st.Size()-int64(min(cut, 56))); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		s = open(t, dir, stream.Options{Logger: slog.New(slog.NewTextHandler(&said, nil))})
		if got := positions(t, s, "aaa"); !slices.Equal(got, []uint64{0}) {
			t.Errorf("cut %d: %v", cut, got)
		}
		if !strings.Contains(said.String(), "cut the end of a segment") && cut < 56 {
			t.Errorf("cut %d: said %q", cut, said.String())
		}
		if at := put(t, s, "aaa", batch(3, 3)); at != 1 || len(positions(t, s, "aaa")) != 2 {
			t.Errorf("cut %d: next at %d", cut, at)
		}
	}
}

func TestTornJournal(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, stream.Options{})
	put(t, s, "aaa", batch(1, 1))
	s.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "journal", "*"))
	f, err := os.OpenFile(files[len(files)-1], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte{200, 0, 0, 0, 1, 2, 3, 4, 1})
	f.Close()
	// What is in the journal counts, also when the segment never got to the disk.
	if err := os.RemoveAll(filepath.Join(dir, "aa")); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, stream.Options{})
	if got := positions(t, s, "aaa"); len(got) != 1 {
		t.Errorf("records %v", got)
	}
}

// TestRot: a record that is not what was written is an error, never another record.
func TestRot(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, stream.Options{})
	for i := range int64(30) {
		b := batch(i)
		for n := range int64(100) {
			b.Records = append(b.Records, stream.Record{Time: 100*i + n, Data: bytes.Repeat([]byte("x"), 100)})
		}
		put(t, s, "aaa", b)
	}
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "aa", "aaa", "00000000000000000000.seg"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("rot"), 40_000)
	f.Close()
	var failed error
	for _, err := range s.From("aaa", 0) {
		if err != nil {
			failed = err
		}
	}
	if failed == nil || !strings.Contains(failed.Error(), "damaged at offset") {
		t.Errorf("reading: %v", failed)
	}
}

// TestHeadless: a segment that has lost its head is left out, and kept.
func TestHeadless(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, stream.Options{SegmentBytes: 100})
	for i := range int64(3) {
		put(t, s, "aaa", batch(i, i))
	}
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	for _, n := range []int{1, 2} {
		if err := os.WriteFile(filepath.Join(dir, "aa", "aaa", fmt.Sprintf("%020d.seg", n)), bytes.Repeat([]byte("rot"), 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir, stream.Options{SegmentBytes: 100})
	if got := positions(t, s, "aaa"); !slices.Equal(got, []uint64{0}) {
		t.Errorf("records %v", got)
	}
	if at := put(t, s, "aaa", batch(9, 9)); at != 1 || len(positions(t, s, "aaa")) != 2 {
		t.Errorf("next at %d", at)
	}
	if kept, err := filepath.Glob(filepath.Join(dir, "aa", "aaa", "*.damaged")); err != nil || len(kept) != 2 {
		t.Errorf("kept %v, %v", kept, err)
	}
}

func TestWaitReturnsWithTheRecord(t *testing.T) {
	s := open(t, t.TempDir(), stream.Options{})
	got := make(chan error)
	go func() { got <- s.Wait(t.Context(), "aaa", 1) }()
	put(t, s, "aaa", batch(1, 1))
	put(t, s, "aaa", batch(1, 1))
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { got <- s.Wait(ctx, "aaa", 2) }()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestManyStreamsAtOnce: a thousand streams with four open files, appended to and read at once.
func TestManyStreamsAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, stream.Options{OpenFiles: 4, JournalBytes: 128 << 10, SegmentBytes: 150})
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error)
	go func() { running <- s.Run(ctx) }()
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range int64(2) {
				for n := w; n < 1000; n += 8 {
					put(t, s, fmt.Sprintf("s-%d", n), batch(i, i, i))
				}
			}
		})
	}
	all.Wait()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, e := range open {
		if to, _ := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); strings.HasPrefix(to, dir) {
			files++
		}
	}
	if files > 4+8+1 {
		t.Errorf("%d files are open", files)
	}
	for n := range 1000 {
		if got := positions(t, s, fmt.Sprintf("s-%d", n)); len(got) != 4 {
			t.Fatalf("stream %d has %v", n, got)
		}
	}
	cancel()
	if err := <-running; err != nil {
		t.Fatal(err)
	}
}

// TestQueryAgainstSorting compares pages with what sorting everything gives, for random streams whose times are in no order.
func TestQueryAgainstSorting(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := open(t, t.TempDir(), stream.Options{SegmentBytes: 100 << 10})
	sources := []stream.Source{{Name: "aaa", Order: "x"}, {Name: "bbb", Order: "a"}, {Name: "ccc", Order: "m"}}
	var all []stream.Found
	for range 400 {
		i := rnd.IntN(3)
		b := stream.Batch{Ingested: 1}
		base := rnd.Int64N(50)
		if i == 0 {
			base = int64(len(all) / 100) // one stream nearly in order
		}
		for range 1 + rnd.IntN(20) {
			b.Records = append(b.Records, stream.Record{Time: base + rnd.Int64N(5), Data: bytes.Repeat([]byte{'a' + byte(rnd.IntN(3))}, rnd.IntN(200))})
		}
		first := put(t, s, sources[i].Name, b)
		for n, r := range b.Records {
			r.Position, r.Ingested = first+uint64(n), 1
			all = append(all, stream.Found{Source: i, Record: r})
		}
	}
	slices.SortFunc(all, func(a, b stream.Found) int {
		if a.Time != b.Time {
			return int(a.Time - b.Time)
		}
		if n := strings.Compare(sources[a.Source].Order, sources[b.Source].Order); n != 0 {
			return n
		}
		return int(a.Position) - int(b.Position)
	})
	for range 30 {
		q := stream.Query{Sources: sources, From: rnd.Int64N(30), To: 30 + rnd.Int64N(30), Backward: rnd.IntN(2) == 0,
			Limit: 30 * rnd.IntN(10), Bytes: 3000 * rnd.IntN(10), Overhead: 26, Scan: 30_000 * rnd.Int64N(8)}
		if rnd.IntN(2) == 0 {
			q.Match = func(r stream.Record) bool { return bytes.HasPrefix(r.Data, []byte("a")) }
		}
		var want, got []stream.Found
		for _, f := range all {
			if f.Time >= q.From && f.Time < q.To && (q.Match == nil || q.Match(f.Record)) {
				want = append(want, f)
			}
		}
		for pages := 0; ; pages++ {
			p, err := s.Query(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if q.Limit > 0 && len(p.Records) > q.Limit {
				t.Fatalf("%d records, limit %d", len(p.Records), q.Limit)
			}
			if q.Backward {
				got = append(slices.Clone(p.Records), got...)
			} else {
				got = append(got, p.Records...)
			}
			if p.Rest == nil {
				break
			}
			if q.Backward {
				q.Before = p.Rest
			} else {
				q.After = p.Rest
			}
			if pages > 20_000 {
				t.Fatal("the pages do not end")
			}
		}
		same := slices.EqualFunc(want, got, func(a, b stream.Found) bool {
			return a.Source == b.Source && a.Position == b.Position && a.Time == b.Time && bytes.Equal(a.Data, b.Data)
		})
		if !same {
			t.Fatalf("%+v: %d records, want %d", q, len(got), len(want))
		}
	}
}

// TestFullDisk: the error says so, what was acknowledged stays, and writing goes on once there is space.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, err := stream.Open(dir, stream.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]int{}
	var full error
	for i := 0; full == nil && i < 1000; i++ {
		name := fmt.Sprintf("s-%d", i%3)
		b := batch(1, 1)
		b.Records[0].Data = bytes.Repeat([]byte("x"), 5000)
		if _, _, full = s.Append(t.Context(), name, b); full == nil {
			acknowledged[name]++
		}
	}
	if !errors.Is(full, stream.ErrNoSpace) {
		t.Fatalf("error %v", full)
	}
	check := func(when string) {
		t.Helper()
		for name, n := range acknowledged {
			if got := positions(t, s, name); len(got) != n {
				t.Errorf("%s: %s has %d records of %d", when, name, len(got), n)
			}
		}
	}
	check("when the disk is full")
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "s-1", batch(1, 1))
	acknowledged["s-1"]++
	check("with space again")
	s.Close()
	s, err = stream.Open(dir, stream.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	check("after opening")
	s.Close()
}
