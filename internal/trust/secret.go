package trust

import (
	"cmp"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-2f228079/neargate/internal/datadir"
)

// Secret is a join token, made ready for use. Making one of a bootstrap secret costs tens of milliseconds of CPU on purpose: make it
// once.
type Secret struct {
	key  []byte
	id   string // of a token that the cluster has made; empty: the bootstrap secret
	role Role   // whom it admits; empty: agents
}

// For is the role that the token admits to a cluster that there is.
func (s *Secret) For() Role { return cmp.Or(s.role, Agent) }

// stretch is the number of PBKDF2 rounds: who gets hold of a proof, by posing as a server, pays it for each guess of the token.
const stretch = 100_000

// WeakToken is the length below which a token should be longer: it could be guessed from a proof.
const WeakToken = 16

// NewSecret reads a join token.
func NewSecret(token string) (*Secret, error) {
	token = strings.TrimSpace(token)
	if token == "" {
		return nil, errors.New("the join token is empty")
	}
	if strings.HasPrefix(token, tokenPrefix) {
		return parseToken(token)
	}
	key, err := pbkdf2.Key(sha256.New, token, []byte("neargate join token 1"), stretch, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("join token: %w", err)
	}
	return &Secret{key: key}, nil
}

// Digest stands for a value in an exchange of those who know the secret, and tells nobody else what it is.
func (s *Secret) Digest(value string) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte("digest\x00" + value))
	return hex.EncodeToString(mac.Sum(nil))
}

// secretFile keeps a bootstrap secret in the folder of keys: what was made of the token, not the token.
const secretFile = "join-secret"

// KeepSecret is a server's bootstrap secret: the one kept in its folder of keys, else that of token, which is kept from then on.
// With neither it is nil. ignored says that token is another one than what is kept.
func KeepSecret(keys, token string) (s *Secret, ignored bool, err error) {
	var given *Secret
	if token != "" {
		if given, err = NewSecret(token); err != nil {
			return nil, false, err
		}
		if given.id != "" {
			given, ignored = nil, true // a token for one host is no bootstrap secret
		}
	}
	name := filepath.Join(keys, secretFile)
	kept, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && given == nil:
		return nil, ignored, nil
	case errors.Is(err, fs.ErrNotExist):
		return given, false, datadir.WriteFile(name, given.key)
	case err != nil:
		return nil, false, fmt.Errorf("join token: %w", err)
	case len(kept) != sha256.Size:
		return nil, false, fmt.Errorf("join token: %s is damaged; remove it to set a new token", name)
	}
	return &Secret{key: kept}, ignored || given != nil && !hmac.Equal(kept, given.key), nil
}

// The sides of the exchange. A proof of one is none of the other, so neither can be sent back to where it came from.
const (
	joining   = "joining"
	admitting = "admitting"
)

const proofSize = sha256.Size

// proof shows knowledge of the secret to the other end of one TLS session, about messages. It rests on the session's tls-exporter
// binding (RFC 9266), which who sits in the middle of two sessions has two different ones of.
func (s *Secret) proof(side string, session *tls.ConnectionState, messages ...[]byte) ([]byte, error) {
	if session.Version != tls.VersionTLS13 {
		return nil, errors.New("joining needs TLS 1.3")
	}
	binding, err := session.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		return nil, fmt.Errorf("bind to the TLS session: %w", err)
	}
	mac := hmac.New(sha256.New, s.key)
	for _, part := range append([][]byte{[]byte(side), binding}, messages...) {
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		mac.Write(part)
	}
	return mac.Sum(nil), nil
}

// proven says whether the other side knows the secret.
func (s *Secret) proven(proof []byte, side string, session *tls.ConnectionState, messages ...[]byte) bool {
	want, err := s.proof(side, session, messages...)
	return err == nil && hmac.Equal(want, proof)
}
