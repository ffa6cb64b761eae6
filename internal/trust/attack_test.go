package trust

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

func withPeer(ctx context.Context, who Identity) context.Context {
	return peer.NewContext(ctx, &peer.Peer{AuthInfo: infoOf(who)})
}

var _ credentials.AuthInfo = peerInfo{}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// stranger connects for joining without any credential.
func stranger(t testing.TB, addr string) *tls.Conn {
	t.Helper()
	conn, err := dial(t.Context(), addr, strangerTLS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// ask sends a request as it stands and reads the answer.
func ask(t testing.TB, conn *tls.Conn, proof, body []byte) (answer, error) {
	t.Helper()
	if err := writeMessage(conn, proof, body); err != nil {
		t.Fatal(err)
	}
	var a answer
	_, _, err := readMessage(conn, &a)
	return a, err
}

func requestFor(t testing.TB, key *ecdsa.PrivateKey, role Role) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(request{Role: role, Request: csr})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func proofOn(t testing.TB, s *Secret, conn *tls.Conn, messages ...[]byte) []byte {
	t.Helper()
	session := conn.ConnectionState()
	proof, err := s.proof(joining, &session, messages...)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// passDelay moves the clock whenever a refusal waits for its moment.
func (c *cluster) passDelay(t *testing.T) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				if c.clock.Waiters() > 1 { // one is the server's renewal
					c.clock.Advance(refusalDelay)
				}
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
}

func TestWrongToken(t *testing.T) {
	c := startCluster(t, "the right token")
	c.passDelay(t)
	m := c.host(t, "a wrong token")
	if _, err := m.Join(t.Context()); !errors.Is(err, ErrWrongToken) {
		t.Fatal(err)
	}
	waitFor(t, "a word on the server", func() bool { return strings.Contains(c.log.String(), "wrong join token") })
	if _, err := os.Stat(filepath.Join(m.Keys, hostCertFile)); err == nil {
		t.Error("it has a certificate nevertheless")
	}
	for _, secret := range []string{"the right token", "a wrong token"} {
		if strings.Contains(c.log.String(), secret) {
			t.Errorf("the log holds the token %q", secret)
		}
	}
}

func TestProofIsForOneSessionAndOneRequest(t *testing.T) {
	c := startCluster(t, "secret")
	c.passDelay(t)
	s := secretOf(t, "secret")
	key := newKey(t)
	body := requestFor(t, key, Agent)

	conn := stranger(t, c.addr)
	good := proofOn(t, s, conn, body)
	if a, err := ask(t, conn, good, body); err != nil || a.Certificate == nil {
		t.Fatalf("the honest request: %+v, %v", a, err)
	}
	t.Run("replayed", func(t *testing.T) {
		if a, err := ask(t, stranger(t, c.addr), good, body); err != nil || a.Refusal != refusedToken || a.Certificate != nil {
			t.Errorf("%+v, %v", a, err)
		}
	})
	t.Run("another request", func(t *testing.T) {
		conn := stranger(t, c.addr)
		if a, err := ask(t, conn, proofOn(t, s, conn, body), requestFor(t, newKey(t), Agent)); err != nil || a.Refusal != refusedToken {
			t.Errorf("%+v, %v", a, err)
		}
	})
	t.Run("another side's proof", func(t *testing.T) {
		conn := stranger(t, c.addr)
		session := conn.ConnectionState()
		proof, err := s.proof(admitting, &session, body)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := ask(t, conn, proof, body); err != nil || a.Refusal != refusedToken {
			t.Errorf("%+v, %v", a, err)
		}
	})
	t.Run("no proof", func(t *testing.T) {
		if a, err := ask(t, stranger(t, c.addr), nil, body); err != nil || a.Refusal != refusedToken {
			t.Errorf("%+v, %v", a, err)
		}
	})
	t.Run("unknown token", func(t *testing.T) {
		conn := stranger(t, c.addr)
		body, err := json.Marshal(request{Token: "another", Role: Agent})
		if err != nil {
			t.Fatal(err)
		}
		if a, err := ask(t, conn, proofOn(t, s, conn, body), body); err != nil || a.Refusal != refusedToken {
			t.Errorf("%+v, %v", a, err)
		}
	})
	t.Run("a role that tokens do not give", func(t *testing.T) {
		conn := stranger(t, c.addr)
		body := requestFor(t, key, Server)
		if a, err := ask(t, conn, proofOn(t, s, conn, body), body); err != nil || a.Refusal != refusedRole || a.Certificate != nil {
			t.Errorf("%+v, %v", a, err)
		}
	})
	t.Run("somebody else's key", func(t *testing.T) {
		// The request of another host, with its key swapped for the victim's: who does not have the key cannot sign it.
		var r request
		if err := json.Unmarshal(requestFor(t, newKey(t), Agent), &r); err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(r.Request)
		if err != nil {
			t.Fatal(err)
		}
		victim, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		r.Request = bytes.Replace(r.Request, csr.RawSubjectPublicKeyInfo, victim, 1)
		body, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		conn := stranger(t, c.addr)
		if a, err := ask(t, conn, proofOn(t, s, conn, body), body); err != nil || a.Refusal != refusedRequest || a.Certificate != nil {
			t.Errorf("%+v, %v", a, err)
		}
	})
	t.Run("too long", func(t *testing.T) {
		conn := stranger(t, c.addr)
		go io.Copy(conn, io.MultiReader(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff}), bytes.NewReader(make([]byte, 1<<20))))
		if _, err := io.ReadAll(conn); err == nil {
			return // closed
		} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			t.Error(err)
		}
	})
}

