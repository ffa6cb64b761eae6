package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// A frame is one batch in a segment: a head of fixed size, then for every record the distance of its time from the frame's least, its
// length (both varints) and its data. All numbers are little-endian.
//
//	0 length of the body   4 CRC-32C of all that follows
//	8 first position      16 ingested   24 least time   32 greatest time   40 mark   48 number of records
const frameHead = 52

// MaxBatch is how many bytes a frame's body may have.
const MaxBatch = 8 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errFrame = errors.New("not a whole frame")

// frame is a decoded head.
type frame struct {
	size     int // of head and body
	first    uint64
	ingested int64
	min, max int64
	mark     uint64
	count    uint32
	body     []byte
}

func (f *frame) next() uint64 { return f.first + uint64(f.count) }

// appendFrame encodes b, whose first record gets the position, behind dst.
func appendFrame(dst []byte, first uint64, b *Batch) ([]byte, error) {
	least, most := int64(math.MaxInt64), int64(math.MinInt64)
	size := 0
	for _, r := range b.Records {
		least, most = min(least, r.Time), max(most, r.Time)
		size += 2*binary.MaxVarintLen64 + len(r.Data)
	}
	if len(b.Records) == 0 {
		return dst, errors.New("a batch without records")
	}
	if size > MaxBatch {
		return dst, fmt.Errorf("%w: %d records of %d bytes", ErrTooLarge, len(b.Records), size)
	}
	at := len(dst)
	dst = slices.Grow(dst, frameHead+size)
	dst = append(dst, make([]byte, frameHead)...)
	for _, r := range b.Records {
		dst = binary.AppendUvarint(dst, uint64(r.Time-least)) // right modulo 2^64, also when the difference is large
		dst = binary.AppendUvarint(dst, uint64(len(r.Data)))
		dst = append(dst, r.Data...)
	}
	h := dst[at:]
	binary.LittleEndian.PutUint32(h, uint32(len(h)-frameHead))
	binary.LittleEndian.PutUint64(h[8:], first)
	binary.LittleEndian.PutUint64(h[16:], uint64(b.Ingested))
	binary.LittleEndian.PutUint64(h[24:], uint64(least))
	binary.LittleEndian.PutUint64(h[32:], uint64(most))
	binary.LittleEndian.PutUint64(h[40:], b.Mark)
	binary.LittleEndian.PutUint32(h[48:], uint32(len(b.Records)))
	binary.LittleEndian.PutUint32(h[4:], crc32.Checksum(h[8:], castagnoli))
	return dst, nil
}

// parseFrame takes the frame at the start of b: errFrame when there is no whole one.
func parseFrame(b []byte) (frame, error) {
	if len(b) < frameHead {
		return frame{}, errFrame
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n > MaxBatch || frameHead+n > len(b) {
		return frame{}, errFrame
	}
	b = b[:frameHead+n]
	if crc32.Checksum(b[8:], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return frame{}, errFrame
	}
	return frame{
		size: len(b), first: binary.LittleEndian.Uint64(b[8:]), ingested: int64(binary.LittleEndian.Uint64(b[16:])),
		min: int64(binary.LittleEndian.Uint64(b[24:])), max: int64(binary.LittleEndian.Uint64(b[32:])),
		mark: binary.LittleEndian.Uint64(b[40:]), count: binary.LittleEndian.Uint32(b[48:]), body: b[frameHead:],
	}, nil
}

// records hands out what is in the frame; Data points into it. It fails on a body that is not what the head says.
func (f *frame) records(yield func(Record) bool) error {
	rest := f.body
	for i := range uint64(f.count) {
		dt, n := binary.Uvarint(rest)
		if n <= 0 {
			return errFrame
		}
		rest = rest[n:]
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return errFrame
		}
		data := rest[n : n+int(size) : n+int(size)]
		rest = rest[n+int(size):]
		if !yield(Record{Time: f.min + int64(dt), Ingested: f.ingested, Position: f.first + i, Data: data}) {
			return nil
		}
	}
	if len(rest) > 0 {
		return errFrame
	}
	return nil
}

// dataBytes is how much data the frame holds.
func (f *frame) dataBytes() (n int64, err error) {
	err = f.records(func(r Record) bool { n += int64(len(r.Data)); return true })
	return n, err
}
