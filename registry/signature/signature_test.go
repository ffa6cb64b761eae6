package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	image   = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	another = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

func public(t *testing.T, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func sign(t *testing.T, key crypto.Signer, message []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(message)
	hashed, opts := sum[:], crypto.SignerOpts(crypto.SHA256)
	if _, ok := key.(ed25519.PrivateKey); ok {
		hashed, opts = message, crypto.Hash(0)
	}
	s, err := key.Sign(rand.Reader, hashed, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	made := map[string]crypto.Signer{}
	var err error
	if made["ECDSA"], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if made["RSA"], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if _, made["Ed25519"], err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	return made
}

func simple(kind, digest string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"a"},"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, digest, kind)
}

func bundle(t *testing.T, key crypto.Signer, predicate, digest string) []byte {
	t.Helper()
	statement := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`, strings.TrimPrefix(digest, "sha256:"), predicate)
	message := append(fmt.Appendf(nil, "DSSEv1 28 application/vnd.in-toto+json %d ", len(statement)), statement...)
	text, err := json.Marshal(map[string]any{"mediaType": Bundle, "dsseEnvelope": map[string]any{"payload": statement, "payloadType": "application/vnd.in-toto+json",
		"signatures": []any{map[string]any{"sig": sign(t, key, message)}}}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestCosign(t *testing.T) {
	all, stranger := keys(t), keys(t)
	var trusted []byte
	for _, k := range all {
		trusted = append(trusted, public(t, k.Public())...)
	}
	p, err := New(trusted, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range all {
		t.Run(name, func(t *testing.T) {
			signed := func(k crypto.Signer, payload []byte) string {
				return base64.StdEncoding.EncodeToString(sign(t, k, payload))
			}
			good := simple("cosign container image signature", image)
			wantError(t, p.Cosign(good, signed(k, good), image), "")
			wantError(t, p.Cosign(good, signed(k, good), another), "another image")
			wantError(t, p.Cosign(simple("cosign container image signature", another), signed(k, good), another), "not trusted")
			wantError(t, p.Cosign(good, signed(stranger[name], good), image), "not trusted")
			wantError(t, p.Cosign(good, "?", image), "base64")
			wantError(t, p.Cosign(good, "", image), "not trusted")
			for _, other := range [][]byte{simple("something else", image), []byte("{}"), []byte("[]")} {
				if p.Cosign(other, signed(k, other), image) == nil {
					t.Errorf("%s is a signature", other)
				}
			}

			wantError(t, p.Bundle(bundle(t, k, signStatement, image), image), "")
			wantError(t, p.Bundle(bundle(t, k, signStatement, image), another), "another image")
			wantError(t, p.Bundle(bundle(t, stranger[name], signStatement, image), image), "not trusted")
			wantError(t, p.Bundle(bundle(t, k, "https://cyclonedx.org/bom", image), image), "https://cyclonedx.org/bom")
			wantError(t, p.Bundle([]byte("{}"), image), "no statement")
			wantError(t, p.Bundle([]byte("x"), image), "not a bundle")
			wantError(t, p.Notation([]byte("{}"), image, time.Now()), "not trusted here")
		})
	}
}

func TestNew(t *testing.T) {
	rsaKey := public(t, keys(t)["RSA"].Public())
	for name, c := range map[string]struct{ keys, roots, want string }{
		"nothing":        {"", "", "neither a key"},
		"not PEM":        {"ssh-rsa AAAA", "", "not PEM"},
		"a private key":  {"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", "", "not a PUBLIC KEY"},
		"damaged":        {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "", "keys: "},
		"something more": {string(rsaKey) + "more", "", "not PEM"},
		"no certificate": {"", string(rsaKey), "no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New([]byte(c.keys), []byte(c.roots))
			wantError(t, err, c.want)
		})
	}
}

// authority issues certificates.
type authority struct {
	t    *testing.T
	key  crypto.Signer
	cert *x509.Certificate
}

var now = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

func (a *authority) issue(key crypto.Signer, change func(*x509.Certificate)) *authority {
	a.t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "signer"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}
	change(template)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return &authority{a.t, key, cert}
}

func isCA(c *x509.Certificate) {
	c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = "root", true, true, x509.KeyUsageCertSign, nil
}

// envelope signs as notation does; change may alter the protected header.
func (a *authority) envelope(digest string, change func(map[string]any), chain ...*x509.Certificate) []byte {
	a.t.Helper()
	header := map[string]any{"cty": "application/vnd.cncf.notary.payload.v1+json", "crit": []string{"io.cncf.notary.signingScheme"},
		"io.cncf.notary.signingScheme": "notary.x509", "io.cncf.notary.signingTime": now.Format(time.RFC3339)}
	var hash crypto.Hash
	switch key := a.key.(type) {
	case *rsa.PrivateKey:
		header["alg"], hash = "PS256", crypto.SHA256
	case *ecdsa.PrivateKey:
		header["alg"], hash = "ES256", crypto.SHA256
		if key.Params().BitSize == 384 {
			header["alg"], hash = "ES384", crypto.SHA384
		}
	}
	if change != nil {
		change(header)
	}
	encode := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			a.t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	head, payload := encode(header), encode(map[string]any{"targetArtifact": map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}})
	sum := sha256.Sum256([]byte(head + "." + payload))
	digestBytes := sum[:]
	if hash == crypto.SHA384 {
		long := sha512.Sum384([]byte(head + "." + payload))
		digestBytes = long[:]
	}
	var raw []byte
	switch key := a.key.(type) {
	case *rsa.PrivateKey:
		var err error
		if raw, err = rsa.SignPSS(rand.Reader, key, hash, digestBytes, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}); err != nil {
			a.t.Fatal(err)
		}
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, digestBytes)
		if err != nil {
			a.t.Fatal(err)
		}
		size := (key.Params().BitSize + 7) / 8
		raw = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	}
	certs := [][]byte{a.cert.Raw}
	for _, c := range chain {
		certs = append(certs, c.Raw)
	}
	text, err := json.Marshal(map[string]any{"payload": payload, "protected": head, "header": map[string]any{"x5c": certs}, "signature": base64.RawURLEncoding.EncodeToString(raw)})
	if err != nil {
		a.t.Fatal(err)
	}
	return text
}

func TestNotation(t *testing.T) {
	made := keys(t)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	none := &authority{t: t}
	root := none.issue(made["ECDSA"], isCA)
	p, err := New(nil, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw}))
	if err != nil {
		t.Fatal(err)
	}
	plain := func(*x509.Certificate) {}
	between := root.issue(p384, func(c *x509.Certificate) { isCA(c); c.Subject.CommonName = "between" })
	for name, signer := range map[string]*authority{"RSA": root.issue(made["RSA"], plain), "P-384": root.issue(p384, plain)} {
		wantError(t, p.Notation(signer.envelope(image, nil, root.cert), image, now), "")
		wantError(t, p.Notation(signer.envelope(image, nil), image, now), "")
		wantError(t, p.Notation(signer.envelope(image, nil), another, now), "another image")
		_ = name
	}
	wantError(t, p.Notation(between.issue(made["RSA"], plain).envelope(image, nil, between.cert, root.cert), image, now), "")
	wantError(t, p.Notation(between.issue(made["RSA"], plain).envelope(image, nil), image, now), "not trusted")

	signer := root.issue(made["RSA"], plain)
	good := signer.envelope(image, nil)
	wantError(t, p.Notation(good, image, now.Add(2*time.Hour)), "not trusted")
	wantError(t, p.Notation(good, image, now.Add(-2*time.Hour)), "not trusted")
	wantError(t, p.Notation([]byte("x"), image, now), "not a JWS")
	wantError(t, p.Notation([]byte("{}"), image, now), "protected header")
	var altered map[string]any
	if err := json.Unmarshal(good, &altered); err != nil {
		t.Fatal(err)
	}
	altered["payload"] = base64.RawURLEncoding.EncodeToString([]byte(`{"targetArtifact":{"digest":"` + another + `"}}`))
	text, err := json.Marshal(altered)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, p.Notation(text, another, now), "not right")
	for want, change := range map[string]func(map[string]any){
		"is not the one for its key": func(h map[string]any) { h["alg"] = "none" },
		"the one for its key":        func(h map[string]any) { h["alg"] = "ES256" },
		"critical header \"x\"":      func(h map[string]any) { h["crit"] = []string{"io.cncf.notary.signingScheme", "x"} },
		"its scheme is":              func(h map[string]any) { h["io.cncf.notary.signingScheme"] = "notary.x509.signingAuthority" },
		"it is over a":               func(h map[string]any) { h["cty"] = "text/plain" },
		"it expired at":              func(h map[string]any) { h["io.cncf.notary.expiry"] = now.Format(time.RFC3339) },
	} {
		wantError(t, p.Notation(signer.envelope(image, change), image, now), want)
	}
	wantError(t, p.Notation(signer.envelope(image, func(h map[string]any) { h["io.cncf.notary.expiry"] = now.Add(time.Second).Format(time.RFC3339) }), image, now), "")

	for want, unfit := range map[string]*authority{
		"authority":          none.issue(made["RSA"], plain),
		"key usage":          root.issue(made["RSA"], func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"not for signatures": root.issue(made["RSA"], func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }),
	} {
		wantError(t, p.Notation(unfit.envelope(image, nil), image, now), want)
	}
}

// What the libraries of cosign and notation made: testdata/README.md says how.
func TestOthers(t *testing.T) {
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	p, err := New(read("cosign.pub"), read("notation.pem"))
	if err != nil {
		t.Fatal(err)
	}
	signed := strings.TrimSpace(string(read("digest")))
	wantError(t, p.Cosign(read("cosign.payload"), strings.TrimSpace(string(read("cosign.signature"))), signed), "")
	wantError(t, p.Bundle(read("cosign.bundle"), signed), "")
	wantError(t, p.Notation(read("notation.jws"), signed, time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)), "")
}

func FuzzSignatures(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		f.Fatal(err)
	}
	p, err := New(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"cosign.payload", "cosign.bundle", "notation.jws"} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "AAAA")
	}
	f.Fuzz(func(t *testing.T, text []byte, signature string) {
		if p.Cosign(text, signature, image) == nil || p.Bundle(text, image) == nil || p.Notation(text, image, now) == nil {
			t.Errorf("%s is a signature", text)
		}
	})
}
