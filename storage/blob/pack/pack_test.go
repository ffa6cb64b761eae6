package pack

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
)

func open(t testing.TB, dir string, opt Options) *Log {
	t.Helper()
	l, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func keyOf(data []byte) []byte {
	if len(data)%5 == 0 {
		sum := sha512.Sum512(data)
		return sum[:]
	}
	sum := sha256.Sum256(data)
	return sum[:]
}

func mustPut(t testing.TB, l *Log, data string) []byte {
	t.Helper()
	key := keyOf([]byte(data))
	if info, err := l.Put(key, []byte(data)); err != nil || info.Size != int64(len(data)) {
		t.Fatalf("put: %+v, %v", info, err)
	}
	return key
}

// TestModel does what one may do with a log at random, closing and opening it, cutting its end and spoiling it, beside a map.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	opt := Options{SegmentBytes: 4 << 10, OpenFiles: 2}
	l := open(t, dir, opt)
	want := map[string][]byte{}
	value := func() []byte {
		b := bytes.Repeat([]byte{byte(rnd.IntN(8))}, rnd.IntN(40))
		return append(b, fmt.Sprint(rnd.IntN(60))...)
	}
	some := func() string {
		keys := slices.Sorted(maps.Keys(want))
		if len(keys) == 0 {
			return string(keyOf(nil))
		}
		return keys[rnd.IntN(len(keys))]
	}
	for step := range 1500 {
		switch rnd.IntN(12) {
		case 0, 1, 2, 3, 4, 5:
			b := value()
			want[string(mustPut(t, l, string(b)))] = b
		case 6, 7, 8:
			key := some()
			info, _ := l.Stat([]byte(key))
			removed, err := l.Remove([]byte(key), info)
			if _, there := want[key]; removed != there || err != nil {
				t.Fatalf("step %d: remove: %v, %v; there: %v", step, removed, err, there)
			}
			delete(want, key)
		case 9:
			if _, err := l.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		case 10:
			l.Close()
			if rnd.IntN(2) == 0 { // a crash in an append
				name := l.path(slices.Max(append(l.closed(), l.last())), ".seg")
				torn := appendRecord(nil, kindValue, keyOf([]byte("torn")), bytes.Repeat([]byte("torn"), 100), 1)
				appendTo(t, name, torn[:1+rnd.IntN(len(torn)-1)])
			}
			l = open(t, dir, opt)
		case 11:
			key := []byte(some())
			seen, ok := l.Stat(key)
			if !ok || rnd.IntN(4) > 0 {
				continue
			}
			spoil(t, l.path(seen.place.segment, ".seg"), int64(seen.place.offset)+headSize+int64(len(key)))
			if _, info, err := l.Get(key); !errors.Is(err, ErrRotten) && seen.Size > 0 {
				t.Fatalf("step %d: a rotten value is %v", step, err)
			} else if removed, err := l.Remove(key, info); seen.Size > 0 && (!removed || err != nil) {
				t.Fatalf("step %d: remove what has rotted: %v, %v", step, removed, err)
			}
			if seen.Size > 0 {
				delete(want, string(key))
			}
		}
		if step%100 == 0 {
			compare(t, l, want)
		}
	}
	compare(t, l, want)
	l.Close()
	compare(t, open(t, dir, opt), want)
}

// written is how long all segments are.
func (l *Log) written() (n int64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.segments {
		n += s.size
	}
	return n
}

// last is the number of the last segment.
func (l *Log) last() (n uint32) {
	for other := range l.segments {
		n = max(n, other)
	}
	return n
}

