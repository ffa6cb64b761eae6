package trust

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/seed-2f228079/neargate/internal/seal"
)

// The key of a new authority goes from server to server, and not to whoever has stolen the key of the old one, with which he can call himself any server. So it is
// sealed to the receiver's host key: that never leaves the directory it was made in, and servers have said which is theirs before.

const pointSize = 65 // of a P-256 key, uncompressed

// sealTo encrypts for the holder of a key, given as PKIX. Each time it is by another key of its own, which stands before.
func sealTo(public, plaintext []byte) ([]byte, error) {
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("key of the receiver: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("key of the receiver: one of type %T", parsed)
	}
	theirs, err := key.ECDH()
	if err != nil {
		return nil, fmt.Errorf("key of the receiver: %w", err)
	}
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	s, err := sharedSealer(own, theirs, own.PublicKey(), theirs)
	if err != nil {
		return nil, err
	}
	return append(own.PublicKey().Bytes(), s.Seal(plaintext, nil)...), nil
}

// openBy undoes sealTo.
func openBy(key *ecdsa.PrivateKey, sealed []byte) ([]byte, error) {
	if len(sealed) < pointSize {
		return nil, errors.New("what was handed over is cut short")
	}
	own, err := key.ECDH()
	if err != nil {
		return nil, err
	}
	theirs, err := ecdh.P256().NewPublicKey(sealed[:pointSize])
	if err != nil {
		return nil, fmt.Errorf("what was handed over: %w", err)
	}
	s, err := sharedSealer(own, theirs, theirs, own.PublicKey())
	if err != nil {
		return nil, err
	}
	return s.Open(sealed[pointSize:], nil)
}

// sharedSealer is of what two keys have in common, bound to who sends and who receives.
func sharedSealer(own *ecdh.PrivateKey, theirs, from, to *ecdh.PublicKey) (*seal.Sealer, error) {
	shared, err := own.ECDH(theirs)
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, shared, append(from.Bytes(), to.Bytes()...), "neargate/handover/1", seal.KeySize)
	if err != nil {
		return nil, err
	}
	return seal.New(key, "authority")
}

// HostKey is the public half of this server's host key, PKIX: to which others seal what they hand to it. The first time it makes one.
func (a *Authority) HostKey() ([]byte, error) {
	a.taking.Lock()
	defer a.taking.Unlock()
	key, err := hostKey(a.keys)
	if err != nil {
		return nil, fmt.Errorf("key of this host: %w", err)
	}
	return x509.MarshalPKIXPublicKey(&key.PublicKey)
}

// Hand is an authority with its key, for the server that has a host key and for nobody else; nil: it is not here.
func (a *Authority) Hand(id string, to []byte) ([]byte, error) {
	i, ok := a.held(id)
	if !ok {
		return nil, nil
	}
	text, err := i.pem()
	if err != nil {
		return nil, err
	}
	return sealTo(to, text)
}

// receive reads what Hand of other servers has made.
func (a *Authority) receive(handed [][]byte) ([]issuer, error) {
	if len(handed) == 0 {
		return nil, nil
	}
	key, err := hostKey(a.keys)
	if err != nil {
		return nil, fmt.Errorf("key of this host: %w", err)
	}
	var all []issuer
	for _, sealed := range handed {
		text, err := openBy(key, sealed)
		if err != nil {
			return nil, fmt.Errorf("what was handed over: %w", err)
		}
		r, err := parseRing(text)
		if err != nil {
			return nil, fmt.Errorf("what was handed over: %w", err)
		}
		all = append(all, r.issuers...)
	}
	return all, nil
}
