package pack

import (
	"encoding/binary"
	"hash/crc32"
)

// A record is a head, the key, and data. All numbers are little-endian.
//
//	0 magic         4 CRC-32C of the head from 8 on, and of the key
//	8 kind          9 length of the key   10 nothing
//	12 length of the data   16 time, in seconds   20 CRC-32C of the data
//
// The head has a checksum of its own: so the key of data that has rotted is known, and where the next record begins. The data of a deletion
// is the place of the value that goes.
const (
	headSize  = 24
	magic     = 0x316b6370 // "pck1"
	placeSize = 8
)

// The kinds of records.
const (
	kindValue byte = iota + 1
	kindDeletion
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is a decoded one.
type head struct {
	kind byte
	key  []byte
	size uint32 // of the data
	time uint32
	sum  uint32 // of the data
}

// span is how long the record is.
func (h *head) span() int64 { return span(len(h.key), h.size) }

func span(key int, size uint32) int64 { return headSize + int64(key) + int64(size) }

func appendRecord(dst []byte, kind byte, key, data []byte, time uint32) []byte {
	h := head{kind, key, uint32(len(data)), time, crc32.Checksum(data, castagnoli)}
	return append(h.append(dst), data...)
}

// append encodes head and key.
func (h *head) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, headSize)...)
	dst = append(dst, h.key...)
	b := dst[at:]
	binary.LittleEndian.PutUint32(b, magic)
	b[8], b[9] = h.kind, byte(len(h.key))
	binary.LittleEndian.PutUint32(b[12:], h.size)
	binary.LittleEndian.PutUint32(b[16:], h.time)
	binary.LittleEndian.PutUint32(b[20:], h.sum)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return dst
}

// parseHead takes the head and the key at the start of b; ok is false when there are none.
func parseHead(b []byte) (h head, ok bool) {
	if len(b) < headSize || binary.LittleEndian.Uint32(b) != magic {
		return h, false
	}
	n := headSize + int(b[9])
	if len(b) < n || crc32.Checksum(b[8:n], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return h, false
	}
	h = head{kind: b[8], key: b[headSize:n], size: binary.LittleEndian.Uint32(b[12:]), time: binary.LittleEndian.Uint32(b[16:]), sum: binary.LittleEndian.Uint32(b[20:])}
	return h, validKey(h.key) && (h.kind == kindValue && h.size <= MaxValue || h.kind == kindDeletion && h.size == placeSize)
}

func (h *head) whole(data []byte) bool { return crc32.Checksum(data, castagnoli) == h.sum }

func encodePlace(p place) []byte {
	b := binary.LittleEndian.AppendUint32(nil, p.segment)
	return binary.LittleEndian.AppendUint32(b, p.offset)
}

func decodePlace(b []byte) (segment, offset uint32) {
	return binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
}