func appendTo(t *testing.T, name string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func spoil(t *testing.T, name string, offset int64) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if offset < int64(len(b)) {
		b[offset] ^= 0x40
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// compare expects that the log has these values, and no others.
func compare(t *testing.T, l *Log, want map[string][]byte) {
	t.Helper()
	for key, data := range want {
		if got, info, err := l.Get([]byte(key)); err != nil || !bytes.Equal(got, data) || info.Size != int64(len(data)) {
			t.Fatalf("%x is %d bytes, %v; want %d", key, len(got), err, len(data))
		}
	}
	n := 0
	for _, length := range []int{shortKey, longKey} {
		for first := range 256 {
			keys := l.Keys(length, byte(first))
			if !slices.IsSortedFunc(keys, bytes.Compare) {
				t.Fatal("keys are not sorted")
			}
			for _, key := range keys {
				n++
				if want[string(key)] == nil {
					t.Fatalf("%x is there", key)
				}
			}
		}
	}
	if n != len(want) {
		t.Fatalf("%d keys, want %d", n, len(want))
	}
	var live, written int64
	for key, data := range want {
		live += span(len(key), uint32(len(data)))
	}
	for _, s := range l.segments {
		written += s.live
		if s.live < 0 || s.live > s.size {
			t.Fatalf("segment %d has %d live bytes of %d", s.number, s.live, s.size)
		}
	}
	if live != written {
		t.Fatalf("%d bytes count, by the segments %d", live, written)
	}
}

// TestCompact: what was deleted gives its room back, what counts stays, deletions are not undone by opening again.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	opt := Options{SegmentBytes: 16 << 10}
	l := open(t, dir, opt)
	want := map[string][]byte{}
	for i := range 200 {
		data := strings.Repeat(fmt.Sprint(i, "."), 300)
		key := mustPut(t, l, data)
		if i%4 == 0 {
			want[string(key)] = []byte(data)
			continue
		}
		info, _ := l.Stat(key)
		if removed, err := l.Remove(key, info); !removed || err != nil {
			t.Fatal(removed, err)
		}
		if removed, err := l.Remove(key, info); removed || err != nil {
			t.Fatalf("removed twice: %v", err)
		}
	}
	before := l.written()
	freed, err := l.Compact(t.Context())
	if err != nil || freed < before/2 || l.written() > before/2 {
		t.Fatalf("%d of %d bytes freed, %v", freed, before, err)
	}
	compare(t, l, want)
	l.Close()
	compare(t, open(t, dir, opt), want)
	for i := range 3 { // what is left is not moved for ever
		before := l.last()
		if _, err := l.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i == 2 && l.last() > before+1 {
			t.Errorf("compaction goes on: segment %d became %d", before, l.last())
		}
	}
}

// TestIndexFile: closed segments are opened by their heads alone; without those, or with damaged ones, they are read.
func TestIndexFile(t *testing.T) {
	dir := t.TempDir()
	opt := Options{SegmentBytes: 1 << 10}
	l := open(t, dir, opt)
	want := map[string][]byte{}
	for i := range 100 {
		data := []byte(strings.Repeat("x", i))
		want[string(mustPut(t, l, string(data)))] = data
	}
	gone := mustPut(t, l, "gone")
	info, _ := l.Stat(gone)
	if _, err := l.Remove(gone, info); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		data := []byte(strings.Repeat("y", i+1))
		want[string(mustPut(t, l, string(data)))] = data
	}
	if _, err := l.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.idx"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%d index files, %v", len(files), err)
	}
	l.Close()
	l = open(t, dir, opt)
	compare(t, l, want)
	l.Close()
	// A head that has rotted is still known by its index.
	spoil(t, l.path(1, ".seg"), 9)
	l = open(t, dir, opt)
	first := ""
	for key := range want {
		if info, ok := l.Stat([]byte(key)); ok && info.place.at(1, 0) {
			first = key
		}
	}
	if first == "" {
		t.Fatal("the first record of all is not in the index")
	}
	if _, _, err := l.Check([]byte(first), nil); !errors.Is(err, ErrRotten) {
		t.Errorf("its value is %v", err)
	}
	l.Close()
	spoil(t, l.path(1, ".seg"), 9)
	for i, name := range files {
		spoil(t, name, int64(i))
	}
	compare(t, open(t, dir, opt), want)
}

