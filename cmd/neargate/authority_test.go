package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/seed-2f228079/neargate/client"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd/etcdtest"
)

// thief has the key of a certificate authority, and calls himself a server.
type thief struct{ certificate tls.Certificate }

func steal(t *testing.T, dir string) *thief {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "keys", "authority.pem"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks [][]byte
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		blocks = append(blocks, b.Bytes)
	}
	ca, err := x509.ParseCertificate(blocks[len(blocks)-2])
	if err != nil {
		t.Fatal(err)
	}
	caKey, err := x509.ParsePKCS8PrivateKey(blocks[len(blocks)-1])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{{Scheme: "spiffe", Host: "neargate", Path: "/server/thief"}}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	return &thief{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

// connect opens a connection to a server, by which he can ask what servers ask one another.
func (th *thief) connect(address string) (func() error, error) {
	conn, err := tls.Dial("tcp", address, &tls.Config{
		Certificates: []tls.Certificate{th.certificate}, NextProtos: []string{"neargate-relay/1"}, InsecureSkipVerify: true,
	})
	if err != nil {
		return nil, err
	}
	return func() error {
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, "POST /standing HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return err
		}
		var b [12]byte
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			return err
		}
		if string(b[:]) != fmt.Sprintf("HTTP/1.1 %d", http.StatusOK) {
			return errors.New(string(b[:]))
		}
		return nil
	}, nil
}

func (th *thief) asks(address string) error {
	ask, err := th.connect(address)
	if err != nil {
		return err
	}
	return ask()
}

// authority waits until the authority is as wanted, by the word of one server or another.
func (s *servers) authority(what string, ok func(*client.Authority) bool) *client.Authority {
	s.t.Helper()
	var last *client.Authority
	eventually(s.t, func() error {
		for _, one := range s.all {
			if one.process == nil {
				continue
			}
			a, err := one.Authority(s.t.Context())
			if err != nil {
				return err
			}
			if last = a; ok(a) {
				return nil
			}
		}
		return fmt.Errorf("never %s: %+v", what, last)
	})
	return last
}

