package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// Formation is how several servers that have nothing but the bootstrap secret become one cluster. Each asks all the others who they
// are. The one with the lowest id, once it has found as many as are expected and each of them has found the same ones, founds the
// cluster: from then on it is decided. The others ask on until somebody hands them the founding.
//
// Invariants: a server takes part in one founding in its life, kept before anything follows from it. Who is handed a founding is
// named in it, by id and key. So two foundings cannot both have a majority of their members.
type Formation struct {
	Keys     string            // the folder of keys
	ID       string            // of this server
	Address  string            // at which the others reach it, unless Join has a better word
	Expect   int               // number of servers
	Join     []string          // their peer addresses; this server's may be among them
	Secret   *Secret           // the bootstrap secret
	Settings map[string]string // flags that have to be the same on all servers, by name; secrets by Secret.Digest
	Sealing  []byte            // the sealing key, if this server is the one to found
	Root     []byte            // so with the root credentials' file; empty: they come from the environment
	Clock    clock.Clock
	Log      *slog.Logger
}

// forming is a Formation under way.
type forming struct {
	Formation
	run string // of this process: two of one id are two copies of a data directory
	key *ecdsa.PrivateKey

	mu   sync.Mutex
	seen []string // ids found in the last round, sorted
}

// ErrFormed: the cluster was formed without this server, or with another key of its. Trying again changes nothing.
var ErrFormed = errors.New("the cluster has been formed already, without this server: to add it, give it a token of `neargate operator token` as --join-token; " +
	"to form a new cluster instead, empty the data directories of all its servers")

const (
	formationRound = 250 * time.Millisecond
	formationDial  = 2 * time.Second // a host that is off does not answer at all
)

// Run forms the cluster, or takes its place in one that is being formed, and returns its founding; founder says that it was this server
// that founded it. It speaks on l, which it leaves open, and tries until ctx ends.
func (c Formation) Run(ctx context.Context, l *net.TCPListener) (_ *Founding, founder bool, err error) {
	f := &forming{Formation: c}
	if f.key, err = hostKey(f.Keys); err != nil {
		return nil, false, fmt.Errorf("key of this host: %w", err)
	}
	var run [8]byte
	rand.Read(run[:]) // never fails
	f.run = hex.EncodeToString(run[:])
	stranger, err := f.stranger()
	if err != nil {
		return nil, false, err
	}
	port := NewPort(stranger, f.Log)
	hearth := &hearth{secret: f.Secret, clock: f.Clock, log: f.Log, greet: f.greeting, listener: port.handleShown(protocolForm)}
	ctx, cancel := context.WithCancel(ctx)
	var served sync.WaitGroup
	served.Go(func() { _ = hearth.run(ctx) }) // ends with its listener
	served.Go(func() {
		if err := port.Serve(ctx, borrowed{l}); err != nil {
			f.Log.Error("forming the cluster", "error", err)
		}
	})
	defer func() {
		cancel()
		served.Wait()
		_ = l.SetDeadline(time.Time{}) // that of borrowed
	}()
	return f.rounds(ctx)
}

// borrowed is a listener that is open still when it has been closed.
type borrowed struct{ *net.TCPListener }

func (b borrowed) Close() error { return b.SetDeadline(time.Unix(1, 0)) }

// stranger is what a server shows before there is an authority: a certificate of its own key, which proves that key and nothing else.
func (f *forming) stranger() (*Credential, error) {
	t := &x509.Certificate{SerialNumber: serial(), NotBefore: f.Clock.Now().Add(-clockSkew), NotAfter: f.Clock.Now().Add(authorityLife)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &f.key.PublicKey, f.key)
	if err != nil {
		return nil, fmt.Errorf("certificate for forming the cluster: %w", err)
	}
	p, err := newPapers(f.key, der, nil)
	if err != nil {
		return nil, err
	}
	return newCredential(f.Clock, f.Log, p), nil
}

func (f *forming) greeting() greeting {
	f.mu.Lock()
	defer f.mu.Unlock()
	return greeting{ID: f.ID, Run: f.run, Expect: f.Expect, Settings: f.Settings, Seen: f.seen}
}

func (f *forming) rounds(ctx context.Context) (*Founding, bool, error) {
	said, began := "", f.Clock.Now()
	for {
		found := f.ask(ctx)
		for _, a := range found {
			if a.reply.Founding != nil {
				return f.accept(a)
			}
		}
		ready, trouble := f.judge(found)
		switch {
		case errors.Is(trouble, ErrFormed):
			return nil, false, trouble
		case ready:
			return f.found(found)
		case trouble != nil && trouble.Error() != said && f.Clock.Now().Sub(began) > formationRound:
			said = trouble.Error()
			f.Log.Warn("the cluster is not formed yet; trying on", "reason", said)
		}
		select {
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-f.Clock.After(formationRound):
		}
	}
}

// asked is what came of asking one address.
type asked struct {
	address string
	reply   reply
	key     string // KeyID of who replied
	err     error
}

