package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Notary is the artifact type of manifests with signatures of notation, and Thumbprints their annotation that tells the certificates.
const (
	Notary      = "application/vnd.cncf.notary.signature"
	Thumbprints = "io.cncf.notary.x509chain.thumbprint#S256"
)

// Signer makes signatures of notation with one key. It is safe for concurrent use.
type Signer struct {
	key   crypto.Signer
	chain []*x509.Certificate // the signer's first
}

// NewSigner takes a private key (PKCS #8) and its certificates, the signer's first, as PEM.
func NewSigner(key, chain []byte) (*Signer, error) {
	block, _ := pem.Decode(key)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("the key is not a PRIVATE KEY in PEM (PKCS #8)")
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	s := &Signer{}
	for rest := chain; ; {
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate: %w", err)
		}
		s.chain = append(s.chain, c)
	}
	if len(s.chain) == 0 || len(s.chain) > maxChain {
		return nil, fmt.Errorf("there are %d certificates", len(s.chain))
	}
	var public interface{ Equal(crypto.PublicKey) bool }
	switch k := private.(type) {
	case *ecdsa.PrivateKey:
		s.key, public = k, &k.PublicKey
	case *rsa.PrivateKey:
		s.key, public = k, &k.PublicKey
	default:
		return nil, fmt.Errorf("the key is a %T, not of RSA or ECDSA", private)
	}
	if name, _ := algorithmOf(s.key.Public()); name == "" {
		return nil, errors.New("the key is not of 2048, 3072 or 4096 bits of RSA, nor of ECDSA's P-256, P-384 or P-521")
	}
	leaf := s.chain[0]
	if !public.Equal(leaf.PublicKey) {
		return nil, errors.New("the first certificate is not the key's")
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return nil, errors.New("the certificate is not for signatures")
	}
	return s, nil
}

// Thumbprints are those of the certificates, as the annotation has them.
func (s *Signer) Thumbprints() string {
	prints := make([]string, len(s.chain))
	for i, c := range s.chain {
		sum := sha256.Sum256(c.Raw)
		prints[i] = hex.EncodeToString(sum[:])
	}
	text, _ := json.Marshal(prints) // strings cannot fail
	return string(text)
}

// Target is what is signed.
type Target struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      uint64 `json:"size"`
}

// Notation makes the JWS of a signature.
func (s *Signer) Notation(t Target, now time.Time) ([]byte, error) {
	for _, c := range s.chain {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return nil, fmt.Errorf("the certificate of %s is valid from %s to %s", c.Subject, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
		}
	}
	name, hash := algorithmOf(s.key.Public())
	header, err := encoded(map[string]any{
		"alg": name, "cty": notationPayload, "crit": []string{schemeHeader}, schemeHeader: notationScheme,
		"io.cncf.notary.signingTime": now.UTC().Truncate(time.Second).Format(time.RFC3339),
	})
	if err != nil {
		return nil, err
	}
	payload, err := encoded(map[string]any{"targetArtifact": t})
	if err != nil {
		return nil, err
	}
	h := hash.New()
	h.Write([]byte(header + "." + payload))
	raw, err := s.sign(hash, h.Sum(nil))
	if err != nil {
		return nil, err
	}
	certificates := make([][]byte, len(s.chain))
	for i, c := range s.chain {
		certificates[i] = c.Raw
	}
	return json.Marshal(map[string]any{
		"payload": payload, "protected": header, "signature": base64.RawURLEncoding.EncodeToString(raw),
		"header": map[string]any{"x5c": certificates, "io.cncf.notary.signingAgent": "neargate"},
	})
}

func (s *Signer) sign(hash crypto.Hash, sum []byte) ([]byte, error) {
	key, ok := s.key.(*ecdsa.PrivateKey)
	if !ok {
		return s.key.Sign(rand.Reader, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash})
	}
	a, b, err := ecdsa.Sign(rand.Reader, key, sum)
	if err != nil {
		return nil, err
	}
	size := (key.Curve.Params().BitSize + 7) / 8
	raw := make([]byte, 2*size)
	a.FillBytes(raw[:size])
	b.FillBytes(raw[size:])
	return raw, nil
}

// encoded is JSON in base64.
func encoded(v any) (string, error) {
	text, err := json.Marshal(v)
	return base64.RawURLEncoding.EncodeToString(text), err
}
