package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed-2f228079/neargate/internal/datadir"
)

// Phase is how far the exchange of an authority for a new one has come. Servers go from one to the next together, or one after the other: what a
// server does in a phase is understood by those that are in the one before or after.
type Phase string

const (
	// Steady: there is one authority, and no exchange under way.
	Steady Phase = ""
	// Spreading: servers get the new authority, and trust both. The old one signs.
	Spreading Phase = "spreading"
	// Issuing: the new one signs the certificates of hosts, which are given both to trust. Servers still show certificates of the old one, which all
	// hosts trust, also those that have been away.
	Issuing Phase = "issuing"
	// Switching: servers show certificates of the new one, on the public port too.
	Switching Phase = "switching"
	// Forgetting: no server has or trusts the old one any more. Hosts are given the new one alone.
	Forgetting Phase = "forgetting"
)

// both says whether the phase is one with two authorities.
func (p Phase) both() bool { return p == Spreading || p == Issuing || p == Switching }

// Ring is what servers agree upon: which authorities there are, the oldest first, and what for. A later generation takes the place of an earlier one.
type Ring struct {
	Generation  uint64
	Phase       Phase
	Authorities [][]byte // certificates, DER
}

// IDs names the authorities.
func (r Ring) IDs() []string {
	var ids []string
	for _, der := range r.Authorities {
		if cert, err := x509.ParseCertificate(der); err == nil {
			ids = append(ids, AuthorityID(cert))
		}
	}
	return ids
}

// check refuses what no server may take.
func (r Ring) check() error {
	want := 1
	switch {
	case r.Phase.both():
		want = 2
	case r.Phase != Steady && r.Phase != Forgetting:
		return fmt.Errorf("a phase %q, which this build does not know", r.Phase)
	}
	if len(r.IDs()) != want || len(r.Authorities) != want {
		return fmt.Errorf("%d authorities in phase %q, want %d", len(r.Authorities), r.Phase, want)
	}
	return nil
}

// AuthorityID names an authority: its key's identifier, which certificates name as their issuer's.
func AuthorityID(cert *x509.Certificate) string { return hex.EncodeToString(cert.SubjectKeyId) }

// issuer is an authority with its key.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (i issuer) pem() ([]byte, error) {
	secret, err := encodeKey(i.key)
	if err != nil {
		return nil, err
	}
	return append(encodeCertificates(i.cert.Raw), secret...), nil
}

// ring is a Ring with the keys.
type ring struct {
	generation uint64
	phase      Phase
	issuers    []issuer // never empty
}

// signs is the authority that certifies agents; shows the one of whom servers have certificates.
func (r ring) signs() issuer {
	if r.phase == Spreading {
		return r.issuers[0]
	}
	return r.issuers[len(r.issuers)-1]
}

func (r ring) shows() issuer {
	if r.phase == Spreading || r.phase == Issuing {
		return r.issuers[0]
	}
	return r.issuers[len(r.issuers)-1]
}

func (r ring) trusted() []*x509.Certificate {
	var all []*x509.Certificate
	for _, i := range r.issuers {
		all = append(all, i.cert)
	}
	return all
}

func (r ring) public() Ring {
	p := Ring{Generation: r.generation, Phase: r.phase}
	for _, i := range r.issuers {
		p.Authorities = append(p.Authorities, i.cert.Raw)
	}
	return p
}

func (r ring) find(id string) (issuer, bool) {
	for _, i := range r.issuers {
		if AuthorityID(i.cert) == id {
			return i, true
		}
	}
	return issuer{}, false
}

// ringBlock begins a file of authorities that has seen an exchange: what it says stands in its headers. A file without it is of generation 0.
const ringBlock = "NEARGATE AUTHORITIES"

func (r ring) encode() ([]byte, error) {
	text := pem.EncodeToMemory(&pem.Block{Type: ringBlock, Headers: map[string]string{"Generation": strconv.FormatUint(r.generation, 10), "Phase": string(r.phase)}})
	for _, i := range r.issuers {
		one, err := i.pem()
		if err != nil {
			return nil, err
		}
		text = append(text, one...)
	}
	return text, nil
}

// parseRing reads a file of authorities.
func parseRing(text []byte) (ring, error) {
	var r ring
	whole := errors.New("it holds no authority's certificate with its key")
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		switch block.Type {
		case ringBlock:
			n, err := strconv.ParseUint(block.Headers["Generation"], 10, 64)
			if err != nil {
				return ring{}, fmt.Errorf("its generation: %w", err)
			}
			r.generation, r.phase = n, Phase(block.Headers["Phase"])
		default:
			certs, key, err := parse(pem.EncodeToMemory(block))
			if err != nil {
				return ring{}, err
			}
			switch last := len(r.issuers) - 1; {
			case len(certs) == 1 && certs[0].IsCA && (last < 0 || r.issuers[last].key != nil):
				r.issuers = append(r.issuers, issuer{cert: certs[0]})
			case key != nil && last >= 0 && r.issuers[last].key == nil && key.PublicKey.Equal(r.issuers[last].cert.PublicKey):
				r.issuers[last].key = key
			default:
				return ring{}, whole
			}
		}
	}
	if len(r.issuers) == 0 || r.issuers[len(r.issuers)-1].key == nil {
		return ring{}, whole
	}
	if err := r.public().check(); err != nil {
		return ring{}, err
	}
	return r, nil
}

// Ring is what this server has taken last, and a channel that is closed when it takes another.
func (a *Authority) Ring() (Ring, <-chan struct{}) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.ring.public(), a.changed
}

