package trust

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthapi "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// cluster is one server's peer port with admission and a gRPC service, the health service, that tells nothing but who called.
type cluster struct {
	keys      string
	authority *Authority
	port      *Port
	addr      string
	clock     *clock.Fake
	log       *lockedBuffer

	mu      sync.Mutex
	callers []Identity
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// nowhere is an address at which nobody listens, and which nobody is given for port 0 either.
const nowhere = "127.0.0.1:1"

func secretOf(t testing.TB, token string) *Secret {
	t.Helper()
	s, err := NewSecret(token)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func startCluster(t *testing.T, token string) *cluster {
	t.Helper()
	c := &cluster{keys: t.TempDir(), clock: clock.NewFake(time.Now()), log: &lockedBuffer{}}
	var err error
	if c.authority, err = OpenAuthority(c.keys, c.clock); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(c.log, nil))
	credential, err := c.authority.ServerCredential("server-1", log)
	if err != nil {
		t.Fatal(err)
	}
	secret := secretOf(t, token)
	port := NewPort(credential, log)
	c.port = port
	admission := NewAdmission(port, AdmissionConfig{Authority: c.authority, Clock: c.clock, Log: log, Secret: func(id string) *Secret {
		if id == "" {
			return secret
		}
		return nil
	}})
	server := grpc.NewServer(append(GRPCServerOptions(), grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		who, _ := Peer(ctx)
		c.mu.Lock()
		c.callers = append(c.callers, who)
		c.mu.Unlock()
		return next(ctx, req)
	}))...)
	healthapi.RegisterHealthServer(server, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	calls := port.Handle(ProtocolGRPC, Agent)
	var parts sync.WaitGroup
	for _, run := range []func(){
		func() { _ = server.Serve(calls) },
		func() {
			if err := admission.Run(ctx); err != nil {
				t.Error(err)
			}
		},
		func() {
			if err := port.Serve(ctx, l); err != nil {
				t.Error(err)
			}
		},
		func() {
			if err := credential.Run(ctx); err != nil {
				t.Error(err)
			}
		},
	} {
		parts.Go(run)
	}
	t.Cleanup(func() {
		cancel()
		server.Stop()
		parts.Wait()
	})
	return c
}

func (c *cluster) host(t *testing.T, token string) *Membership {
	t.Helper()
	m := &Membership{Keys: t.TempDir(), Servers: []string{c.addr}, Clock: c.clock, Log: slog.New(slog.DiscardHandler)}
	if token != "" {
		m.Secret = secretOf(t, token)
	}
	return m
}