// impostor is a server of the joining protocol that is not the cluster's; handle gets each request.
func impostor(t *testing.T, handle func(conn *tls.Conn, proof, body []byte)) string {
	t.Helper()
	c := startCluster(t, "of another cluster") // only for a certificate
	credential, err := c.authority.ServerCredential("impostor", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	config := credential.peerTLS([]string{protocolJoin})
	config.ClientAuth, config.VerifyConnection = tls.NoClientCert, nil
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(time.Minute))
			var r request
			if proof, body, err := readMessage(conn, &r); err == nil {
				handle(conn.(*tls.Conn), proof, body)
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// TestManInTheMiddle passes the messages on between two TLS sessions of its own.
func TestManInTheMiddle(t *testing.T) {
	c := startCluster(t, "secret")
	c.passDelay(t)
	passed := make(chan answer, 1)
	m := c.host(t, "secret")
	m.Servers = []string{impostor(t, func(victim *tls.Conn, proof, body []byte) {
		server, err := dial(context.Background(), c.addr, strangerTLS())
		if err != nil {
			t.Error(err)
			return
		}
		defer server.Close()
		if err := writeMessage(server, proof, body); err != nil {
			t.Error(err)
		}
		var a answer
		proof, body, err = readMessage(server, &a)
		if err != nil {
			t.Error(err)
		}
		passed <- a
		if err := writeMessage(victim, proof, body); err != nil {
			t.Error(err)
		}
	})}
	if _, err := m.Join(t.Context()); !errors.Is(err, ErrWrongToken) {
		t.Error(err)
	}
	if a := <-passed; a.Certificate != nil {
		t.Error("the one in the middle got a certificate")
	}
}

// TestServerThatDoesNotKnowTheToken answers with a certificate of its own authority, and everything in it is right but the proof.
func TestServerThatDoesNotKnowTheToken(t *testing.T) {
	other := startCluster(t, "of another cluster")
	addr := impostor(t, func(conn *tls.Conn, proof, body []byte) {
		var r request
		if err := json.Unmarshal(body, &r); err != nil {
			t.Error(err)
			return
		}
		key, err := keyOf(r)
		if err != nil {
			t.Error(err)
			return
		}
		id, _ := KeyID(key)
		a := &Admission{AdmissionConfig: AdmissionConfig{Authority: other.authority}}
		echo := func([]byte) ([]byte, error) { return proof, nil } // the best it has
		if err := a.certify(conn, echo, key, Identity{Agent, id}); err != nil {
			t.Error(err)
		}
	})
	m := other.host(t, "secret")
	m.Servers = []string{addr}
	if _, err := m.Join(t.Context()); !errors.Is(err, ErrNotOurs) {
		t.Error(err)
	}
}

// TestTamperedAnswer: a server that knows the token, whose answer is changed on its way in one place after the other.
func TestTamperedAnswer(t *testing.T) {
	s := secretOf(t, "secret")
	c := startCluster(t, "secret")
	for i := range 24 {
		addr := impostor(t, func(conn *tls.Conn, _, body []byte) {
			var r request
			if err := json.Unmarshal(body, &r); err != nil {
				t.Error(err)
				return
			}
			key, err := keyOf(r)
			if err != nil {
				t.Error(err)
				return
			}
			id, _ := KeyID(key)
			der, err := c.authority.issueHost(c.authority.ring.signs(), key, Identity{Agent, id})
			if err != nil {
				t.Error(err)
				return
			}
			reply, err := json.Marshal(answer{Certificate: der, Authorities: c.authority.certificates()})
			if err != nil {
				t.Error(err)
				return
			}
			session := conn.ConnectionState()
			proof, err := s.proof(admitting, &session, body, reply)
			if err != nil {
				t.Error(err)
				return
			}
			reply[20+i*len(reply)/32] ^= 1 // within the base64 of the certificate or the authority; sometimes the JSON breaks
			if err := writeMessage(conn, proof, reply); err != nil {
				t.Error(err)
			}
		})
		conn := stranger(t, addr)
		m := c.host(t, "")
		if p, err := m.exchange(conn, newKey(t), s); err == nil {
			t.Errorf("byte %d changed: accepted %v", i, p.certificate.Leaf.Subject)
		}
		conn.Close()
	}
}

// TestPeerPortIsForMembers: all but joining asks for a certificate of the cluster, and of the right kind.
func TestPeerPortIsForMembers(t *testing.T) {
	c := startCluster(t, "secret")
	other := startCluster(t, "secret")
	log := slog.New(slog.DiscardHandler)
	member := mustJoin(t, c.host(t, "secret"))

	stolen := func(change func(*papers)) *Credential {
		p := member.current()
		change(&p)
		return &Credential{clock: c.clock, log: log, papers: p}
	}
	public, err := c.authority.PublicCredential([]string{"127.0.0.1"}, log)
	if err != nil {
		t.Fatal(err)
	}
	server, err := c.authority.ServerCredential("server-2", log)
	if err != nil {
		t.Fatal(err)
	}
	// It is of another authority and says that it is of this one.
	forged := func(p *papers) {
		key := newKey(t)
		id, err := KeyID(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		by := other.authority.ring.signs()
		posing := *by.cert
		posing.SubjectKeyId = c.authority.ring.signs().cert.SubjectKeyId
		by.cert = &posing
		der, err := other.authority.issueHost(by, &key.PublicKey, Identity{Agent, id})
		if err != nil {
			t.Fatal(err)
		}
		if *p, err = newPapers(key, der, p.authorities); err != nil {
			t.Fatal(err)
		}
	}
	for name, cred := range map[string]*Credential{
		"of another cluster, in disguise": stolen(forged),
		"no certificate":                  stolen(func(p *papers) { p.certificate = tls.Certificate{} }),
		"of another cluster":              stolen(func(p *papers) { p.certificate = mustJoin(t, other.host(t, "secret")).current().certificate }),
		"of the public port":              stolen(func(p *papers) { p.certificate = public.current().certificate }),
		"with another key":                stolen(func(p *papers) { p.certificate.PrivateKey = newKey(t) }),
		"of a server, where agents speak": server,
	} {
		t.Run(name, func(t *testing.T) {
			if err := call(t, cred, c.addr); err == nil {
				t.Error("the call went through")
			}
		})
	}
	c.mu.Lock()
	if len(c.callers) != 0 {
		t.Errorf("the service was called by %v", c.callers)
	}
	c.mu.Unlock()
	if err := call(t, member, c.addr); err != nil {
		t.Error(err)
	}
	// The other way round: a member does not talk to a server of another cluster.
	if err := call(t, member, other.addr); err == nil || !strings.Contains(err.Error(), "not of this cluster") {
		t.Error(err)
	}
	// Nor can it be served without any protocol, or by one that is not there.
	for _, protos := range [][]string{nil, {"http/1.1"}} {
		if conn, err := dial(t.Context(), c.addr, member.peerTLS(protos, Server)); err == nil {
			conn.SetDeadline(time.Now().Add(time.Minute))
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("%q is served", protos)
			}
			conn.Close()
		}
	}
}

// TestIdleStrangersHoldNobodyUp opens connections that never say a word, some of them with every place for joining taken.
func TestIdleStrangersHoldNobodyUp(t *testing.T) {
	c := startCluster(t, "secret")
	m := c.host(t, "secret")
	member := mustJoin(t, m)
	for range 2 * maxExchanges {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	mustJoin(t, c.host(t, "secret"))
	for range 2 * maxExchanges {
		stranger(t, c.addr)
	}
	if err := call(t, member, c.addr); err != nil {
		t.Error(err)
	}
}

func FuzzReadMessage(f *testing.F) {
	var b bytes.Buffer
	if err := writeMessage(&b, nil, []byte(`{"role":"agent"}`)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		var r request
		if _, body, err := readMessage(bytes.NewReader(in), &r); err == nil && len(body) > maxMessage {
			t.Errorf("a message of %d bytes", len(body))
		}
		if _, err := keyOf(r); err == nil && len(r.Request) == 0 {
			t.Error("a key out of nothing")
		}
	})
}
