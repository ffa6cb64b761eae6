package state

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// check holds the tree against what it must be: in order, balanced, every node within its bounds and everything counted.
func (t *tree) check() error {
	if t.root == nil {
		if t.n != 0 {
			return fmt.Errorf("empty, but counts %d", t.n)
		}
		return nil
	}
	count, last, leaves := 0, Key(""), -1
	var visit func(n *node, depth int) error
	take := func(it item) error {
		if k := it.key(); count > 0 && k <= last {
			return fmt.Errorf("%q after %q", k, last)
		}
		count, last = count+1, it.key()
		return nil
	}
	visit = func(n *node, depth int) error {
		if len(n.items) == 0 || len(n.items) > maxItems {
			return fmt.Errorf("a node of %d items", len(n.items))
		}
		begin := n.items[0].key()
		if len(begin) < n.skip {
			return fmt.Errorf("%d bytes in common of %q", n.skip, begin)
		}
		for _, it := range n.items {
			if k := it.key(); !strings.HasPrefix(string(k), string(begin[:n.skip])) || it.hint != hintOf("", k, n.skip) {
				return fmt.Errorf("%q has hint %x after %d bytes, in a node that begins with %q", k, it.hint, n.skip, begin)
			}
		}
		if len(n.children) == 0 {
			if leaves < 0 {
				leaves = depth
			}
			if leaves != depth {
				return fmt.Errorf("leaves at depths %d and %d", leaves, depth)
			}
			for _, it := range n.items {
				if err := take(it); err != nil {
					return err
				}
			}
			return nil
		}
		if len(n.children) != len(n.items)+1 {
			return fmt.Errorf("%d items between %d children", len(n.items), len(n.children))
		}
		for i, c := range n.children {
			if err := visit(c, depth+1); err != nil {
				return err
			}
			if i < len(n.items) {
				if err := take(n.items[i]); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := visit(t.root, 0); err != nil {
		return err
	}
	if count != t.n {
		return fmt.Errorf("%d items, counted %d", count, t.n)
	}
	return nil
}

// plain is the plainest ordered map there is.
type plain map[Key]*record

func (p plain) from(k Key) []Key {
	var keys []Key
	for at := range p {
		if at >= k {
			keys = append(keys, at)
		}
	}
	slices.Sort(keys)
	return keys
}

func (t *tree) from(k Key) []Key {
	var keys []Key
	t.ascend(k, "", func(it item) bool { keys = append(keys, it.key()); return true })
	return keys
}

// agree compares a tree with a model: all of it, and from and at some keys.
func agree(t testing.TB, tr *tree, want plain, at ...item) {
	t.Helper()
	if err := tr.check(); err != nil {
		t.Fatal(err)
	}
	if got, want := tr.from(""), want.from(""); !slices.Equal(got, want) {
		t.Fatalf("holds %q, want %q", got, want)
	}
	for _, it := range at {
		k := it.key()
		if got := tr.get(it.prefix(), it.rec.key); got != want[k] {
			t.Fatalf("get %q: %v, want %v", k, got, want[k])
		}
		if got, want := tr.from(k), want.from(k); !slices.Equal(got, want) {
			t.Fatalf("from %q: %q, want %q", k, got, want)
		}
		for _, prefix := range []Key{k, it.prefix(), k[:len(k)/2]} {
			n := 0
			tr.ascend(prefix, prefix.end(), func(item) bool { n++; return true })
			for k := range want {
				if strings.HasPrefix(string(k), string(prefix)) {
					n--
				}
			}
			if n != 0 {
				t.Fatalf("%d too many with prefix %q", n, prefix)
			}
		}
	}
}

// Trees hold what a map does through random edits of every size; every version stays as it was when it was committed.
func TestTreeAgreesWithMap(t *testing.T) {
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("NEARGATE_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("NEARGATE_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	type version struct {
		tree *tree
		want plain
	}
	for _, space := range []int{10, 200, 5000} {
		tr, want := &tree{}, plain{}
		var versions []version
		for round := range 60 {
			e := tr.edit()
			var touched []item
			growing := round < 20 || round%3 == 0
			for range 1 + r.IntN(1+r.IntN(400)) {
				// The same key may be divided between prefix and key in more than one way.
				k := K(fmt.Sprintf("%05d", r.IntN(space)), strings.Repeat("x", r.IntN(3)))
				cut := r.IntN(len(k) + 1)
				it := item{rec: &record{key: k[cut:], places: []place{{key: k[:cut]}}}, place: 1}
				touched = append(touched, it)
				var old *record
				if growing == (r.IntN(4) > 0) {
					old = e.put(it)
					if old != want[k] {
						t.Fatalf("put %q over %v, want %v", k, old, want[k])
					}
					want[k] = it.rec
				} else {
					if old = e.delete(it.prefix(), it.rec.key); old != want[k] {
						t.Fatalf("deleted %v at %q, want %v", old, k, want[k])
					}
					delete(want, k)
				}
			}
			tr = e.commit()
			agree(t, tr, want, touched[:min(10, len(touched))]...)
			versions = append(versions, version{tr, maps.Clone(want)})
			if old := versions[r.IntN(len(versions))]; true {
				agree(t, old.tree, old.want)
			}
		}
		for _, v := range versions {
			agree(t, v.tree, v.want)
		}
		e := tr.edit()
		for _, k := range want.from("") {
			e.delete("", k)
		}
		if empty := e.commit(); empty.root != nil || empty.n != 0 {
			t.Fatal("something is left when everything is deleted")
		}
	}
}

// FuzzTree does what the bytes say, two a step, to a tree and to a map: what, committing first or not, and to which key.
func FuzzTree(f *testing.F) {
	f.Add([]byte("0a1b2c3d"))
	ascending := make([]byte, 0, 2000)
	for i := range 1000 {
		ascending = append(ascending, byte(i>>8)<<2, byte(i))
	}
	f.Add(ascending)
	f.Fuzz(func(t *testing.T, steps []byte) {
		tr, want := &tree{}, plain{}
		before, kept := tr, plain{}
		e := tr.edit()
		for i := 0; i < 500 && len(steps) >= 2; i, steps = i+1, steps[2:] {
			if steps[0]&2 != 0 {
				tr = e.commit()
				agree(t, before, kept)
				before, kept = tr, maps.Clone(want)
				e = tr.edit()
			}
			rec := &record{key: Key([]byte{steps[0] >> 2, steps[1]})}
			if steps[0]&1 == 0 {
				if old := e.put(item{rec: rec}); old != want[rec.key] {
					t.Fatalf("put over %v, want %v", old, want[rec.key])
				}
				want[rec.key] = rec
			} else {
				if old := e.delete("", rec.key); old != want[rec.key] {
					t.Fatalf("deleted %v, want %v", old, want[rec.key])
				}
				delete(want, rec.key)
			}
		}
		agree(t, e.commit(), want)
		agree(t, before, kept)
	})
}
