package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"
)

func pemOf(kind string, parts ...[]byte) (text []byte) {
	for _, der := range parts {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return text
}

func private(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("PRIVATE KEY", der)
}

func curve(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// What a Signer signs with any key is verified, for as long as its certificate is valid.
func TestSigner(t *testing.T) {
	root := (&authority{t: t}).issue(curve(t, elliptic.P256()), isCA)
	p, err := New(nil, pemOf("CERTIFICATE", root.cert.Raw))
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{
		"RSA": keys(t)["RSA"], "RSA-3072": small, "P-256": curve(t, elliptic.P256()), "P-384": curve(t, elliptic.P384()), "P-521": curve(t, elliptic.P521()),
	} {
		t.Run(name, func(t *testing.T) {
			leaf := root.issue(key, func(*x509.Certificate) {})
			s, err := NewSigner(private(t, key), pemOf("CERTIFICATE", leaf.cert.Raw, root.cert.Raw))
			if err != nil {
				t.Fatal(err)
			}
			envelope, err := s.Notation(Target{"application/vnd.oci.image.manifest.v1+json", image, 7}, now)
			if err != nil {
				t.Fatal(err)
			}
			wantError(t, p.Notation(envelope, image, now), "")
			wantError(t, p.Notation(envelope, another, now), "another image")
			_, err = s.Notation(Target{"", image, 7}, now.Add(2*time.Hour))
			wantError(t, err, "is valid from")
		})
	}
}

func TestNewSigner(t *testing.T) {
	key := curve(t, elliptic.P256())
	root := (&authority{t: t}).issue(key, isCA)
	leaf := root.issue(key, func(*x509.Certificate) {}).cert.Raw
	other := curve(t, elliptic.P224())
	for name, c := range map[string]struct {
		key, chain []byte
		want       string
	}{
		"nothing":              {nil, nil, "not a PRIVATE KEY"},
		"damaged":              {pemOf("PRIVATE KEY", []byte("x")), nil, "the key: "},
		"no certificate":       {private(t, key), nil, "there are 0 certificates"},
		"a damaged one":        {private(t, key), pemOf("CERTIFICATE", []byte("x")), "a certificate: "},
		"another's":            {private(t, curve(t, elliptic.P256())), pemOf("CERTIFICATE", leaf), "not the key's"},
		"an authority's":       {private(t, key), pemOf("CERTIFICATE", root.cert.Raw), "not for signatures"},
		"a curve without name": {private(t, other), pemOf("CERTIFICATE", root.issue(other, func(*x509.Certificate) {}).cert.Raw), "is not of 2048"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewSigner(c.key, c.chain)
			wantError(t, err, c.want)
		})
	}
}
