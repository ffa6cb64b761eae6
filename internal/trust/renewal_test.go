package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// run renews a credential until the test ends.
func run(t *testing.T, c *Credential) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func ends(c *Credential) time.Time { return c.current().certificate.Leaf.NotAfter }

func TestRenewal(t *testing.T) {
	c := startCluster(t, "secret")
	m := c.host(t, "secret")
	cred := mustJoin(t, m)
	id, first := cred.ID(), ends(cred)
	m.Secret = nil // nothing but the certificate from now on
	run(t, cred)
	waitFor(t, "both renewals waiting", func() bool { return c.clock.Waiters() == 2 })
	c.clock.Advance(hostLife/2 - hostLife/8)
	waitFor(t, "both renewals waiting on", func() bool { return c.clock.Waiters() == 2 })
	if !ends(cred).Equal(first) {
		t.Error("renewed long before its time")
	}
	c.clock.Advance(max(hostLife/8, renewalLook))
	waitFor(t, "a new certificate", func() bool { return ends(cred).After(first) })
	if cred.ID() != id {
		t.Errorf("the node was %s and is %s", id, cred.ID())
	}
	waitFor(t, "both renewals waiting again", func() bool { return c.clock.Waiters() == 2 })
	// The first certificates, the server's too, have ended by then.
	c.clock.Advance(hostLife/2 + time.Hour)
	if err := call(t, cred, c.addr); err != nil {
		t.Error(err)
	}
	if kept := mustJoin(t, m); kept.ID() != id {
		t.Error("the renewed certificate was not kept")
	}
}

func TestCertificateThatEnded(t *testing.T) {
	c := startCluster(t, "secret")
	m := c.host(t, "secret")
	cred := mustJoin(t, m)
	id := cred.ID()
	c.clock.Advance(hostLife + time.Hour)
	waitFor(t, "the server's renewal", func() bool { return c.clock.Waiters() == 1 })
	if err := call(t, cred, c.addr); err == nil {
		t.Error("it still opens the door")
	}
	secret := m.Secret
	m.Secret = nil
	if _, err := m.Join(t.Context()); err == nil || !strings.Contains(err.Error(), "needs a join token") || !strings.Contains(err.Error(), "expired") {
		t.Error(err)
	}
	if _, err := m.again(t.Context(), cred, mustKey(t, m)); err == nil {
		t.Error("it was renewed")
	}
	m.Secret = secret
	if again := mustJoin(t, m); again.ID() != id {
		t.Errorf("the node was %s and is %s", id, again.ID())
	}
	// A process that lives through it, suspended for longer than the certificate lasts, takes the token by itself.
	if p, err := m.again(t.Context(), cred, mustKey(t, m)); err != nil || !p.certificate.Leaf.NotAfter.After(c.clock.Now()) {
		t.Error(err)
	}
}

func TestRenewalIsRetried(t *testing.T) {
	c := startCluster(t, "secret")
	m := c.host(t, "secret")
	cred := mustJoin(t, m)
	first := ends(cred)
	m.Servers = []string{nowhere}
	run(t, cred)
	waitFor(t, "both renewals waiting", func() bool { return c.clock.Waiters() == 2 })
	c.clock.Advance(hostLife / 2)
	waitFor(t, "the retry waiting", func() bool { return c.clock.Waiters() == 2 })
	if !ends(cred).Equal(first) {
		t.Fatal("renewed by nobody")
	}
	if err := call(t, cred, c.addr); err != nil {
		t.Error(err)
	}
}

// A clock that is set, or a host that was asleep, makes a renewal due that no timer was set for, and one that is enough.
func TestRenewalWhenTheClockIsSet(t *testing.T) {
	c := startCluster(t, "secret")
	m := c.host(t, "secret")
	cred := mustJoin(t, m)
	run(t, cred)
	looks := func() { // and that is all
		t.Helper()
		waitFor(t, "both renewals waiting", func() bool { return c.clock.Waiters() == 2 })
		c.clock.Advance(renewalLook)
		waitFor(t, "both renewals waiting on", func() bool { return c.clock.Waiters() == 2 })
	}
	day := 24 * time.Hour
	for _, set := range []struct {
		by    time.Duration
		renew bool
	}{{5 * time.Hour, false}, {-10 * time.Hour, false}, {6 * day, true}, {-6 * day, true}, {3 * time.Hour, false}} {
		looks()
		before := cred.current().certificate.Leaf
		c.clock.Jump(set.by)
		looks()
		// Where both are due, the server may refuse the host until it has its own.
		for i := 0; i < 10 && set.renew && cred.current().certificate.Leaf.Equal(before); i++ {
			looks()
		}
		if renewed := !cred.current().certificate.Leaf.Equal(before); renewed != set.renew {
			t.Errorf("set by %v: renewed: %v, want %v", set.by, renewed, set.renew)
		}
		leaf := cred.current().certificate.Leaf
		looks()
		looks()
		if !cred.current().certificate.Leaf.Equal(leaf) {
			t.Errorf("set by %v: renewed again and again", set.by)
		}
		if err := call(t, cred, c.addr); err != nil {
			t.Errorf("set by %v: %v", set.by, err)
		}
	}
}

func TestRenewalIsForTheSameKey(t *testing.T) {
	c := startCluster(t, "secret")
	m := c.host(t, "secret")
	cred := mustJoin(t, m)
	if _, err := m.again(t.Context(), cred, newKey(t)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
}

func mustKey(t *testing.T, m *Membership) *ecdsa.PrivateKey {
	t.Helper()
	key, err := hostKey(m.Keys)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestPublicPort: an ordinary HTTPS client trusts the port by the file that OpenAuthority leaves, for the names it was told.
func TestPublicPort(t *testing.T) {
	c := startCluster(t, "secret")
	cred, err := c.authority.PublicCredential([]string{"127.0.0.1", "neargate.test"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go s.Serve(tls.NewListener(l, cred.PublicTLS()))
	defer s.Close()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.authority.PEM()) {
		t.Fatal("no certificate")
	}
	for name, good := range map[string]bool{"": true, "neargate.test": true, "other.test": false} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: name}}}
		resp, err := client.Get("https://" + l.Addr().String())
		if err == nil {
			resp.Body.Close()
		}
		if (err == nil) != good {
			t.Errorf("name %q: %v", name, err)
		}
		client.CloseIdleConnections()
	}
}
