package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// protected is a JWS's protected header, as "Signature Envelope: JWS" of the Notary Project has it.
type protected struct {
	Algorithm   string    `json:"alg"`
	ContentType string    `json:"cty"`
	Critical    []string  `json:"crit"`
	Scheme      string    `json:"io.cncf.notary.signingScheme"`
	Expiry      time.Time `json:"io.cncf.notary.expiry"`
}

const (
	schemeHeader    = "io.cncf.notary.signingScheme"
	notationScheme  = "notary.x509"
	notationPayload = "application/vnd.cncf.notary.payload.v1+json"
)

// understood are the critical headers that are honoured.
var understood = []string{schemeHeader, "io.cncf.notary.expiry"}

// Notation verifies a signature of notation in a JWS. The certificates have to be valid now: there is no time that another authority confirms.
func (p *Policy) Notation(envelope []byte, digest string, now time.Time) error {
	if p.roots == nil {
		return errors.New("certificates are not trusted here")
	}
	var jws struct {
		Payload   string `json:"payload"`
		Protected string `json:"protected"`
		Signature string `json:"signature"`
		Header    struct {
			Chain [][]byte `json:"x5c"`
		} `json:"header"`
	}
	if err := json.Unmarshal(envelope, &jws); err != nil {
		return fmt.Errorf("it is not a JWS: %w", err)
	}
	var h protected
	if err := part(jws.Protected, &h); err != nil {
		return fmt.Errorf("its protected header is %w", err)
	}
	for _, c := range h.Critical {
		if !slices.Contains(understood, c) {
			return fmt.Errorf("it has a critical header %q, which is not understood", c)
		}
	}
	switch {
	case h.Scheme != notationScheme:
		return fmt.Errorf("its scheme is %q, not %s", h.Scheme, notationScheme)
	case h.ContentType != notationPayload:
		return fmt.Errorf("it is over a %q", h.ContentType)
	case !h.Expiry.IsZero() && !now.Before(h.Expiry):
		return fmt.Errorf("it expired at %s", h.Expiry.UTC().Format(time.RFC3339))
	}
	leaf, err := p.chain(jws.Header.Chain, now)
	if err != nil {
		return err
	}
	raw, err := base64.RawURLEncoding.DecodeString(jws.Signature)
	if err != nil {
		return errors.New("its signature is not base64")
	}
	if err := verifyJWS(leaf.PublicKey, h.Algorithm, []byte(jws.Protected+"."+jws.Payload), raw); err != nil {
		return err
	}
	var payload struct {
		Target struct {
			Digest string `json:"digest"`
		} `json:"targetArtifact"`
	}
	if err := part(jws.Payload, &payload); err != nil {
		return fmt.Errorf("its payload is %w", err)
	}
	if payload.Target.Digest != digest {
		return errOther
	}
	return nil
}

// part reads JSON in base64.
func part(text string, into any) error {
	plain, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return errors.New("not base64")
	}
	if err := json.Unmarshal(plain, into); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	return nil
}

// maxChain is longer than chains are.
const maxChain = 10

// chain verifies the certificates, the signer's first, and gives that.
func (p *Policy) chain(raw [][]byte, now time.Time) (*x509.Certificate, error) {
	if len(raw) == 0 || len(raw) > maxChain {
		return nil, fmt.Errorf("it comes with %d certificates", len(raw))
	}
	between := x509.NewCertPool()
	var leaf *x509.Certificate
	for i, der := range raw {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("its certificates: %w", err)
		}
		if i == 0 {
			leaf = c
			continue
		}
		between.AddCert(c)
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return nil, errors.New("its certificate is not for signatures")
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	if len(leaf.ExtKeyUsage) == 0 { // it may be left out
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: p.roots, Intermediates: between, CurrentTime: now, KeyUsages: usages}); err != nil {
		return nil, fmt.Errorf("its certificate is not trusted: %w", err)
	}
	return leaf, nil
}

// algorithmOf is the algorithm that the Notary Project has for a key ("Signature Algorithms"); empty: none.
func algorithmOf(key crypto.PublicKey) (name string, hash crypto.Hash) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		switch key.Size() * 8 {
		case 2048:
			return "PS256", crypto.SHA256
		case 3072:
			return "PS384", crypto.SHA384
		case 4096:
			return "PS512", crypto.SHA512
		}
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return "ES256", crypto.SHA256
		case 384:
			return "ES384", crypto.SHA384
		case 521:
			return "ES512", crypto.SHA512
		}
	}
	return "", 0
}

// verifyJWS wants the one algorithm that is its key's.
func verifyJWS(key crypto.PublicKey, algorithm string, message, signature []byte) error {
	want, hash := algorithmOf(key)
	if want == "" || algorithm != want {
		return fmt.Errorf("its algorithm %q is not the one for its key", algorithm)
	}
	h := hash.New()
	h.Write(message)
	sum := h.Sum(nil)
	ok := false
	switch key := key.(type) {
	case *rsa.PublicKey:
		ok = rsa.VerifyPSS(key, hash, sum, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case *ecdsa.PublicKey:
		size := (key.Curve.Params().BitSize + 7) / 8
		if len(signature) == 2*size {
			ok = ecdsa.Verify(key, sum, new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:]))
		}
	}
	if !ok {
		return errors.New("its signature is not right")
	}
	return nil
}
