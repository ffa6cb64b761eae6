package trust

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	healthapi "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// turn takes the authority of one server to the next phase.
func turn(t *testing.T, a *Authority) Phase {
	t.Helper()
	r, _ := a.Ring()
	r.Generation++
	switch r.Phase {
	case Steady:
		next, err := a.Prepare()
		if err != nil {
			t.Fatal(err)
		}
		r.Phase, r.Authorities = Spreading, [][]byte{r.Authorities[0], next}
	case Spreading:
		r.Phase = Issuing
	case Issuing:
		r.Phase = Switching
	case Switching:
		r.Phase, r.Authorities = Forgetting, r.Authorities[1:]
	case Forgetting:
		r.Phase = Steady
	}
	if err := a.Take(r); err != nil {
		t.Fatal(err)
	}
	return r.Phase
}

// A server that crashes anywhere within Take has, at its next start, what was or what is to be, and all of its files agree.
func TestTakeOutlivesACrash(t *testing.T) {
	written := []string{authorityFile, authorityPublicFile, foundingFile} // in this order, and then what was prepared is removed
	files := func(keys string) map[string][]byte {
		all := map[string][]byte{}
		for _, name := range written {
			text, err := os.ReadFile(filepath.Join(keys, name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			all[name] = text
		}
		return all
	}
	keys := t.TempDir()
	text, err := found(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Founding{Authority: text, Sealing: make([]byte, 32), Secret: make([]byte, 32), Members: []Founder{{ID: "a"}}}).keep(keys); err != nil {
		t.Fatal(err)
	}
	a, err := OpenAuthority(keys, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // phases
		before := files(keys)
		if r, _ := a.Ring(); r.Phase == Steady { // Prepare comes first, and leaves its file
			if _, err := a.Prepare(); err != nil {
				t.Fatal(err)
			}
			prepared, err := filepath.Glob(filepath.Join(keys, nextFiles+"*"))
			if err != nil || len(prepared) != 1 {
				t.Fatalf("%v is prepared (%v)", prepared, err)
			}
			written = append(written, filepath.Base(prepared[0]))
			before = files(keys)
			r.Generation, r.Phase = r.Generation+1, Spreading
			next, err := parseRing(before[written[3]])
			if err != nil {
				t.Fatal(err)
			}
			r.Authorities = append(r.Authorities, next.issuers[0].cert.Raw)
			if err := a.Take(r); err != nil {
				t.Fatal(err)
			}
		} else {
			turn(t, a)
		}
		want, _ := a.Ring()
		after := files(keys)
		for crash := range len(written) + 1 {
			dir := t.TempDir()
			for i, name := range written {
				text := before[name]
				if i < crash {
					text = after[name]
				}
				if text != nil {
					if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			f, err := LoadFounding(dir)
			if err != nil {
				t.Fatalf("%s, after %d files: %v", want.Phase, crash, err)
			}
			b, err := OpenAuthority(dir, clock.Real{})
			if err != nil {
				t.Fatalf("%s, after %d files: %v", want.Phase, crash, err)
			}
			got, _ := b.Ring()
			if crash == 0 && got.Generation != want.Generation-1 || crash > 0 && got.Generation != want.Generation {
				t.Errorf("%s, after %d files: generation %d", want.Phase, crash, got.Generation)
			}
			if !bytes.Equal(f.Authority, files(dir)[authorityFile]) {
				t.Errorf("%s, after %d files: the founding has another authority", want.Phase, crash)
			}
			if err := b.Take(want); err != nil { // it is all here
				t.Errorf("%s, after %d files: %v", want.Phase, crash, err)
			}
			for name, text := range files(dir) {
				if !bytes.Equal(text, after[name]) {
					t.Errorf("%s, after %d files: %s differs", want.Phase, crash, name)
				}
			}
		}
	}
	if r, _ := a.Ring(); r.Phase != Steady || r.Generation != 5 {
		t.Errorf("at the end: %+v", r)
	}
}

// The other servers go on once a server says that it has taken a ring: one that could not write all of its files, or shows a certificate of before, has
// not, and tries again.
func TestTakeThatFailedIsTriedAgain(t *testing.T) {
	keys := t.TempDir()
	a, err := OpenAuthority(keys, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.ServerCredential("s", nil)
	if err != nil {
		t.Fatal(err)
	}
	turn(t, a)
	turn(t, a)
	before, changed := a.Ring()
	shown, _ := c.Papers()
	next := before
	next.Generation, next.Phase = next.Generation+1, Switching
	public := filepath.Join(keys, authorityPublicFile)
	if err = os.Remove(public); err == nil {
		err = os.MkdirAll(filepath.Join(public, "in the way"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Take(next); err == nil {
		t.Fatalf("%s was written", public)
	}
	select {
	case <-changed:
		t.Error("it tells of a ring that it has not taken")
	default:
	}
	if now, _ := a.Ring(); now.Generation != before.Generation {
		t.Errorf("it says that it is at generation %d, after %d", now.Generation, before.Generation)
	}
	if now, _ := c.Papers(); now.Issuer != shown.Issuer {
		t.Error("it shows a certificate by what it has not taken")
	}
	if err := os.RemoveAll(public); err != nil {
		t.Fatal(err)
	}
	if err := a.Take(next); err != nil {
		t.Fatal(err)
	}
	now, _ := c.Papers()
	text, err := os.ReadFile(public)
	if err != nil || !bytes.Equal(text, a.PEM()) || now.Issuer != next.IDs()[1] {
		t.Errorf("taken again, it shows a certificate of %s and has the file %s (%v)", now.Issuer, text, err)
	}
}

func TestTakeRefuses(t *testing.T) {
	a, err := OpenAuthority(t.TempDir(), clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenAuthority(t.TempDir(), clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	turn(t, a)
	own, _ := a.Ring()
	other, _ := b.Ring()
	for why, r := range map[string]Ring{
		"is not here":              {Generation: 9, Phase: Spreading, Authorities: [][]byte{own.Authorities[0], other.Authorities[0]}},
		"this build does not know": {Generation: 9, Phase: "waltzing", Authorities: own.Authorities},
		"want 1":                   {Generation: 9, Authorities: own.Authorities},
		"want 2":                   {Generation: 9, Phase: Issuing, Authorities: own.Authorities[1:]},
	} {
		if err := a.Take(r); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	if err := a.Take(Ring{Generation: own.Generation, Authorities: other.Authorities}); err != nil {
		t.Error(err) // an earlier one, or the same: nothing to do
	}
	if now, _ := a.Ring(); now.Generation != own.Generation || len(now.Authorities) != 2 {
		t.Errorf("it was %+v and is %+v", own, now)
	}
	var keys [][]byte
	for _, one := range []*Authority{a, b} {
		key, err := one.HostKey()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	text, err := b.Hand(other.IDs()[0], keys[1])
	if err != nil || text == nil {
		t.Fatal(err)
	}
	if err := a.Take(Ring{Generation: 9, Phase: Steady, Authorities: other.Authorities}, text); err == nil {
		t.Error("what was sealed to another server's key is opened")
	}
	if text, err = b.Hand(other.IDs()[0], keys[0]); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("PRIVATE KEY")) {
		t.Error("it is handed over in clear")
	}
	if err := a.Take(Ring{Generation: 9, Phase: Steady, Authorities: other.Authorities}, text); err != nil {
		t.Error(err)
	}
	if text, err := a.Hand(own.IDs()[0], keys[1]); text != nil || err != nil {
		t.Errorf("what was retired is still handed out (%v)", err)
	}
}

// watch begins a call that lasts, and tells of its end.
func watch(t *testing.T, s *Servers) (ended <-chan error) {
	t.Helper()
	stream, err := healthapi.NewHealthClient(s).Watch(t.Context(), &healthapi.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := stream.Recv()
		done <- err
	}()
	return done
}

// breaksIn says whether who holds a certificate of a is let in.
func breaksIn(t *testing.T, c *cluster, a *Authority) error {
	t.Helper()
	key := newKey(t)
	id, err := KeyID(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := a.issueHost(a.ring.signs(), &key.PublicKey, Identity{Agent, id})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := c.authority.Ring()
	var all []byte
	for _, der := range r.Authorities {
		all = append(all, encodeCertificates(der)...)
	}
	trusted, _, err := parse(all) // he does not mind whom he speaks to
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPapers(key, der, trusted)
	if err != nil {
		t.Fatal(err)
	}
	return call(t, newCredential(c.clock, c.authority.own[0].log, p), c.addr)
}

// A host goes through an exchange of the authority without joining again: what it has begun goes on, what it begins goes by its new certificate,
// and at the end neither it nor the server lets anybody in by the old one.
func TestHostsFollowTheAuthority(t *testing.T) {
	c := startCluster(t, "secret")
	m := c.host(t, "secret")
	cred := mustJoin(t, m)
	m.Secret = nil
	run(t, cred)
	stolenKeys := t.TempDir()
	text, err := os.ReadFile(filepath.Join(c.keys, authorityFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(stolenKeys, authorityFile), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	stolen, err := OpenAuthority(stolenKeys, c.clock)
	if err != nil {
		t.Fatal(err)
	}
	if err := breaksIn(t, c, stolen); err != nil {
		t.Fatalf("the authority does not open the door to begin with: %v", err)
	}
	servers, err := cred.DialServers([]string{c.addr})
	if err != nil {
		t.Fatal(err)
	}
	defer servers.Close()
	first := watch(t, servers)
	renewed := func() {
		t.Helper()
		want, _ := c.authority.Wanted()
		cred.Hasten(want, 0)
		waitFor(t, "the papers that are wanted", func() bool { return cred.has(want) })
	}
	check := func(phase Phase) {
		t.Helper()
		if _, err := healthapi.NewHealthClient(servers).Check(t.Context(), &healthapi.HealthCheckRequest{}); err != nil {
			t.Errorf("%s: a call: %v", phase, err)
		}
		late, err := m.Join(t.Context()) // as a process that begins now
		if err != nil {
			t.Fatalf("%s: %v", phase, err)
		}
		if err := call(t, late, c.addr); err != nil {
			t.Errorf("%s: a process that begins: %v", phase, err)
		}
		other := c.host(t, "secret")
		if err := call(t, mustJoin(t, other), c.addr); err != nil {
			t.Errorf("%s: a host that joins: %v", phase, err)
		}
	}
	for {
		phase := turn(t, c.authority)
		check(phase) // before it renews
		renewed()
		check(phase)
		if phase == Switching {
			select {
			case err := <-first:
				t.Fatalf("what was begun by the old certificate has ended: %v", err)
			default:
			}
		}
		if phase == Forgetting {
			break
		}
	}
	second := watch(t, servers)
	if err := breaksIn(t, c, stolen); err == nil {
		t.Error("the old authority still opens the door")
	}
	if n := c.port.Cut(); n == 0 {
		t.Error("nobody came by the old authority")
	}
	if err := <-first; err == nil {
		t.Error("what came by the old authority goes on")
	}
	select {
	case err := <-second:
		t.Errorf("what came by the new authority was cut: %v", err)
	default:
	}
	if p, _ := cred.Papers(); len(p.Authorities) != 1 {
		t.Errorf("the host trusts %v", p.Authorities)
	}
	// A server that is none, by the old authority.
	posing, err := stolen.ServerCredential("server-1", cred.log)
	if err != nil {
		t.Fatal(err)
	}
	chain := posing.current().certificate.Leaf
	if err := cred.peerTLS([]string{ProtocolGRPC}, Server).VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{chain}}); !refused(err) {
		t.Errorf("the host lets itself be served by the old authority: %v", err)
	}
}

// A host that gets something newer than it was asked to have is content with it: nobody will ask it again.
func TestRenewalThatBringsMore(t *testing.T) {
	c := startCluster(t, "secret")
	cred := mustJoin(t, c.host(t, "secret"))
	turn(t, c.authority)
	turn(t, c.authority)
	want, _ := c.authority.Wanted()
	turn(t, c.authority) // servers show certificates of the new one, which this host does not know
	if err := call(t, cred, c.addr); err == nil {
		t.Fatal("it lets itself be served by whom it does not know")
	}
	turn(t, c.authority)
	cred.Hasten(want, 0)
	run(t, cred) // by the token
	waitFor(t, "new papers", func() bool { p, _ := cred.Papers(); return len(p.Authorities) == 1 && p.Issuer == want.Issuer })
	leaf := cred.current().certificate.Leaf
	for range 3 {
		waitFor(t, "both renewals waiting", func() bool { return c.clock.Waiters() >= 2 })
		c.clock.Advance(renewalLook)
	}
	waitFor(t, "both renewals waiting", func() bool { return c.clock.Waiters() >= 2 })
	if !cred.current().certificate.Leaf.Equal(leaf) {
		t.Error("renewed again and again")
	}
}

// A renewal of a server's own that is under way while the authority is exchanged does not bring the old one back.
func TestServersRenewalWhileTheAuthorityIsExchanged(t *testing.T) {
	a, err := OpenAuthority(t.TempDir(), clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.ServerCredential("s", nil)
	if err != nil {
		t.Fatal(err)
	}
	var renewing sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		renewing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.renewNow(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		turn(t, a)
		want, _ := a.Ring()
		if p, _ := c.Papers(); !slices.Equal(p.Authorities, want.IDs()) {
			t.Errorf("in phase %q this server trusts %v, not %v", want.Phase, p.Authorities, want.IDs())
		}
	}
	close(stop)
	renewing.Wait()
}

// A host that was not waited for comes back by the token as the same node, whether it noticed when it dialled or is started anew.
func TestHostThatWasNotWaitedFor(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		c := startCluster(t, "secret")
		m := c.host(t, "secret")
		cred := mustJoin(t, m)
		for phase := turn(t, c.authority); phase != Forgetting; phase = turn(t, c.authority) {
			if phase == Spreading && fresh { // it knows both, and has a certificate of the old one
				p, err := m.again(t.Context(), cred, mustKey(t, m))
				if err != nil {
					t.Fatal(err)
				}
				cred.set(p)
			}
		}
		if err := call(t, cred, c.addr); err == nil {
			t.Fatal("it is let in")
		}
		if fresh {
			again, err := m.Join(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			cred = again
		}
		id := cred.ID()
		run(t, cred)
		servers, err := cred.DialServers([]string{c.addr})
		if err != nil {
			t.Fatal(err)
		}
		defer servers.Close()
		waitFor(t, "the host is let in again", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := healthapi.NewHealthClient(servers).Check(ctx, &healthapi.HealthCheckRequest{})
			return err == nil
		})
		if cred.ID() != id {
			t.Errorf("the node was %s and is %s", id, cred.ID())
		}
	}
}

// Whoever comes late to a founding is handed what servers hold by then.
func TestFoundingFollowsTheAuthority(t *testing.T) {
	keys := t.TempDir()
	text, err := found(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Founding{Authority: text, Sealing: make([]byte, 32), Secret: make([]byte, 32)}).keep(keys); err != nil {
		t.Fatal(err)
	}
	a, err := OpenAuthority(keys, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		turn(t, a)
		f, err := LoadFounding(keys)
		if err != nil {
			t.Fatal(err)
		}
		gathered, err := Gather(keys, f.Sealing)
		if err != nil {
			t.Fatal(err)
		}
		var kept Founding
		if text, err := os.ReadFile(filepath.Join(keys, foundingFile)); err != nil || json.Unmarshal(text, &kept) != nil {
			t.Fatal(err)
		}
		now, err := os.ReadFile(filepath.Join(keys, authorityFile))
		if err != nil || !bytes.Equal(now, f.Authority) || !bytes.Equal(now, gathered.Authority) || !bytes.Equal(now, kept.Authority) {
			t.Errorf("the founding has another authority (%v)", err)
		}
	}
}
