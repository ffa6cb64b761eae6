package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datadir"
)

// How long certificates live. A host renews at half time; one that was off for longer needs the token again.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	hostLife      = 7 * 24 * time.Hour
	clockSkew     = 24 * time.Hour // by which hosts' clocks may lag behind, or the clock of who certifies may run ahead
)

// Authority signs the cluster's certificates. While it is exchanged for another it is two in one (rotation.go). Safe for concurrent use.
type Authority struct {
	keys  string // the folder
	clock clock.Clock

	taking sync.Mutex // held by Prepare and Take, over their I/O

	mu   sync.RWMutex
	ring ring
	own  []*Credential // that it has made for this server
	// changed is closed with the next Take.
	changed chan struct{}
}

// The files of an authority in the folder of keys. The first holds its certificate and key, so that the two are always of one
// kind; the second the certificate alone, for people to hand to clients. While there are two, both files have both, the older one first.
const (
	authorityFile       = "authority.pem"
	authorityPublicFile = "ca.pem"
)

// OpenAuthority reads the authority kept in a folder of keys, or founds one where there is none.
func OpenAuthority(keys string, c clock.Clock) (*Authority, error) {
	name := filepath.Join(keys, authorityFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = found(c.Now()); err == nil {
			err = datadir.WriteFile(name, text)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	r, err := parseRing(text)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %s: %w", name, err)
	}
	a := &Authority{keys: keys, clock: c, ring: r, changed: make(chan struct{})}
	if err := errors.Join(a.settle(r, text), a.discard(r)); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return a, nil
}

// HasAuthority says whether a folder of keys holds an authority: its server belongs to a cluster.
func HasAuthority(keys string) bool {
	_, err := os.Stat(filepath.Join(keys, authorityFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// found makes a new authority, as its file has it.
func found(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := KeyID(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{"Neargate"}, CommonName: "Neargate cluster " + id[:8]},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	secret, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return append(encodeCertificates(der), secret...), nil
}

// PEM is what clients of the public port need to trust it: the authority's certificate, or those of both.
func (a *Authority) PEM() []byte { return encodeCertificates(a.certificates()...) }

// PublicFile is where OpenAuthority leaves what PEM returns.
func (a *Authority) PublicFile(keys string) string { return filepath.Join(keys, authorityPublicFile) }

// issueHost signs the certificate by which a host is known on the peer port.
func (a *Authority) issueHost(by issuer, pub crypto.PublicKey, who Identity) ([]byte, error) {
	return a.issue(by, pub, &x509.Certificate{
		Subject: pkix.Name{Organization: []string{"Neargate"}, OrganizationalUnit: []string{string(who.Role)}, CommonName: who.ID},
		URIs:    []*url.URL{who.uri()}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
}

// issuePublic signs the certificate of the public port. It speaks for names, not for a host: it is worth nothing on the peer port.
func (a *Authority) issuePublic(by issuer, pub crypto.PublicKey, names []string) ([]byte, error) {
	t := &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"Neargate"}, CommonName: "Neargate public port"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	return a.issue(by, pub, t)
}

func (a *Authority) issue(by issuer, pub crypto.PublicKey, t *x509.Certificate) ([]byte, error) {
	now := a.clock.Now()
	t.SerialNumber, t.NotBefore, t.NotAfter = serial(), now.Add(-clockSkew), now.Add(hostLife)
	t.KeyUsage, t.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	if t.NotAfter.After(by.cert.NotAfter) {
		t.NotAfter = by.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, by.cert, pub, by.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return der, nil
}

// serial is 127 random bits: RFC 5280 wants them positive and at most 20 octets.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// EncodeCertificate is a certificate in PEM.
func EncodeCertificate(der []byte) []byte { return encodeCertificates(der) }

func encodeCertificates(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// parse reads the certificates of a PEM file and its key, if it has one.
func parse(text []byte) (certs []*x509.Certificate, key *ecdsa.PrivateKey, err error) {
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			return certs, key, nil
		}
		switch block.Type {
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, err
			}
			certs = append(certs, c)
		case "PRIVATE KEY":
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, err
			}
			var ok bool
			if key, ok = k.(*ecdsa.PrivateKey); !ok {
				return nil, nil, fmt.Errorf("a key of type %T", k)
			}
		}
	}
}