// Wanted are the papers that hosts should have by now.
func (a *Authority) Wanted() (Papers, <-chan struct{}) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return Papers{Issuer: AuthorityID(a.ring.signs().cert), Authorities: a.ring.public().IDs()}, a.changed
}

func (a *Authority) certificates() [][]byte {
	r, _ := a.Ring()
	return r.Authorities
}

// certify gives a host its certificate and whom to trust, of one moment.
func (a *Authority) certify(key crypto.PublicKey, who Identity) (der []byte, authorities [][]byte, err error) {
	a.mu.RLock()
	by, authorities := a.ring.signs(), a.ring.public().Authorities
	a.mu.RUnlock()
	der, err = a.issueHost(by, key, who)
	return der, authorities, err
}

// nextFiles hold the authorities that this server has made, by their ids, until servers have agreed upon one. What is asked for twice must not overwrite
// the first, which may be agreed upon yet.
const nextFiles = "authority-next-"

func (a *Authority) nextFile(id string) string { return filepath.Join(a.keys, nextFiles+id+".pem") }

// Prepare makes a new authority, kept beside the one that there is, and is its certificate. Nothing follows from it before Take.
func (a *Authority) Prepare() ([]byte, error) {
	a.taking.Lock()
	defer a.taking.Unlock()
	text, err := found(a.clock.Now())
	if err != nil {
		return nil, fmt.Errorf("new certificate authority: %w", err)
	}
	r, err := parseRing(text)
	if err != nil {
		return nil, fmt.Errorf("new certificate authority: %w", err)
	}
	cert := r.issuers[0].cert
	if err := datadir.WriteFile(a.nextFile(AuthorityID(cert)), text); err != nil {
		return nil, fmt.Errorf("new certificate authority: %w", err)
	}
	return cert.Raw, nil
}

// held finds an authority among those that this server has, taken or only prepared.
func (a *Authority) held(id string) (issuer, bool) {
	a.mu.RLock()
	i, ok := a.ring.find(id)
	a.mu.RUnlock()
	if _, err := hex.DecodeString(id); ok || err != nil || id == "" { // it comes from other servers
		return i, ok
	}
	text, err := os.ReadFile(a.nextFile(id))
	if err != nil {
		return issuer{}, false
	}
	next, err := parseRing(text)
	if err != nil {
		return issuer{}, false
	}
	return next.find(id)
}

// Missing are those of a ring's authorities that this server does not have.
func (a *Authority) Missing(r Ring) []string {
	var ids []string
	for _, id := range r.IDs() {
		if _, ok := a.held(id); !ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// Take puts a ring in the place of what this server has, if it is of a later generation; handed are those that it was missing, as other servers' Hand has made them. It is on the
// disk, and in this server's own certificates, before Ring tells of it, for by that the other servers go on. What fails leaves in force what was, and may be tried again.
func (a *Authority) Take(r Ring, handed ...[]byte) error {
	a.taking.Lock()
	defer a.taking.Unlock()
	if now, _ := a.Ring(); r.Generation <= now.Generation {
		return nil
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("take authorities: %w", err)
	}
	received, err := a.receive(handed)
	if err != nil {
		return fmt.Errorf("take authorities: %w", err)
	}
	next := ring{generation: r.Generation, phase: r.Phase}
	for i, id := range r.IDs() {
		one, ok := a.held(id)
		if !ok {
			one, ok = ring{issuers: received}.find(id)
		}
		if !ok || !bytes.Equal(one.cert.Raw, r.Authorities[i]) {
			return fmt.Errorf("take authorities: the key of %s is not here", id)
		}
		next.issuers = append(next.issuers, one)
	}
	text, err := next.encode()
	if err != nil {
		return fmt.Errorf("take authorities: %w", err)
	}
	if err := datadir.WriteFile(filepath.Join(a.keys, authorityFile), text); err != nil {
		return fmt.Errorf("take authorities: %w", err)
	}
	if err := a.settle(next, text); err != nil {
		return fmt.Errorf("take authorities: %w", err)
	}
	a.mu.RLock()
	own := a.own // grows while taking is held
	a.mu.RUnlock()
	made := make([]papers, len(own))
	for i, c := range own {
		if made[i], err = c.under(next); err != nil {
			return fmt.Errorf("take authorities: %w", err)
		}
	}
	for i, c := range own {
		c.set(made[i])
	}
	a.mu.Lock()
	a.ring = next
	close(a.changed)
	a.changed = make(chan struct{})
	a.mu.Unlock()
	if err := a.discard(next); err != nil {
		return fmt.Errorf("authorities were taken, but: %w", err)
	}
	return nil
}

// settle has the other files follow that of the authorities, which holds text: at every start too, for a crash may have come between.
func (a *Authority) settle(r ring, text []byte) error {
	if err := datadir.WriteFile(filepath.Join(a.keys, authorityPublicFile), encodeCertificates(r.public().Authorities...)); err != nil {
		return err
	}
	founding, err := os.ReadFile(filepath.Join(a.keys, foundingFile))
	if err == nil {
		f := &Founding{}
		if err = json.Unmarshal(founding, f); err == nil {
			err = f.follow(a.keys, text)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// discard removes what was prepared and not agreed upon: it can be no more, once something else is. Between exchanges it may be.
func (a *Authority) discard(r ring) error {
	prepared, err := filepath.Glob(filepath.Join(a.keys, nextFiles+"*.pem"))
	if err != nil {
		return err
	}
	for _, name := range prepared {
		id := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), nextFiles), ".pem")
		if _, taken := r.find(id); taken || r.phase.both() {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