// exchangeAuthority exchanges the authority of one server, whose public port speaks TLS: clients with the file of before go on until the old one is retired, those
// with the file of now before and after.
func (s *site) exchangeAuthority(t *testing.T, cfg client.Config) {
	t.Helper()
	answers := func(bundle string) error {
		cfg := cfg
		cfg.CABundle = bundle
		c, err := client.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Clusters(t.Context())
		return err
	}
	kept := func() string {
		t.Helper()
		text, err := os.ReadFile(cfg.CABundle)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	until := func(phase string) {
		t.Helper()
		eventually(t, func() error {
			c, err := client.New(cfg)
			if err != nil {
				return err
			}
			a, err := c.Authority(t.Context())
			if err == nil && (a.Phase != phase || a.Behind > 0) {
				err = fmt.Errorf("not %s: %+v", phase, a)
			}
			return err
		})
	}
	before := kept()
	if _, err := s.RotateAuthority(t.Context()); err != nil {
		t.Fatal(err)
	}
	until("issuing")
	both := kept()
	for _, bundle := range []string{before, both} {
		if err := answers(bundle); err != nil {
			t.Errorf("before the old authority is retired: %v", err)
		}
	}
	if _, err := s.RetireAuthority(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	until("steady")
	if err := answers(before); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with the old authority alone, once it is retired: %v", err)
	}
	if err := answers(both); err != nil {
		t.Errorf("with both, once the old one is retired: %v", err)
	}
}

// TestAuthorityRotation: three servers, under load, get another certificate authority while one of them and a host are away and their leader is
// killed twice. Everybody comes back by what he had; nothing that was acknowledged is lost, no task ends, and whoever has stolen the old
// authority is let in nowhere.
func TestAuthorityRotation(t *testing.T) { rotateAuthority(t) }

func TestAuthorityRotationOnEtcd(t *testing.T) {
	rotateAuthority(t, "--state", "etcd", "--etcd-endpoints", etcdtest.Start(t).Endpoint)
}

func rotateAuthority(t *testing.T, flags ...string) {
	s := startServers(t, 3, flags...)
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("apart")}); err != nil {
		t.Fatal(err)
	}
	dirs := []string{t.TempDir(), t.TempDir()}
	agents := []*process{s.startFakeAgent(dirs[0]), s.startFakeAgent(dirs[1])}
	again := func(i int) { // without the token
		t.Helper()
		agents[i] = start(t, "agent", "-v", "--data", dirs[i], "--servers", strings.Join(s.peers, ","), "--cluster", "apart", "--runtime", "fake")
		agents[i].says(`agent (\S+) is connected`)
	}
	s.all[0].service(t, "web", 4)
	tasks := (&site{t: t, Client: s.all[0].Client}).running(4)
	w := s.write()
	first := s.authority("steady", func(a *client.Authority) bool { return a.Phase == "steady" && len(a.Authorities) == 1 })
	old := steal(t, s.all[0].dir)
	for _, one := range s.all {
		if err := old.asks(one.peers); err != nil {
			t.Fatalf("the old authority does not open the door of %s to begin with: %v", one.peers, err)
		}
	}

	leader, others := s.leader()
	away := others[0]
	s.kill(away)
	agents[1].end(syscall.SIGKILL)
	if _, err := leader.RetireAuthority(t.Context(), true); err == nil {
		t.Error("there is an old authority to retire before there is a new one")
	}
	if _, err := others[1].RotateAuthority(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := leader.RotateAuthority(t.Context()); err == nil || !strings.Contains(err.Error(), "being exchanged already") {
		t.Errorf("a second time: %v", err)
	}
	s.authority("waits for who is away", func(a *client.Authority) bool {
		return a.Phase == "spreading" && strings.HasPrefix(a.Waits, "for server ") && len(a.Authorities) == 2
	})
	w.more(t, 10)
	s.start(away, token)
	s.ready(away)
	s.kill(leader)
	w.more(t, 10)
	s.start(leader, token)
	s.ready(leader)
	behind := s.authority("waits for the host that is away alone", func(a *client.Authority) bool { return a.Phase == "issuing" && a.Behind == 1 })
	if _, err := s.all[1].RetireAuthority(t.Context(), false); err == nil || !strings.Contains(err.Error(), "1 hosts have no certificate") {
		t.Errorf("retired while a host has only the old one: %v", err)
	}
	for _, one := range s.all {
		if text, err := os.ReadFile(filepath.Join(one.dir, "keys", "ca.pem")); err != nil || strings.Count(string(text), "BEGIN CERTIFICATE") != 2 {
			t.Errorf("ca.pem of %s: %v\n%s", one.peers, err, text)
		}
	}
	again(1)
	s.authority("all hosts have new certificates", func(a *client.Authority) bool {
		return a.Phase == "issuing" && a.Behind == 0 && a.Hosts == behind.Hosts
	})
	if _, err := s.all[2].RetireAuthority(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	leader, _ = s.leader()
	s.kill(leader)
	w.more(t, 10)
	s.start(leader, token)
	s.ready(leader)
	last := s.authority("steady again", func(a *client.Authority) bool { return a.Phase == "steady" && len(a.Authorities) == 1 })
	if last.Authorities[0].ID == first.Authorities[0].ID || last.Hosts != first.Hosts {
		t.Errorf("it was %+v and is %+v", first, last)
	}

	for _, one := range s.all {
		if err := old.asks(one.peers); err == nil {
			t.Errorf("the old authority still opens the door of %s", one.peers)
		}
		if err := steal(t, one.dir).asks(one.peers); err != nil {
			t.Errorf("the new one does not open the door of %s: %v", one.peers, err)
		}
		var kept [][]byte
		for _, name := range []string{"authority.pem", "founding.json", "ca.pem"} {
			text, err := os.ReadFile(filepath.Join(one.dir, "keys", name))
			if err != nil {
				t.Fatal(err)
			}
			kept = append(kept, text)
		}
		if !bytes.Contains(kept[0], kept[2]) || strings.Count(string(kept[0]), "PRIVATE KEY-----") != 2 {
			t.Errorf("server %s keeps more than the new authority", one.peers)
		}
		if prepared, err := filepath.Glob(filepath.Join(one.dir, "keys", "authority-next*")); err != nil || len(prepared) > 0 {
			t.Errorf("server %s keeps %v (%v)", one.peers, prepared, err)
		}
	}
	for i := range agents {
		agents[i].end(syscall.SIGTERM)
		again(i)
	}
	s.startFakeAgent(t.TempDir()) // by the token, as ever
	w.more(t, 10)
	w.stop()
	known := s.all[0].allClusters(t)
	for _, n := range w.names {
		if !known[n] {
			t.Errorf("lost %s", n)
		}
	}
	if now := (&site{t: t, Client: s.all[1].Client}).running(4); !slices.Equal(now, tasks) {
		t.Errorf("the tasks were %v and are %v", tasks, now)
	}
	t.Logf("%d writes; the longest pause was %v", len(w.names), w.longest)
}