// ask asks all at once and waits for all.
func (f *forming) ask(ctx context.Context) []asked {
	found := make([]asked, len(f.Join))
	var g sync.WaitGroup
	for i, address := range f.Join {
		g.Go(func() {
			found[i] = f.askOne(ctx, address)
			found[i].address = address
		})
	}
	g.Wait()
	return found
}

func (f *forming) askOne(ctx context.Context, address string) (a asked) {
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{protocolForm}}
	stranger, err := f.stranger()
	if err != nil {
		return asked{err: err}
	}
	config.Certificates = []tls.Certificate{stranger.papers.certificate}
	limit, cancel := context.WithTimeout(ctx, formationDial)
	defer cancel()
	conn, err := dial(limit, address, config)
	if err != nil {
		return asked{err: err}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(exchangeTimeout))
	if a.err = a.reply.exchange(conn, f.Secret, f.greeting()); a.err == nil {
		a.key, a.err = KeyID(conn.ConnectionState().PeerCertificates[0].PublicKey)
	}
	return a
}

// judge looks at what a round has found. Ready: it is for this server to found the cluster, with those. Otherwise trouble says what is
// in the way; nil: only somebody else's turn.
func (f *forming) judge(found []asked) (ready bool, trouble error) {
	var troubles []string
	say := func(format string, args ...any) { troubles = append(troubles, fmt.Sprintf(format, args...)) }
	at := map[string]asked{}
	for _, a := range found {
		g := a.reply.greeting
		switch before, twice := at[g.ID]; {
		case a.err != nil:
			say("server %s: %v", a.address, a.err)
			continue
		case a.reply.Formed:
			return false, fmt.Errorf("server %s: %w", a.address, ErrFormed)
		case g.ID == f.ID && g.Run == f.run:
			continue
		case g.ID == f.ID, twice && before.reply.Run != g.Run:
			say("server %s has the same data directory as another one (id %s): a data directory must not be copied; empty one of the two", a.address, g.ID)
		case g.Expect != f.Expect:
			say("server %s has --bootstrap-expect %d and this one %d: start all with the same", a.address, g.Expect, f.Expect)
		case !maps.Equal(g.Settings, f.Settings):
			say("server %s differs from this one in %s: start all with the same", a.address, strings.Join(differing(g.Settings, f.Settings), ", "))
		}
		if _, twice := at[g.ID]; !twice {
			at[g.ID] = a
		}
	}
	delete(at, f.ID)
	seen := append(slices.Collect(maps.Keys(at)), f.ID)
	slices.Sort(seen)
	f.mu.Lock()
	f.seen = seen
	f.mu.Unlock()
	switch {
	case len(seen) > f.Expect:
		say("there are %d servers, and --bootstrap-expect is %d", len(seen), f.Expect)
	case len(seen) < f.Expect:
		say("%d of %d servers are there", len(seen), f.Expect)
	}
	if len(troubles) > 0 {
		return false, errors.New(strings.Join(troubles, "; "))
	}
	for _, a := range at {
		if !slices.Equal(a.reply.Seen, seen) {
			return false, nil // it has not found all of us yet
		}
	}
	return seen[0] == f.ID, nil
}

// differing are the names of the settings that are not the same.
func differing(a, b map[string]string) []string {
	var names []string
	for _, m := range []map[string]string{a, b} {
		for name := range m {
			if a[name] != b[name] && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// found makes the cluster of this server and those found.
func (f *forming) found(others []asked) (*Founding, bool, error) {
	authority, err := found(f.Clock.Now())
	if err != nil {
		return nil, false, fmt.Errorf("certificate authority: %w", err)
	}
	key, err := KeyID(&f.key.PublicKey)
	if err != nil {
		return nil, false, err
	}
	c := &Founding{Authority: authority, Sealing: f.Sealing, Root: f.Root, Secret: f.Secret.key, Members: []Founder{{f.ID, f.Address, key}}}
	for _, a := range others {
		switch m := c.member(a.reply.ID); {
		case m == nil:
			c.Members = append(c.Members, Founder{a.reply.ID, a.address, a.key})
		case m.ID == f.ID:
			m.Address = a.address // by which it is known to whoever wrote --join
		}
	}
	slices.SortFunc(c.Members, func(a, b Founder) int { return strings.Compare(a.ID, b.ID) })
	return c, true, c.keep(f.Keys)
}

// accept takes the founding that another server has handed over.
func (f *forming) accept(a asked) (*Founding, bool, error) {
	c := a.reply.Founding
	key, err := KeyID(&f.key.PublicKey)
	if err == nil {
		err = c.check()
	}
	if m := c.member(f.ID); err == nil && (m == nil || m.Key != key) {
		err = ErrFormed
	}
	if err != nil {
		return nil, false, fmt.Errorf("server %s: what the cluster was founded with: %w", a.address, err)
	}
	return c, false, c.keep(f.Keys)
}
