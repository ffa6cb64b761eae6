// Package id makes identifiers in the forms AWS clients expect. Randomness comes from the reader that is passed in, so
// that simulations can repeat themselves; crypto/rand.Reader is the one to use elsewhere.
package id

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
)

// Hex is n lower-case hexadecimal digits: a task id has 32, a load balancer id 16, a VPC id 17.
// It panics when r fails: there is no safe way to go on without randomness.
func Hex(r io.Reader, n int) string {
	b := make([]byte, (n+1)/2)
	if _, err := io.ReadFull(r, b); err != nil {
		panic(fmt.Sprintf("id: read randomness: %v", err))
	}
	return hex.EncodeToString(b)[:n]
}

// UUID is a version 4 UUID, as request ids and ECS deployment ids have it.
func UUID(r io.Reader) string { return NewBinary(r).String() }

// UUIDOf is always the same for a seed, in the form of a UUID: for names that are derived and not kept.
func UUIDOf(seed string) string {
	sum := sha256.Sum256([]byte(seed))
	return Binary(sum[:16]).String()
}

// Binary is a UUID as protocols carry it.
type Binary [16]byte

// NewBinary is a version 4 UUID.
func NewBinary(r io.Reader) (b Binary) {
	if _, err := io.ReadFull(r, b[:]); err != nil {
		panic(fmt.Sprintf("id: read randomness: %v", err))
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return b
}

// String is the form that people know.
func (b Binary) String() string {
	var s [36]byte
	at := 0
	for _, part := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if at > 0 {
			s[at] = '-'
			at++
		}
		at += hex.Encode(s[at:], part)
	}
	return string(s[:])
}
