package etcd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/seed-2f228079/neargate/controlplane/state/etcd"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd/etcdtest"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// authority certifies for tests.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.make("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	return a
}

// leaf makes NAME.pem and NAME.key, for both ends of a connection on loopback.
func (a *authority) leaf(name string) {
	a.make(name, &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, a.key)
}

func (a *authority) make(name string, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.must(err)
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	a.must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	a.must(err)
	a.must(os.WriteFile(a.file(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	a.must(os.WriteFile(a.file(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	cert, err := x509.ParseCertificate(der)
	a.must(err)
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// TestTLS: only who has a certificate of the authority is let in, by whom we have certified.
func TestTLS(t *testing.T) {
	a, foreign := newAuthority(t), newAuthority(t)
	a.leaf("etcd")
	a.leaf("server")
	foreign.leaf("server")
	mine, err := tls.LoadX509KeyPair(a.file("server.pem"), a.file("server.key"))
	a.must(err)
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	server := etcdtest.StartTLS(t, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{mine}},
		"--cert-file="+a.file("etcd.pem"), "--key-file="+a.file("etcd.key"), "--trusted-ca-file="+a.file("ca.pem"), "--client-cert-auth")
	with := func(ca, cert *authority) etcd.Options {
		o := options(server, "", "server")
		if ca != nil {
			o.CA = ca.file("ca.pem")
		}
		if cert != nil {
			o.Cert, o.Key = cert.file("server.pem"), cert.file("server.key")
		}
		return o
	}
	s := open(t, with(a, a))
	statetest.Put(t, s.Store, &statetest.Record{Id: "a"})
	if err := s.engine.Health(t.Context()); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		options etcd.Options
		want    string
	}{
		"no authority":        {with(nil, a), "certificate"},
		"another authority":   {with(foreign, a), "certificate"},
		"no certificate":      {with(a, nil), "Unavailable"},
		"another certificate": {with(a, foreign), "Unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if e, err := etcd.Open(t.Context(), c.options); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Error(err)
				if err == nil {
					e.Close()
				}
			}
		})
	}
}

// TestConnectionChecked: what cannot work is refused before anything is tried.
func TestConnectionChecked(t *testing.T) {
	for want, c := range map[string]etcd.Connection{
		"no endpoints":                          {},
		"an endpoint is empty":                  {Endpoints: []string{"a:1", ""}},
		"not host:port, http:// or https://":    {Endpoints: []string{"unix:///x"}},
		"goes with neither TLS files":           {Endpoints: []string{"http://a:1"}, CA: "ca.pem"},
		"nor https:// endpoints":                {Endpoints: []string{"https://a:1", "http://b:1"}},
		"a certificate and its key go together": {Endpoints: []string{"a:1"}, Cert: "x"},
		"a user and its password go together":   {Endpoints: []string{"a:1"}, User: "x"},
		"no such file":                          {Endpoints: []string{"a:1"}, CA: "/nowhere/ca.pem"},
	} {
		if _, err := etcd.Open(t.Context(), etcd.Options{Connection: c, ServerID: "s", Installation: "i"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestUser works with an etcd user that may do no more than read and write below the prefix.
func TestUser(t *testing.T) {
	server := etcdtest.Start(t)
	c := raw(t, server)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for user, role := range map[string]string{"root": "root", "neargate": "platform"} {
		must(c.UserAdd(t.Context(), user, "secret of "+user))
		must(c.RoleAdd(t.Context(), role))
		must(c.UserGrantRole(t.Context(), user, role))
	}
	must(c.RoleGrantPermission(t.Context(), "platform", "/team/a/", clientv3.GetPrefixRangeEnd("/team/a/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	must(c.AuthEnable(t.Context()))

	o := options(server, "/team/a", "server")
	o.User, o.Password, o.SnapshotBytes = "neargate", "secret of neargate", 16<<10
	s := open(t, o)
	for i := range 100 {
		statetest.Put(t, s.Store, &statetest.Record{Id: fmt.Sprint(i % 3), Number: int64(i), Payload: make([]byte, 1000)})
	}
	if err := s.engine.Health(t.Context()); err != nil {
		t.Errorf("health: %v", err)
	}
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Endpoint}, Username: "root", Password: "secret of root", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	eventually(t, "the log is cut", func() bool { return len(keysBelow(t, root, "/team/a/log/")) < 60 })
	if err := s.engine.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, o)
	statetest.Put(t, again.Store, &statetest.Record{Id: "again", Number: 1})

	for want, change := range map[string]func(o *etcd.Options){
		"authentication failed": func(o *etcd.Options) { o.Password = "wrong" },
		"permission denied":     func(o *etcd.Options) { o.Prefix = "/team/b" },
		"user name is empty":    func(o *etcd.Options) { o.User, o.Password = "", "" },
	} {
		bad := o
		change(&bad)
		if e, err := etcd.Open(t.Context(), bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
			if err == nil {
				e.Close()
			}
		}
	}
}
