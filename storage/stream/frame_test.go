package stream

import (
	"bytes"
	"math"
	"slices"
	"testing"
)

func FuzzFrame(f *testing.F) {
	good, err := appendFrame(nil, 3, &Batch{Ingested: 9, Mark: 4, Records: []Record{{Time: math.MinInt64, Data: []byte("a")}, {Time: math.MaxInt64}, {Time: 0, Data: []byte("ccc")}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(slices.Clone(good), good...))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := parseFrame(b)
		if err != nil {
			return
		}
		batch := Batch{Ingested: fr.ingested, Mark: fr.mark}
		if fr.records(func(r Record) bool { batch.Records = append(batch.Records, r); return true }) != nil || len(batch.Records) == 0 {
			return
		}
		again, err := appendFrame(nil, fr.first, &batch)
		if err != nil {
			t.Fatal(err)
		}
		two, err := parseFrame(again)
		if err != nil || two.count != fr.count || two.first != fr.first {
			t.Fatalf("%+v, %v", two, err)
		}
		i := 0
		two.records(func(r Record) bool {
			if w := batch.Records[i]; r.Time != w.Time || !bytes.Equal(r.Data, w.Data) {
				t.Errorf("record %d: %+v, want %+v", i, r, w)
			}
			i++
			return true
		})
	})
}

// FuzzBody goes past the checksum: bodies that no one wrote.
func FuzzBody(f *testing.F) {
	f.Add([]byte{0, 1, 'a'}, uint32(1))
	f.Add([]byte{0xff, 0xff, 0xff}, uint32(2))
	f.Fuzz(func(t *testing.T, body []byte, count uint32) {
		fr := frame{count: count, body: body}
		n := 0
		_ = fr.records(func(r Record) bool { n += len(r.Data); return true })
		if n > len(body) {
			t.Errorf("%d bytes of data in a body of %d", n, len(body))
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add(appendEntry(nil, entry{kind: entryWrite, name: "abc", base: 1, offset: 2, bytes: []byte("x")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rest, ok := parseEntry(b)
		if ok && !bytes.Equal(append(appendEntry(nil, e), rest...), b) {
			t.Error("an entry that is written otherwise")
		}
	})
}