// TestRottenMiddle: a record that has rotted hides none behind it, whichever part of it has; the value is known to be rotten when its head is whole.
func TestRottenMiddle(t *testing.T) {
	for _, part := range []struct {
		what   string
		offset int64
		known  bool
	}{{"magic", 0, false}, {"head", 12, false}, {"key", headSize + 3, false}, {"data", headSize + shortKey + 2, true}} {
		dir := t.TempDir()
		l := open(t, dir, Options{})
		mustPut(t, l, "before")
		rotten := mustPut(t, l, "the one")
		mustPut(t, l, "after")
		info, _ := l.Stat(rotten)
		l.Close()
		spoil(t, l.path(1, ".seg"), int64(info.place.offset)+part.offset)
		l = open(t, dir, Options{})
		for _, text := range []string{"before", "after"} {
			if got, _, err := l.Get(keyOf([]byte(text))); string(got) != text || err != nil {
				t.Errorf("%s: %q is %q, %v", part.what, text, got, err)
			}
		}
		_, seen, err := l.Get(rotten)
		if part.known != errors.Is(err, ErrRotten) || !part.known && !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", part.what, err)
		}
		mustPut(t, l, "the one")
		if got, _, err := l.Get(rotten); string(got) != "the one" || err != nil {
			t.Errorf("%s: put again: %q, %v", part.what, got, err)
		}
		if removed, _ := l.Remove(rotten, seen); removed {
			t.Errorf("%s: the new one was removed for the old one", part.what)
		}
		l.Close()
		l = open(t, dir, Options{})
		if got, _, err := l.Get(rotten); string(got) != "the one" || err != nil {
			t.Errorf("%s: opened again: %q, %v", part.what, got, err)
		}
	}
}

// TestTouch: a value is written again for its time once an hour, and that time is there after opening.
func TestTouch(t *testing.T) {
	dir := t.TempDir()
	clk := clock.NewFake(time.Unix(1_800_000_000, 0))
	l := open(t, dir, Options{Clock: clk})
	key := mustPut(t, l, "value")
	if err := l.Touch(keyOf([]byte("no"))); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	size := l.written()
	clk.Advance(59 * time.Minute)
	if err := l.Touch(key); err != nil || l.written() != size {
		t.Errorf("%v; %d bytes were %d", err, l.written(), size)
	}
	clk.Advance(time.Minute)
	mustPut(t, l, "value")
	if info, _ := l.Stat(key); !info.Modified.Equal(clk.Now()) {
		t.Errorf("modified %v, not %v", info.Modified, clk.Now())
	}
	l.Close()
	l = open(t, dir, Options{Clock: clk})
	if info, ok := l.Stat(key); !ok || !info.Modified.Equal(clk.Now()) {
		t.Errorf("opened again: modified %v, not %v", info.Modified, clk.Now())
	}
}

// TestConcurrent: puts, gets, deletions and compactions beside one another; each goroutine has values of its own, whose fate it knows.
func TestConcurrent(t *testing.T) {
	l := open(t, t.TempDir(), Options{SegmentBytes: 8 << 10, OpenFiles: 1})
	stop := make(chan bool)
	var compacting, wg sync.WaitGroup
	compacting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := l.Compact(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for w := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			mine := map[string]string{}
			for i := range 150 {
				data := fmt.Sprint(w, i, strings.Repeat("z", rnd.IntN(300)))
				key := keyOf([]byte(data))
				if _, err := l.Put(key, []byte(data)); err != nil {
					t.Error(err)
					return
				}
				mine[string(key)] = data
				for k, v := range mine {
					if got, _, err := l.Get([]byte(k)); err != nil || string(got) != v {
						t.Errorf("%q, %v", got, err)
						return
					}
					if rnd.IntN(3) > 0 {
						for {
							info, ok := l.Stat([]byte(k))
							if !ok {
								t.Error("it is gone")
								return
							}
							if removed, err := l.Remove([]byte(k), info); err != nil {
								t.Error(err)
								return
							} else if removed {
								break
							}
						}
						delete(mine, k)
					}
					break
				}
			}
			for k, v := range mine {
				if got, _, err := l.Get([]byte(k)); err != nil || string(got) != v {
					t.Errorf("at the end: %q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	compacting.Wait()
}

func FuzzParseHead(f *testing.F) {
	f.Add(appendRecord(nil, kindValue, make([]byte, shortKey), []byte("data"), 7))
	f.Add(appendRecord(nil, kindDeletion, make([]byte, longKey), make([]byte, placeSize), 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseHead(b)
		if !ok {
			return
		}
		if again := h.append(nil); !bytes.Equal(again[8:], b[8:headSize+len(h.key)]) && b[10] == 0 && b[11] == 0 {
			t.Errorf("%x became %x", b, again)
		}
	})
}
