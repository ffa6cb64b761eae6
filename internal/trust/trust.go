// Package trust is how the processes of a cluster know one another: the cluster's certificate authority, the exchange by which a
// host joins with a token, certificates and their renewal, and the peer port on which all of that and everything else between
// servers and agents is spoken.
//
// A host's identity is a role and an id, written into its certificate as a URI. An agent's id is the fingerprint of its key: a
// token admits a host, it never lets one pass for another. docs/design/trust.md tells why it is built so.
//
// Invariants:
//
//  1. A private key never leaves the directory it was made in; files that hold one are 0600.
//  2. A token goes over no wire. Both sides prove that they know it, for one TLS session and one pair of messages.
//  3. Who has no certificate of the cluster can only join; every other protocol of the peer port asks for one.
//  4. What a peer is allowed to do follows from its certificate, never from what it says.
//
// It does not decide what an identity may do: that is with those who serve a protocol (AuthorizeNode helps them).
package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Role is what a host does in the cluster.
type Role string

// The roles that there are certificates for.
const (
	Server Role = "server"
	Agent  Role = "agent"
)

// Identity is who a certificate speaks for.
type Identity struct {
	Role Role
	ID   string
}

// uriPrefix begins the URI that holds an identity, in SPIFFE's form. Which cluster it belongs to follows from the authority.
const uriPrefix = "spiffe://neargate/"

func (i Identity) String() string { return string(i.Role) + " " + i.ID }

func (i Identity) uri() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: "neargate", Path: "/" + string(i.Role) + "/" + i.ID}
}

// identityOf reads the identity in a certificate whose chain has been checked.
func identityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, errors.New("the certificate names no host of a cluster")
	}
	rest, ok := strings.CutPrefix(cert.URIs[0].String(), uriPrefix)
	role, id, two := strings.Cut(rest, "/")
	if !ok || !two || id == "" || strings.Contains(id, "/") {
		return Identity{}, fmt.Errorf("the certificate speaks for %q, which is no host of a cluster", cert.URIs[0])
	}
	switch Role(role) {
	case Server, Agent:
		return Identity{Role(role), id}, nil
	}
	return Identity{}, fmt.Errorf("the certificate is of a %q, a role unknown to this version", role)
}

// KeyID is the fingerprint of a public key: 32 hexadecimal digits.
func KeyID(key crypto.PublicKey) (string, error) {
	pub, ok := key.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return "", errors.New("keys of hosts are ECDSA keys on P-256")
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:16]), nil
}

// verify checks the certificate that the other side of a connection has shown and says whose it is. Host names play no part:
// hosts are dialled by whatever address leads to them. What a certificate says of who has signed it holds from here on (Cut goes by it).
func verify(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, errors.New("no certificate was shown")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	found, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return Identity{}, errors.New("the certificate is not of this cluster")
	case err != nil:
		return Identity{}, err
	case !slices.ContainsFunc(found, func(to []*x509.Certificate) bool {
		return bytes.Equal(to[len(to)-1].SubjectKeyId, chain[0].AuthorityKeyId)
	}):
		return Identity{}, errors.New("the certificate says that another than its authority has signed it")
	}
	return identityOf(chain[0])
}
