package datachannel

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/internal/id"
)

func example() *Message {
	m := &Message{Type: InputStream, Created: 1_700_000_000_123, Sequence: 7, Flags: FIN, PayloadType: Size, Payload: []byte(`{"cols":80,"rows":24}`)}
	for i := range m.ID {
		m.ID[i] = byte(i)
	}
	return m
}

// TestWireForm holds the bytes at the places that the public clients read them from.
func TestWireForm(t *testing.T) {
	b := example().Marshal()
	for name, c := range map[string]struct {
		at   int
		want []byte
	}{
		"header length":   {0, []byte{0, 0, 0, 116}},
		"type":            {4, []byte("input_stream_data               ")},
		"schema version":  {36, []byte{0, 0, 0, 1}},
		"created":         {40, binary.BigEndian.AppendUint64(nil, 1_700_000_000_123)},
		"sequence number": {48, []byte{0, 0, 0, 0, 0, 0, 0, 7}},
		"flags":           {56, []byte{0, 0, 0, 0, 0, 0, 0, 2}},
		"id":              {64, []byte{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7}},
		"payload type":    {112, []byte{0, 0, 0, 3}},
		"payload length":  {116, []byte{0, 0, 0, 21}},
		"payload":         {120, []byte(`{"cols":80,"rows":24}`)},
	} {
		if got := b[c.at : c.at+len(c.want)]; !bytes.Equal(got, c.want) {
			t.Errorf("%s is % x, want % x", name, got, c.want)
		}
	}
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), m); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefuses(t *testing.T) {
	change := func(f func(b []byte)) []byte {
		b := example().Marshal()
		f(b)
		return b
	}
	large := &Message{Type: InputStream, Payload: make([]byte, MaxPayload+1)}
	for want, b := range map[string][]byte{
		"shorter than its header":        example().Marshal()[:119],
		"a header of 4294967295 bytes":   change(func(b []byte) { copy(b, "\xff\xff\xff\xff") }),
		"a header of 115 bytes":          change(func(b []byte) { b[3]-- }),
		"schema version 2":               change(func(b []byte) { b[39] = 2 }),
		"without a type":                 change(func(b []byte) { copy(b[4:36], strings.Repeat(" ", 32)) }),
		"is negative":                    change(func(b []byte) { b[48] = 0x80 }),
		"where its length says 22":       change(func(b []byte) { b[119]++ }),
		"not the one that its digest":    change(func(b []byte) { b[130] ^= 1 }),
		"larger than the 16384 that are": large.Marshal(),
	} {
		if _, err := Parse(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example().Marshal())
	f.Add((&Message{Type: Acknowledge, ID: id.NewBinary(rand.Reader)}).Marshal())
	f.Add([]byte{0, 0, 0, 116})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Parse(m.Marshal())
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Error(diff)
		}
	})
}
