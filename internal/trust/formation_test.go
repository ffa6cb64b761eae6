package trust

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datadir"
)

// founder is a server that takes part in a formation, perhaps several times.
type founder struct {
	t    *testing.T
	dir  string
	id   string
	l    *net.TCPListener
	log  *lockedBuffer
	form Formation
}

type formed struct {
	founding *Founding
	founder  bool
	err      error
}

// founders are n servers that listen and know one another.
func founders(t *testing.T, n int) []*founder {
	t.Helper()
	var all []*founder
	var addresses []string
	secret := secretOf(t, "the first servers' secret")
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		addresses = append(addresses, l.Addr().String())
		all = append(all, &founder{t: t, dir: t.TempDir(), id: fmt.Sprintf("server-%d", i), l: l.(*net.TCPListener), log: &lockedBuffer{}})
	}
	for _, f := range all {
		f.form = Formation{
			Keys: f.dir, ID: f.id, Address: "not used", Expect: n, Join: addresses, Secret: secret,
			Settings: map[string]string{"--region": "us-east-1"}, Sealing: bytes.Repeat([]byte(f.id[7:]), 32), Root: []byte("AKIA" + f.id + " secret\n"),
			Clock: clock.Real{}, Log: slog.New(slog.NewTextHandler(f.log, nil)),
		}
	}
	return all
}

// start runs the formation as a new process would, and returns its end and what kills it.
func (f *founder) start() (<-chan formed, context.CancelFunc) {
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan formed, 1)
	form := f.form
	var running sync.WaitGroup
	running.Go(func() {
		c, founder, err := form.Run(ctx, f.l)
		done <- formed{c, founder, err}
	})
	f.t.Cleanup(func() { cancel(); running.Wait() })
	return done, func() { cancel(); running.Wait() }
}

// serve answers as a server that has its founding does.
func (f *founder) serve(c *Founding) {
	authority, err := OpenAuthority(f.dir, clock.Real{})
	if err != nil {
		f.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(f.log, nil))
	credential, err := authority.ServerCredential(f.id, log)
	if err != nil {
		f.t.Fatal(err)
	}
	port := NewPort(credential, log)
	hand := NewHearth(port, c, func() (*Founding, error) { return Gather(f.dir, c.Sealing) }, clock.Real{}, log)
	ctx, cancel := context.WithCancel(f.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = port.Serve(ctx, borrowed{f.l}) })
	running.Go(func() { _ = hand(ctx) })
	f.t.Cleanup(func() { cancel(); running.Wait() })
}

func (f *founder) says(what string) {
	f.t.Helper()
	waitFor(f.t, fmt.Sprintf("%q in what %s says", what, f.id), func() bool { return strings.Contains(f.log.String(), what) })
}

func wait(t *testing.T, done <-chan formed) formed {
	t.Helper()
	select {
	case r := <-done:
		return r
	case <-time.After(time.Minute):
		t.Fatal("the formation does not end")
		return formed{}
	}
}

// TestFormation: three servers become one cluster; the one with the lowest id founds it, the others get all that it made.
func TestFormation(t *testing.T) {
	all := founders(t, 3)
	var ends []<-chan formed
	for _, f := range all {
		done, _ := f.start()
		ends = append(ends, done)
	}
	first := wait(t, ends[0])
	if first.err != nil || !first.founder {
		t.Fatalf("%+v", first)
	}
	all[0].serve(first.founding)
	for i, f := range all {
		c := first.founding
		if i > 0 {
			end := wait(t, ends[i])
			if end.err != nil || end.founder {
				t.Fatalf("%s: %+v", f.id, end)
			}
			c = end.founding
		}
		if len(c.Members) != 3 || !slices.EqualFunc(c.Members, first.founding.Members, func(a, b Founder) bool { return a == b }) {
			t.Errorf("%s: the members are %v", f.id, c.Members)
		}
		if m := c.member(f.id); m == nil || m.Address != f.l.Addr().String() {
			t.Errorf("%s is %v", f.id, m)
		}
		kept, err := LoadFounding(f.dir)
		if err != nil || !bytes.Equal(kept.Sealing, first.founding.Sealing) || !bytes.Equal(kept.Root, all[0].form.Root) {
			t.Errorf("%s: %v, %v", f.id, kept, err)
		}
		root, err := os.ReadFile(filepath.Join(f.dir, RootFile))
		if err != nil || !bytes.Equal(root, all[0].form.Root) {
			t.Errorf("%s: %q, %v", f.id, root, err)
		}
		authority, err := OpenAuthority(f.dir, clock.Real{})
		if err != nil || !bytes.Contains(c.Authority, authority.PEM()) {
			t.Errorf("%s: another authority (%v)", f.id, err)
		}
		entries, err := os.ReadDir(f.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v (%v)", e.Name(), info.Mode(), err)
			}
		}
		for _, secret := range [][]byte{c.Root, c.Secret, c.Sealing} {
			if strings.Contains(f.log.String(), string(secret)) {
				t.Errorf("%s logs a secret", f.id)
			}
		}
	}
}

