package stream_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/seed-2f228079/neargate/storage/stream"
)

// copyFrom copies what is behind the end of to's stream.
func copyFrom(t *testing.T, from, to *stream.Store, name string) {
	t.Helper()
	have, err := to.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	source, err := from.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	for b, err := range from.Copy(name, have.Next) {
		if err == nil {
			_, err = to.AppendCopy(t.Context(), name, b, source.First > have.Next)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestCopyIsAsTheOther(t *testing.T) {
	a, b := open(t, t.TempDir(), stream.Options{}), open(t, t.TempDir(), stream.Options{})
	for i := range 20 {
		in := batch(int64(i), int64(i), int64(i+1), int64(i-1))
		in.Mark = uint64(i + 1)
		put(t, a, "aaa", in)
		if i == 10 {
			copyFrom(t, a, b, "aaa")
		}
	}
	for range 2 {
		copyFrom(t, a, b, "aaa")
	}
	one, _ := a.Stat("aaa")
	two, _ := b.Stat("aaa")
	if one != two || two.Next != 60 || two.Mark != 20 {
		t.Errorf("copy %+v of %+v", two, one)
	}
	if !slices.Equal(positions(t, a, "aaa"), positions(t, b, "aaa")) {
		t.Error("the copy has other records")
	}
	// What was copied before, and what would leave something out.
	again := batch(0, 0, 1, -1)
	first, err := stream.EncodeBatch(0, &again)
	if err != nil {
		t.Fatal(err)
	}
	if next, err := b.AppendCopy(t.Context(), "aaa", first, false); err != nil || next != 3 {
		t.Errorf("again: %d, %v", next, err)
	}
	for _, at := range []uint64{58, 61} {
		odd, err := stream.EncodeBatch(at, &again)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.AppendCopy(t.Context(), "aaa", odd, false); !errors.Is(err, stream.ErrPosition) {
			t.Errorf("at %d: %v", at, err)
		}
	}
	if now, _ := b.Stat("aaa"); now != two {
		t.Errorf("refused, and yet %+v", now)
	}
}

// TestCopyOfWhatIsLeft: retention took the beginning of the one, the other had a part of that.
func TestCopyOfWhatIsLeft(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, t.TempDir(), stream.Options{SegmentBytes: 200}), open(t, dir, stream.Options{})
	put(t, a, "aaa", batch(1, 1))
	copyFrom(t, a, b, "aaa")
	for i := range 20 {
		put(t, a, "aaa", batch(int64(i), int64(i), int64(i)))
	}
	if _, err := a.Drop("aaa", 10, 0); err != nil {
		t.Fatal(err)
	}
	copyFrom(t, a, b, "aaa")
	left := append([]uint64{0}, positions(t, a, "aaa")...)
	if got := positions(t, b, "aaa"); !slices.Equal(got, left) || len(left) < 5 {
		t.Errorf("positions %v, want %v", got, left)
	}
	put(t, a, "aaa", batch(30, 30))
	copyFrom(t, a, b, "aaa")
	b.Close()
	if got := positions(t, open(t, dir, stream.Options{}), "aaa"); len(got) != len(left)+1 {
		t.Errorf("reopened: positions %v", got)
	}
}

func TestPartsOfARow(t *testing.T) {
	s := open(t, t.TempDir(), stream.Options{})
	put(t, s, "one", batch(1, 10, 20, 30))
	put(t, s, "one", batch(2, 40, 50)) // its last record is beyond the part
	put(t, s, "two", batch(3, 25, 60))
	i, err := s.StatBelow("one", 4)
	if err != nil || i.Next != 4 || i.MaxTime != 40 || i.Bytes != 4*4 || i.Ingested != 2 {
		t.Errorf("%+v, %v", i, err)
	}
	q := stream.Query{From: 0, To: math.MaxInt64, Sources: []stream.Source{{Name: "one", End: 4}, {Name: "two", Base: 4}}, Limit: 4}
	var got []uint64
	for {
		page, err := s.Query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			got = append(got, r.Position)
		}
		if q.After = page.Rest; q.After == nil {
			break
		}
	}
	if want := []uint64{0, 1, 4, 2, 3, 5}; !slices.Equal(got, want) {
		t.Errorf("positions %v, want %v", got, want)
	}
}