func mustJoin(t *testing.T, m *Membership) *Credential {
	t.Helper()
	c, err := m.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// call makes one call with the credential and answers its error.
func call(t *testing.T, c *Credential, servers ...string) error {
	t.Helper()
	conn, err := c.DialServers(servers)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = healthapi.NewHealthClient(conn).Check(ctx, &healthapi.HealthCheckRequest{})
	return err
}

func TestJoinOnceThenByCertificate(t *testing.T) {
	c := startCluster(t, "the cluster's secret")
	m := c.host(t, "the cluster's secret")
	first := mustJoin(t, m)
	if err := call(t, first, c.addr); err != nil {
		t.Fatal(err)
	}
	m.Secret = nil
	again := mustJoin(t, m)
	if first.ID() != again.ID() || len(first.ID()) != 32 {
		t.Errorf("the node was %q and is %q", first.ID(), again.ID())
	}
	if err := call(t, again, c.addr); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, who := range c.callers {
		if who != (Identity{Agent, first.ID()}) {
			t.Errorf("the server saw %s", who)
		}
	}
	if len(c.callers) != 2 {
		t.Errorf("the server saw %d callers", len(c.callers))
	}
	for _, keys := range []string{m.Keys, c.keys} {
		entries, err := os.ReadDir(keys)
		if err != nil || len(entries) != 2 {
			t.Fatalf("%s holds %v (%v)", keys, entries, err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v (%v)", e.Name(), info.Mode(), err)
			}
		}
	}
}

// TestSameKeySameNode: what is left of a membership, the key alone, is enough to be the same node again.
func TestSameKeySameNode(t *testing.T) {
	c := startCluster(t, "secret")
	m := c.host(t, "secret")
	first := mustJoin(t, m)
	if err := os.Remove(filepath.Join(m.Keys, hostCertFile)); err != nil {
		t.Fatal(err)
	}
	if again := mustJoin(t, m); again.ID() != first.ID() {
		t.Errorf("the node was %s and is %s", first.ID(), again.ID())
	}
	if other := mustJoin(t, c.host(t, "secret")); other.ID() == first.ID() {
		t.Error("two hosts have one id")
	}
}

func TestNoTokenNoMembership(t *testing.T) {
	c := startCluster(t, "secret")
	_, err := c.host(t, "").Join(t.Context())
	if err == nil || !strings.Contains(err.Error(), "needs a join token: it has joined no cluster yet") {
		t.Error(err)
	}
}

// TestServerThatComesLater: a host may start before its servers.
func TestServerThatComesLater(t *testing.T) {
	c := startCluster(t, "secret")
	m := c.host(t, "secret")
	m.Servers = []string{nowhere}
	ctx, cancel := context.WithCancel(t.Context())
	joined := make(chan error, 1)
	go func() {
		_, err := m.Join(ctx)
		joined <- err
	}()
	waitFor(t, "a retry", func() bool { return c.clock.Waiters() > 1 }) // the other one is the server's renewal
	cancel()
	if err := <-joined; err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
	m.Servers = append(m.Servers, c.addr)
	mustJoin(t, m)
}

func TestAuthorizeNode(t *testing.T) {
	if err := AuthorizeNode(t.Context(), "n"); err == nil {
		t.Error("who has shown no certificate spoke for a node")
	}
	for _, c := range []struct {
		who Identity
		ok  bool
	}{
		{Identity{Agent, "n"}, true},
		{Identity{Agent, "m"}, false},
		{Identity{Agent, ""}, false},
		{Identity{Server, "n"}, false},
	} {
		if err := AuthorizeNode(withPeer(t.Context(), c.who), "n"); (err == nil) != c.ok {
			t.Errorf("%s speaking for n: %v", c.who, err)
		}
	}
}

func TestKeyIDRefusesOtherKeys(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := KeyID(&key.PublicKey); err == nil {
		t.Errorf("a key on P-384 is %s", id)
	}
}

func TestAuthorityIsKept(t *testing.T) {
	dir := t.TempDir()
	c := clock.NewFake(time.Now())
	first, err := OpenAuthority(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenAuthority(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.PEM(), again.PEM()) {
		t.Error("the authority changed")
	}
	public, err := os.ReadFile(first.PublicFile(dir))
	if err != nil || !bytes.Equal(public, first.PEM()) || bytes.Contains(public, []byte("PRIVATE")) {
		t.Errorf("%s (%v)", public, err)
	}
	for _, text := range []string{"", "garbage", string(public)} {
		if err := os.WriteFile(filepath.Join(dir, authorityFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// A new one in its place would cut off every host.
		if _, err := OpenAuthority(dir, c); err == nil {
			t.Errorf("an authority out of %q", text)
		}
	}
}

func TestBootstrapSecretIsKept(t *testing.T) {
	keys := t.TempDir()
	keep := func(token string, want *Secret, ignored bool) {
		t.Helper()
		s, i, err := KeepSecret(keys, token)
		if err != nil || (s == nil) != (want == nil) || s != nil && !bytes.Equal(s.key, want.key) || i != ignored {
			t.Errorf("token %q: %v, ignored %v, %v", token, s, i, err)
		}
	}
	first := secretOf(t, "first")
	keep("", nil, false)
	keep("first", first, false)
	keep("", first, false)
	keep("first", first, false)
	keep("second", first, true)
	if text, err := os.ReadFile(filepath.Join(keys, secretFile)); err != nil || bytes.Contains(text, []byte("first")) {
		t.Errorf("%q (%v)", text, err)
	}
	if err := os.WriteFile(filepath.Join(keys, secretFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := KeepSecret(keys, "first"); err == nil {
		t.Error("a damaged secret is taken")
	}
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(limit) {
			t.Fatal("no sign of " + what)
		}
		time.Sleep(time.Millisecond)
	}
}

// A connection goes to the server that answered last, and to the next one when that is gone.
func TestAnyServer(t *testing.T) {
	c := startCluster(t, "secret")
	credential := mustJoin(t, c.host(t, "secret"))
	dial := credential.AnyServer(ProtocolGRPC, []string{nowhere, c.addr})
	for range 4 {
		conn, err := dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.RemoteAddr().String(); got != c.addr {
			t.Errorf("connected to %s", got)
		}
		conn.Close()
	}
	if _, err := credential.AnyServer(ProtocolGRPC, []string{nowhere})(t.Context()); err == nil || !strings.Contains(err.Error(), nowhere) {
		t.Errorf("no server is there: %v", err)
	}
	if _, err := credential.AnyServer(ProtocolTasks, []string{c.addr})(t.Context()); err == nil {
		t.Error("a server that does not know the protocol")
	}
}

// Who has signed a certificate is told by the certificate itself once it has been checked: Cut goes by that. So one that lies about it is refused, also
// if it is of an authority that is trusted as well, as one is while it is exchanged.
func TestCertificateThatNamesAnotherSigner(t *testing.T) {
	retired, next := startCluster(t, "secret").authority, startCluster(t, "secret").authority
	key := newKey(t)
	by := retired.ring.signs()
	issue := func(signer []byte) *x509.Certificate {
		posing := *by.cert
		posing.SubjectKeyId = signer
		der, err := retired.issueHost(issuer{cert: &posing, key: by.key}, &key.PublicKey, Identity{Agent, "a"})
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	both := x509.NewCertPool()
	both.AddCert(by.cert)
	both.AddCert(next.ring.signs().cert)
	if who, err := verify([]*x509.Certificate{issue(by.cert.SubjectKeyId)}, both, time.Now()); err != nil || who != (Identity{Agent, "a"}) {
		t.Errorf("%v, %v", who, err)
	}
	if who, err := verify([]*x509.Certificate{issue(next.ring.signs().cert.SubjectKeyId)}, both, time.Now()); err == nil {
		t.Errorf("taken for %s, by whom it says", who)
	}
	// Nor is an authority's own certificate anybody's.
	if who, err := verify([]*x509.Certificate{by.cert}, both, time.Now()); err == nil {
		t.Errorf("taken for %s", who)
	}
}

// What a port hands over says who is at the other end and holds no certificate of it: there are thousands.
func TestConnectionKeepsNoCertificate(t *testing.T) {
	c := startCluster(t, "secret")
	port := NewPort(c.authority.own[0], slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	calls := port.Handle("test/1", Agent)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- port.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	m := mustJoin(t, c.host(t, "secret"))
	far, err := m.Dial(t.Context(), "test/1", Identity{Role: Server}, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := calls.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	if who, ok := ConnPeer(near); !ok || who != (Identity{Agent, m.ID()}) {
		t.Errorf("it is of %s", who)
	}
	if port.Outdated(near) {
		t.Error("it is of an authority of before")
	}
	for _, cert := range near.(*tls.Conn).ConnectionState().PeerCertificates {
		if len(cert.Raw) > 0 {
			t.Error("the certificate is kept")
		}
	}
}
