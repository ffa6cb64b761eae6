package iam

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Prefixes of unique ids: "Unique identifiers" of the IAM User Guide.
const (
	prefixUser      = "AIDA"
	prefixGroup     = "AGPA"
	prefixRole      = "AROA"
	prefixPolicy    = "ANPA"
	prefixProfile   = "AIPA"
	prefixKey       = "AKIA"
	prefixTemporary = "ASIA"
)

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

func random(r io.Reader, n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		panic(fmt.Sprintf("iam: read randomness: %v", err))
	}
	return b
}

// uniqueID is prefix and 17 characters of base32.
func uniqueID(r io.Reader, prefix string) string {
	return prefix + encoding.EncodeToString(random(r, 11))[:17]
}

// keyID is prefix and 16 characters of base32, in which the account can be read, as AWS's can: the first 48 of their 80 bits are
// a one, the account's 40, and seven of the random ones.
func keyID(r io.Reader, prefix, account string) string {
	b := random(r, 10)
	n, err := strconv.ParseUint(account, 10, 40)
	if err != nil {
		panic(fmt.Sprintf("iam: account %q: %v", account, err)) // 12 digits fit into 40 bits
	}
	binary.BigEndian.PutUint32(b, uint32(1<<31|n>>9))
	binary.BigEndian.PutUint16(b[4:], uint16(n<<7)|uint16(b[5]&0x7f))
	return prefix + encoding.EncodeToString(b)
}

// AccountOfKey reads the account out of an access key id; ok is false for an id that has none in it.
func AccountOfKey(id string) (account string, ok bool) {
	if !strings.HasPrefix(id, prefixKey) && !strings.HasPrefix(id, prefixTemporary) {
		return "", false
	}
	b, err := encoding.DecodeString(id[4:])
	if err != nil || len(b) != 10 || b[0]&0x80 == 0 {
		return "", false
	}
	n := uint64(binary.BigEndian.Uint32(b)&0x7fffffff)<<9 | uint64(binary.BigEndian.Uint16(b[4:])>>7)
	account = fmt.Sprintf("%012d", n)
	return account, len(account) == 12
}

// secretKey is 40 characters, as AWS's are.
func secretKey(r io.Reader) string { return base64.StdEncoding.EncodeToString(random(r, 30)) }

// urlEncode is how policy documents are answered: RFC 3986, everything but the unreserved characters encoded.
func urlEncode(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(2 * len(s))
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// versionID is "v1".
func versionID(n uint32) *string { return new("v" + strconv.FormatUint(uint64(n), 10)) }

func parseVersion(id string) uint32 {
	n, err := strconv.ParseUint(strings.TrimPrefix(id, "v"), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}
