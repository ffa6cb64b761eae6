package state_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

const magic = "neargate state 1\n"

// framed is a snapshot of one frame, whose checksum is right whatever is in it.
func framed(payload []byte) []byte {
	b := binary.AppendUvarint([]byte(magic), uint64(len(payload)))
	b = append(b, payload...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
}

// FuzzRestoreContents: what is in a snapshot may be anything, behind checksums that are right; the plain FuzzRestore stops at those. It is restored
// whole, and then is a state like any other, or refused as damaged or of another version, and nothing has changed.
func FuzzRestoreContents(f *testing.F) {
	m, s := newMachine(f, statetest.Schema...)
	for _, id := range []string{"a", "b", "c"} {
		statetest.Put(f, s, &statetest.Record{Id: id, Groups: []string{"x", id}, Payload: []byte("payload")})
	}
	good := statetest.Bytes(f, m)[len(magic):]
	n, length := binary.Uvarint(good)
	payload := good[length : length+int(n)]
	f.Add(payload)
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		b := bytes.Clone(payload)
		switch i := r.IntN(len(b)); r.IntN(4) {
		case 0:
			b[i] ^= 1 << r.IntN(8)
		case 1:
			b = b[:i]
		case 2:
			b = append(b[:i:i], b[i+r.IntN(len(b)-i):]...)
		case 3: // a length or a revision that is out of all reason
			b = append(append(bytes.Clone(b[:i]), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), b[i:]...)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 1<<20 {
			return
		}
		snapshot := framed(payload)
		m, s := newMachine(t, statetest.Schema...)
		statetest.Put(t, s, &statetest.Record{Id: "mine"})
		before := statetest.Bytes(t, m)
		_, renumbered := m.Renumbered(bytes.NewReader(snapshot))
		err := m.Restore(bytes.NewReader(snapshot))
		if (err == nil) != (renumbered == nil) {
			t.Fatalf("restored: %v; renumbered: %v", err, renumbered)
		}
		if err != nil {
			var damaged *state.DamagedError
			if !errors.As(err, &damaged) && !errors.Is(err, state.ErrUnknownFormat) {
				t.Fatalf("refused without a word of damage: %v", err)
			}
			if !bytes.Equal(statetest.Bytes(t, m), before) {
				t.Fatal("a failed restore changed something")
			}
			return
		}
		if _, err := m.Snapshot().WriteTo(io.Discard); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Apply(putEntry("later", nil)); err != nil {
			t.Fatal(err)
		}
	})
}
