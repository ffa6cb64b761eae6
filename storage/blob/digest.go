package blob

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"strings"
)

// Digest names a blob by its content: "sha256:" and 64, or "sha512:" and 128 lower-case hexadecimal digits. A Digest is
// only ever made by ParseDigest or by hashing, so that it is safe as part of a path.
type Digest string

// ParseDigest checks s.
func ParseDigest(s string) (Digest, error) {
	alg, sum, ok := strings.Cut(s, ":")
	if !ok {
		return "", fmt.Errorf("%q is not a digest (algorithm:hex)", s)
	}
	var digits int
	switch alg {
	case "sha256":
		digits = 2 * sha256.Size
	case "sha512":
		digits = 2 * sha512.Size
	default:
		return "", fmt.Errorf("digest algorithm %q is not supported; sha256 and sha512 are", alg)
	}
	if len(sum) != digits {
		return "", fmt.Errorf("a %s digest has %d hexadecimal digits, not %d", alg, digits, len(sum))
	}
	for _, c := range []byte(sum) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", fmt.Errorf("%q is not a digest: lower-case hexadecimal digits are expected", s)
		}
	}
	return Digest(s), nil
}

// Sum is the sha256 digest of b.
func Sum(b []byte) Digest {
	sum := sha256.Sum256(b)
	return digestOfKey("sha256", sum[:])
}

// SumAs is the digest of b by the algorithm of like.
func SumAs(like Digest, b []byte) Digest {
	if like.algorithm() == "sha512" {
		sum := sha512.Sum512(b)
		return digestOfKey("sha512", sum[:])
	}
	return Sum(b)
}

func (d Digest) algorithm() string { return string(d[:6]) }
func (d Digest) hex() string       { return string(d[7:]) }

func (d Digest) newHash() hash.Hash {
	if d.algorithm() == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}

func digestOf(algorithm string, h hash.Hash) Digest {
	var sum [sha512.Size]byte
	return digestOfKey(algorithm, h.Sum(sum[:0]))
}
