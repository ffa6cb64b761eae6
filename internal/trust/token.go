package trust

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// tokenPrefix begins every token that a cluster has made; what begins otherwise is a bootstrap secret.
const tokenPrefix = "neargate1."

// OneHosts says whether a join token is one that a cluster has made, for one host, and no bootstrap secret.
func OneHosts(token string) bool { return strings.HasPrefix(strings.TrimSpace(token), tokenPrefix) }

// Tokens makes join tokens that end by themselves and serve one host. Nothing is stored of them: a token's secret follows from its id
// and a key that all servers hold; that one has been used is a record of the cluster's (AdmissionConfig.Admit).
type Tokens struct{ key []byte }

// NewTokens derives the key of tokens from the sealing key.
func NewTokens(sealing []byte) *Tokens {
	mac := hmac.New(sha256.New, sealing)
	mac.Write([]byte("neargate/join tokens/1"))
	return &Tokens{mac.Sum(nil)}
}

// tokenBytes are a token's id: its role (one byte), its end (seconds, 8 bytes) and 16 random bytes.
const tokenBytes = 1 + 8 + 16

// Make makes a token for one host of a role.
func (t *Tokens) Make(role Role, ends time.Time, random io.Reader) (string, error) {
	kind, ok := map[Role]byte{Agent: 'a', Server: 's'}[role]
	if !ok {
		return "", fmt.Errorf("a join token is for an agent or a server, not for a %q", role)
	}
	id := binary.BigEndian.AppendUint64([]byte{kind}, uint64(ends.Unix()))
	id = append(id, make([]byte, 16)...)
	if _, err := io.ReadFull(random, id[9:]); err != nil {
		return "", fmt.Errorf("make join token: %w", err)
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(id) + "." + base64.RawURLEncoding.EncodeToString(t.secret(id)), nil
}

func (t *Tokens) secret(id []byte) []byte {
	mac := hmac.New(sha256.New, t.key)
	mac.Write(id)
	return mac.Sum(nil)
}

// Secret is that of the token with an id; nil if it is none of this cluster's or has ended.
func (t *Tokens) Secret(id string, now time.Time) *Secret {
	raw, role, ends := parseTokenID(id)
	if raw == nil || !now.Before(ends) {
		return nil
	}
	return &Secret{key: t.secret(raw), id: id, role: role}
}

func parseTokenID(id string) (raw []byte, role Role, ends time.Time) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil || len(raw) != tokenBytes {
		return nil, "", time.Time{}
	}
	role = map[byte]Role{'a': Agent, 's': Server}[raw[0]]
	return raw, role, time.Unix(int64(binary.BigEndian.Uint64(raw[1:])), 0)
}

// parseToken reads a token as Make has made it.
func parseToken(token string) (*Secret, error) {
	id, secret, ok := strings.Cut(strings.TrimPrefix(token, tokenPrefix), ".")
	raw, role, _ := parseTokenID(id)
	key, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if !ok || raw == nil || role == "" || err != nil || len(key) != sha256.Size {
		return nil, errors.New("the join token is damaged: copy it whole")
	}
	return &Secret{key: key, id: id, role: role}, nil
}

// TokenEnds is when the token with an id ends.
func TokenEnds(id string) time.Time {
	_, _, ends := parseTokenID(id)
	return ends
}
