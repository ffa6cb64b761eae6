// Package signature verifies signatures of images: cosign's with public keys, as simple signing and as sigstore bundles, and those of
// notation (JWS) with certificates; these it makes too. It does no I/O: keys, bytes and time come in.
//
// Invariants: what is not understood is no signature; what was signed must name the image's digest; a key is used with one algorithm only, which its type
// determines, never the document.
package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Media types that signatures come in.
const (
	SimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json" // of a layer; its annotation has the signature
	Annotation    = "dev.cosignproject.cosign/signature"
	Bundle        = "application/vnd.dev.sigstore.bundle.v0.3+json"
	JWS           = "application/jose+json"
)

// Policy is who may sign. It is safe for concurrent use.
type Policy struct {
	keys  []crypto.PublicKey
	roots *x509.CertPool // nil: signatures of notation are not believed
}

// New takes public keys and root certificates, as PEM.
func New(keys, roots []byte) (*Policy, error) {
	p := &Policy{}
	for rest := keys; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return nil, errors.New("keys: there is something that is not PEM")
			}
			break
		}
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("keys: a %s is not a PUBLIC KEY", block.Type)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		switch key.(type) {
		case *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey:
		default:
			return nil, fmt.Errorf("keys: %T is not of ECDSA, RSA or Ed25519", key)
		}
		p.keys = append(p.keys, key)
	}
	if len(roots) > 0 {
		p.roots = x509.NewCertPool()
		if !p.roots.AppendCertsFromPEM(roots) {
			return nil, errors.New("roots: there is no certificate")
		}
	}
	if p.keys == nil && p.roots == nil {
		return nil, errors.New("there is neither a key nor a root certificate")
	}
	return p, nil
}

var (
	errUnknownKey = errors.New("it was made with a key that is not trusted")
	errOther      = errors.New("it is about another image")
)

// signedBy says whether one of the keys has signed the message.
func (p *Policy) signedBy(message, signature []byte) bool {
	sum := sha256.Sum256(message)
	for _, key := range p.keys {
		ok := false
		switch key := key.(type) {
		case *ecdsa.PublicKey:
			ok = ecdsa.VerifyASN1(key, sum[:], signature)
		case *rsa.PublicKey:
			ok = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
		case ed25519.PublicKey:
			ok = ed25519.Verify(key, message, signature)
		}
		if ok {
			return true
		}
	}
	return false
}

// Cosign verifies a payload of simple signing with its signature in base64.
func (p *Policy) Cosign(payload []byte, signature, digest string) error {
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return errors.New("its signature is not base64")
	}
	if !p.signedBy(payload, raw) {
		return errUnknownKey
	}
	var said struct {
		Critical struct {
			Type  string
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			}
		}
	}
	if err := json.Unmarshal(payload, &said); err != nil {
		return fmt.Errorf("its payload is not JSON: %w", err)
	}
	switch {
	case said.Critical.Type != "cosign container image signature" && said.Critical.Type != "https://sigstore.dev/cosign/sign/v1":
		return fmt.Errorf("its payload is a %q", said.Critical.Type)
	case said.Critical.Image.Digest != digest:
		return errOther
	}
	return nil
}

// payloadType is what DSSE envelopes in bundles contain, signStatement what such a statement says of an image when it is signed. Others, attestations,
// say something about an image and not that it may run.
const (
	payloadType   = "application/vnd.in-toto+json"
	signStatement = "https://sigstore.dev/cosign/sign/v1"
)

// Bundle verifies a sigstore bundle that was made with a key.
func (p *Policy) Bundle(text []byte, digest string) error {
	var b struct {
		Envelope *struct {
			Payload     []byte `json:"payload"`
			PayloadType string `json:"payloadType"`
			Signatures  []struct {
				Sig []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return fmt.Errorf("it is not a bundle: %w", err)
	}
	if b.Envelope == nil || b.Envelope.PayloadType != payloadType {
		return errors.New("the bundle has no statement in a DSSE envelope")
	}
	message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(b.Envelope.Payload), b.Envelope.Payload)
	signed := false
	for _, s := range b.Envelope.Signatures {
		signed = signed || p.signedBy(message, s.Sig)
	}
	if !signed {
		return errUnknownKey
	}
	var statement struct {
		PredicateType string `json:"predicateType"`
		Subject       []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(b.Envelope.Payload, &statement); err != nil {
		return fmt.Errorf("its statement is not JSON: %w", err)
	}
	if statement.PredicateType != signStatement {
		return fmt.Errorf("its statement is a %q", statement.PredicateType)
	}
	algorithm, sum, _ := strings.Cut(digest, ":")
	for _, s := range statement.Subject {
		if sum != "" && s.Digest[algorithm] == sum {
			return nil
		}
	}
	return errOther
}
