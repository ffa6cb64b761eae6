// Package seal encrypts and authenticates small values that clients carry for us: page tokens, registry tokens. Nothing is
// stored; whoever has the key can open them, on any server.
//
// XChaCha20-Poly1305, because its nonces are long enough to be random for ever under one key; AES-GCM's are not. Every purpose has
// its own key, derived from the sealing key, so that a token of one kind never opens as another.
package seal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// KeySize is the length of a sealing key.
const KeySize = 32

// ErrInvalid: not sealed by this key for this purpose and context, or changed since. It never says which.
var ErrInvalid = errors.New("seal: invalid")

const format = 1 // first byte of what is sealed; authenticated

// Sealer seals for one purpose. Safe for concurrent use.
type Sealer struct{ aead cipher.AEAD }

// New derives the key of a purpose ("page-token") from the sealing key.
func New(key []byte, purpose string) (*Sealer, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("seal: key of %d bytes, want %d", len(key), KeySize)
	}
	derived, err := hkdf.Key(sha256.New, key, nil, "neargate/seal/"+purpose, chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("seal: derive key: %w", err)
	}
	aead, err := chacha20poly1305.NewX(derived)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return &Sealer{aead}, nil
}

// Name names a sealing key without giving it away: what is kept elsewhere says by it which key it belongs to.
func Name(key []byte) string {
	name, err := hkdf.Key(sha256.New, key, nil, "neargate/name", 16)
	if err != nil {
		panic(err) // SHA-256 gives far longer ones
	}
	return hex.EncodeToString(name)
}

// Seal encrypts plaintext. The same context (an operation and account, say; may be empty) must be given to open it.
func (s *Sealer) Seal(plaintext, context []byte) []byte {
	head := 1 + s.aead.NonceSize()
	out := make([]byte, head, head+len(plaintext)+s.aead.Overhead())
	out[0] = format
	rand.Read(out[1:]) // never fails
	return s.aead.Seal(out, out[1:], plaintext, bind(context))
}

// Open undoes Seal.
func (s *Sealer) Open(sealed, context []byte) ([]byte, error) {
	head := 1 + s.aead.NonceSize()
	if len(sealed) < head || sealed[0] != format {
		return nil, ErrInvalid
	}
	plaintext, err := s.aead.Open(nil, sealed[1:head], sealed[head:], bind(context))
	if err != nil {
		return nil, ErrInvalid
	}
	return plaintext, nil
}

// SealString is Seal as unpadded base64url, which is safe in headers, URLs and JSON.
func (s *Sealer) SealString(plaintext, context []byte) string {
	return base64.RawURLEncoding.EncodeToString(s.Seal(plaintext, context))
}

// OpenString undoes SealString.
func (s *Sealer) OpenString(sealed string, context []byte) ([]byte, error) {
	// Strict: there is one spelling of a token.
	b, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return nil, ErrInvalid
	}
	return s.Open(b, context)
}

func bind(context []byte) []byte { return append([]byte{format}, context...) }
