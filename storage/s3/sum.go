package s3

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
)

// Sum reads r to its end and is what Part says of it.
func Sum(r io.Reader) (size int64, sum string, err error) {
	h := sha256.New()
	size, err = io.Copy(h, r)
	return size, hex.EncodeToString(h.Sum(nil)), err
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