// TestFoundingIsCompleted: a crash before the authority was made of the founding is made good; a bootstrap secret that was removed stays so.
func TestFoundingIsCompleted(t *testing.T) {
	authority, err := found(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keys := t.TempDir()
	c := &Founding{Members: []Founder{{"server-0", "a:1", "k"}}, Authority: authority, Sealing: []byte("sealing"), Secret: secretOf(t, "secret").key}
	if err := c.keep(keys); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{authorityFile, secretFile} {
		if err := os.Remove(filepath.Join(keys, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadFounding(keys); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(keys, authorityFile)); err != nil || !bytes.Equal(text, authority) {
		t.Errorf("the authority is %q, %v", text, err)
	}
	if s, _, err := KeepSecret(keys, ""); s != nil || err != nil {
		t.Errorf("the bootstrap secret is back: %v, %v", s, err)
	}
}

// TestFormationOfRestartingServers: whoever is killed comes back to the same cluster, also the founder, once it has decided.
func TestFormationOfRestartingServers(t *testing.T) {
	all := founders(t, 3)
	_, kill := all[1].start()
	all[1].says("1 of 3 servers are there")
	kill()
	done1, _ := all[1].start()
	done0, _ := all[0].start()
	all[0].says("2 of 3 servers are there")
	_, kill2 := all[2].start()
	first := wait(t, done0)
	if first.err != nil || !first.founder {
		t.Fatalf("%+v", first)
	}
	// The founder has decided, and is gone before it could tell anybody. Nobody else decides.
	kill2()
	done2, _ := all[2].start()
	all[2].says("server " + all[0].l.Addr().String())
	select {
	case r := <-done1:
		t.Fatalf("without the founder: %+v", r)
	case r := <-done2:
		t.Fatalf("without the founder: %+v", r)
	default:
	}
	kept, err := LoadFounding(all[0].dir)
	if err != nil || kept == nil {
		t.Fatal(kept, err)
	}
	all[0].serve(kept)
	for _, done := range []<-chan formed{done1, done2} {
		if r := wait(t, done); r.err != nil || r.founder || !bytes.Equal(r.founding.Authority, first.founding.Authority) {
			t.Errorf("%+v", r)
		}
	}
}

// TestFormedWithoutIt: neither who knows the secret alone, nor who has taken a member's id, is handed the founding.
func TestFormedWithoutIt(t *testing.T) {
	all := founders(t, 1)
	c := &Founding{Members: []Founder{{"server-0", "", "k"}, {"server-7", "", "the real one's"}}, Sealing: []byte("s"), Secret: all[0].form.Secret.key}
	all[0].serve(c)
	for _, id := range []string{"server-8", "server-7"} {
		late := founders(t, 1)[0]
		late.form.ID, late.form.Join = id, []string{all[0].l.Addr().String()}
		done, _ := late.start()
		if r := wait(t, done); !errors.Is(r.err, ErrFormed) {
			t.Errorf("%s: %+v", id, r)
		}
		if f, err := LoadFounding(late.dir); f != nil || err != nil {
			t.Errorf("%s keeps %v, %v", id, f, err)
		}
	}
}

// TestFormationDisagreements: what stands in the way is said on both sides, and the cluster forms once it is gone.
func TestFormationDisagreements(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a, b *founder)
		says   string
	}{
		"expect":   {func(_, b *founder) { b.form.Expect = 3 }, "--bootstrap-expect"},
		"settings": {func(_, b *founder) { b.form.Settings = map[string]string{"--region": "eu-west-1"} }, "differs from this one in --region"},
		"token":    {func(_, b *founder) { b.form.Secret = secretOf(b.t, "a typing error") }, "start all first servers with the same --join-token"},
		"copy":     {func(a, b *founder) { b.form.ID = a.form.ID }, "a data directory must not be copied"},
	} {
		t.Run(name, func(t *testing.T) {
			all := founders(t, 2)
			right := all[1].form
			c.change(all[0], all[1])
			done0, _ := all[0].start()
			_, kill := all[1].start()
			all[0].says(c.says)
			all[1].says(c.says)
			kill()
			all[1].form = right
			done1, _ := all[1].start()
			r := wait(t, done0)
			if r.err != nil || !r.founder {
				t.Fatalf("%+v", r)
			}
			all[0].serve(r.founding)
			if r := wait(t, done1); r.err != nil {
				t.Error(r.err)
			}
		})
	}
}

func TestTooManyServers(t *testing.T) {
	all := founders(t, 3)
	for _, f := range all {
		f.form.Expect = 2
		f.start()
	}
	all[0].says("there are 3 servers, and --bootstrap-expect is 2")
}

// TestServerEnters: a server comes to a cluster by a token that was made for one, once.
func TestServerEnters(t *testing.T) {
	sealing := make([]byte, 32)
	rand.Read(sealing)
	tokens := NewTokens(sealing)
	now := time.Now()
	keys := t.TempDir()
	authority, err := OpenAuthority(keys, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := KeepSecret(keys, "the cluster's secret"); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	credential, err := authority.ServerCredential("server-1", log)
	if err != nil {
		t.Fatal(err)
	}
	port := NewPort(credential, log)
	used, bootstrap := map[string]Identity{}, secretOf(t, "the cluster's secret")
	admission := NewAdmission(port, AdmissionConfig{
		Authority: authority, Clock: clock.Real{}, Log: log,
		Secret: func(id string) *Secret {
			if id == "" {
				return bootstrap
			}
			return tokens.Secret(id, now)
		},
		Admit: func(_ context.Context, token string, who Identity, address string, _ uint32) error {
			if by, ok := used[token]; ok && by != who {
				return ErrUsed
			}
			switch address {
			case "taken:1":
				return ErrAddressInUse
			case "old:1":
				return ErrTooOld
			}
			used[token] = who
			return nil
		},
		Founding: func() (*Founding, error) { return Gather(keys, sealing) },
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = port.Serve(ctx, l) })
	running.Go(func() { _ = admission.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })

	token := func(role Role, ends time.Duration) string {
		text, err := tokens.Make(role, now.Add(ends), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	enter := func(id, token, address string) (*Founding, error) {
		e := Entry{Keys: t.TempDir(), ID: id, Address: address, Servers: []string{l.Addr().String()}, Secret: secretOf(t, token), Clock: clock.Real{}, Log: log}
		return e.Run(t.Context())
	}
	good := token(Server, time.Minute)
	f, err := enter("server-2", good, "there:1")
	if err != nil || !bytes.Equal(f.Sealing, sealing) || !bytes.Contains(f.Authority, authority.PEM()) || len(f.Members) != 0 {
		t.Fatalf("%+v, %v", f, err)
	}
	if _, err := enter("server-2", good, "there:1"); err != nil {
		t.Errorf("whose answer was lost: %v", err)
	}
	for name, c := range map[string]struct {
		token, address string
		want           error
	}{
		"used":      {good, "there:1", ErrUsed},
		"ended":     {token(Server, -time.Minute), "there:1", ErrWrongToken},
		"address":   {token(Server, time.Minute), "taken:1", ErrAddressInUse},
		"too old":   {token(Server, time.Minute), "old:1", ErrTooOld},
		"forged":    {good[:len(good)-4] + "AAAA", "there:1", ErrWrongToken},
		"bootstrap": {"another secret", "there:1", ErrWrongToken},
	} {
		if _, err := enter("server-3", c.token, c.address); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The bootstrap secret, which agents know, and a token for agents admit no server.
	for _, text := range []string{"the cluster's secret", token(Agent, time.Minute)} {
		e := Entry{Keys: t.TempDir(), ID: "server-4", Address: "there:1", Servers: []string{l.Addr().String()}, Secret: secretOf(t, text), Clock: clock.Real{}, Log: log}
		if _, err := e.ask(t.Context(), l.Addr().String(), request{Role: Server, Request: csrOf(t), ID: "server-4", Address: "there:1"}); err == nil || !strings.Contains(err.Error(), "role") {
			t.Errorf("%v", err)
		}
	}
	m := &Membership{Keys: t.TempDir(), Servers: []string{l.Addr().String()}, Secret: secretOf(t, token(Agent, time.Minute)), Clock: clock.Real{}, Log: log}
	mustJoin(t, m)
	m.Keys = t.TempDir()
	if _, err := m.Join(t.Context()); !errors.Is(err, ErrUsed) {
		t.Errorf("a second agent by one token: %v", err)
	}
}

func csrOf(t *testing.T) []byte {
	t.Helper()
	csr, err := newRequest(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func TestDamagedFounding(t *testing.T) {
	keys := t.TempDir()
	for _, text := range []string{"", "{}", `{"sealing":"AAAA"}`} {
		if err := datadir.WriteFile(filepath.Join(keys, foundingFile), []byte(text)); err != nil {
			t.Fatal(err)
		}
		if f, err := LoadFounding(keys); err == nil {
			t.Errorf("%q is %v", text, f)
		}
	}
}

func TestDamagedTokens(t *testing.T) {
	for _, text := range []string{"neargate1.", "neargate1.AAAA.BBBB", "neargate1.AAAA"} {
		if _, err := NewSecret(text); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
