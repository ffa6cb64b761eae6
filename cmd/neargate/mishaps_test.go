package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/seed-2f228079/neargate/client"
)

// TestRemovedServerEnds: a server that is removed while it runs ends and says why, and so does its next start. The agent that was with it goes to
// another one, and its tasks do not notice.
func TestRemovedServerEnds(t *testing.T) {
	s := startServers(t, 3)
	cluster := "apart"
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	leader, others := s.leader()
	gone, stays := others[0], others[1]
	agent := start(t, "agent", "-v", "--data", t.TempDir(), "--servers", gone.peers+","+stays.peers, "--cluster", cluster, "--runtime", "fake", "--join-token", token)
	node := agent.says(`agent (\S+) is connected`)[0]
	leader.service(t, "web", 2)
	tasks := (&site{t: t, Client: leader.Client}).running(2)
	id, _, _ := member(t, stays, gone)
	if got, err := stays.RemoveServer(t.Context(), id); err != nil || got != id {
		t.Fatal(got, err)
	}
	for range 2 {
		gone.says("this server was removed from the cluster: empty its data directory")
		gone.wait()
		if code := gone.cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("a removed server ends with %d", code)
		}
		s.start(gone, token)
	}
	gone.end(syscall.SIGKILL)
	eventually(t, func() error {
		out, err := stays.ECS.ListContainerInstances(t.Context(), &ecs.ListContainerInstancesInput{Cluster: &cluster})
		if err != nil || len(out.ContainerInstanceArns) != 1 {
			return fmt.Errorf("container instances: %+v, %v", out, err)
		}
		d, err := stays.ECS.DescribeContainerInstances(t.Context(), &ecs.DescribeContainerInstancesInput{Cluster: &cluster, ContainerInstances: out.ContainerInstanceArns})
		if err != nil || len(d.ContainerInstances) != 1 || !d.ContainerInstances[0].AgentConnected {
			return fmt.Errorf("host %s: %+v, %v", node, d, err)
		}
		return nil
	})
	if now := (&site{t: t, Client: stays.Client}).running(2); !slices.Equal(now, tasks) {
		t.Errorf("the tasks were %v and are %v", tasks, now)
	}
}

// operator runs `neargate operator` against a server, with the credentials of the environment, and returns what it says and its exit code.
func (one *oneServer) operator(t *testing.T, args ...string) (string, int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, slices.Concat([]string{"operator"}, args, []string{"--endpoint", one.url})...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// hold keeps the peer ports of servers that do not run, until free: in the meantime somebody else might be given them. Who connects is sent away.
func (s *servers) hold(these []*oneServer) (free func()) {
	s.t.Helper()
	var held []net.Listener
	for _, one := range these {
		l, err := net.Listen("tcp", one.peers)
		if err != nil {
			s.t.Fatal(err)
		}
		held = append(held, l)
		go func() {
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				c.Close()
			}
		}()
	}
	free = sync.OnceFunc(func() {
		for _, l := range held {
			l.Close()
		}
	})
	s.t.Cleanup(free)
	return free
}

// TestMajorityLost: without a leader a server shows whom it knows, who of them answers, and what it has; it says so when it is started, and goes on when the
// others are back.
func TestMajorityLost(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	s := startServers(t, 3)
	name := "kept"
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name}); err != nil {
		t.Fatal(err)
	}
	left := s.all[0]
	for _, one := range s.all {
		s.kill(one)
	}
	free := s.hold(s.all[1:])
	s.start(left, token)
	waits := left.says(`not ready yet; waiting.*for="no server leads; these servers of the cluster do not answer: (.*)"`)[0]
	left.url = "http://" + left.listen
	for _, lost := range s.all[1:] {
		if !strings.Contains(waits, lost.peers) {
			t.Errorf("it waits for %s, and not for %s", waits, lost.peers)
		}
	}
	said, code := left.operator(t, "members")
	if code != 0 || strings.Count(said, "not healthy: it does not answer") != 2 || strings.Count(said, " healthy\n") != 1 || !strings.Contains(said, "No server leads") {
		t.Errorf("`neargate operator members` ends with %d:\n%s", code, said)
	}
	free()
	for _, lost := range s.all[1:] {
		lost.listen = anyPort
		s.start(lost, token)
		s.ready(lost)
	}
	s.ready(left)
	eventually(t, func() error { // the leader asks them every second
		if said, code := left.operator(t, "members"); code != 0 || strings.Contains(said, "not healthy") || strings.Count(said, "leader") != 1 {
			return fmt.Errorf("`neargate operator members` ends with %d:\n%s", code, said)
		}
		return nil
	})
}

// TestStateIsGone: a member whose state was removed, and its keys were not, does not begin anew under its own name; emptied and with a token it does.
func TestStateIsGone(t *testing.T) {
	s := startServers(t, 3)
	name := "acknowledged"
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name}); err != nil {
		t.Fatal(err)
	}
	_, others := s.leader()
	one, ask := others[0], others[1]
	id, _, _ := member(t, ask, one)
	s.kill(one)
	if err := os.RemoveAll(filepath.Join(one.dir, "state")); err != nil {
		t.Fatal(err)
	}
	s.start(one, token)
	one.says("is gone, which holds what this server, " + id + ", has acknowledged: run `neargate operator remove " + id)
	one.wait()
	if code := one.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("ended with %d", code)
	}
	one.process = nil
	if _, err := ask.RemoveServer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	made, err := ask.CreateJoinToken(t.Context(), "server", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	one.dir = t.TempDir()
	s.start(one, made.Token, "--bootstrap-expect", "1")
	s.ready(one)
	if !one.allClusters(t)[name] {
		t.Error("the server that came back does not know what was acknowledged")
	}
}

// TestWrongKindOfToken: a host is told at once, and for good, that its token is for another kind of host.
func TestWrongKindOfToken(t *testing.T) {
	s := &site{t: t, serverDir: t.TempDir(), listen: anyPort, peers: anyPort}
	s.startServer()
	for role, args := range map[string][]string{
		"server": {"agent", "--servers", s.peers, "--runtime", "fake"},
		"agent":  {"server", "--listen", anyPort, "--peer-listen", anyPort, "--join", s.peers, "--insecure"},
	} {
		made, err := s.CreateJoinToken(t.Context(), role, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		p := start(t, append(args, "--data", t.TempDir(), "--join-token", made.Token)...)
		p.says("the join token is for another kind of host")
		p.wait()
		if code := p.cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("with a token for a %s: ended with %d", role, code)
		}
	}
}

// TestRevokedSecret: once the bootstrap secret is revoked it admits nobody, also by a server that is started with it again; members stay, and tokens admit.
func TestRevokedSecret(t *testing.T) {
	s := &site{t: t, serverDir: t.TempDir(), listen: anyPort, peers: anyPort}
	server := s.startServer()
	agent := func(dir, secret string) *process {
		return start(t, "agent", "-v", "--data", dir, "--servers", s.peers, "--runtime", "fake", "--join-token", secret)
	}
	member := t.TempDir()
	first := agent(member, token)
	first.says("agent .* is connected")
	start(t, "operator", "token", "revoke-secret", "--endpoint", s.url).says("The bootstrap secret admits no more hosts.")
	for range 2 {
		refused := agent(t.TempDir(), token)
		refused.says("the server refused the join token")
		refused.wait()
		server.end(syscall.SIGKILL)
		server = s.startServer()
	}
	first.end(syscall.SIGKILL)
	agent(member, token).says("agent .* is connected")
	made, err := s.CreateJoinToken(t.Context(), "agent", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	agent(t.TempDir(), made.Token).says("agent .* is connected")
}

// smallDisk is a file system of its own, on a file.
func smallDisk(t *testing.T, bytes int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system that fills up")
	}
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, bytes); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Skipf("this host mounts no file: %v: %v: %s", command, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

// TestServersDiskIsFull: a server whose disk is full refuses changes, and says so to clients, in its log and to probes; it answers reads, also after it was
// killed and started again with not a byte left; what it had acknowledged is there, and it goes on by itself once there is room.
func TestServersDiskIsFull(t *testing.T) {
	disk := smallDisk(t, 256<<20)
	s := &site{t: t, serverDir: filepath.Join(disk, "data"), listen: anyPort, peers: anyPort}
	server := s.startServer()
	made := map[string]bool{}
	create := func(name string) error {
		_, err := s.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name}, func(o *ecs.Options) { o.RetryMaxAttempts = 1 })
		if err == nil {
			made[name] = true
		}
		return err
	}
	probe := func() (int, string) {
		t.Helper()
		answer, err := http.Get(s.url + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(b)
	}
	known := func(when string) {
		t.Helper()
		is := (&oneServer{Client: s.Client}).allClusters(t)
		for name := range made {
			if !is[name] {
				t.Errorf("%s: %s is lost", when, name)
			}
		}
	}
	if err := create("before"); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(disk, "ballast")
	fill := func() {
		t.Helper()
		f, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for b := make([]byte, 1<<20); len(b) > 0; {
			if _, err := f.Write(b); err != nil {
				b = b[:len(b)/2]
			}
		}
		_ = f.Sync() // has none for what the file system has not
	}
	fill()
	n := 0
	eventually(t, func() error { // it looks now and then
		n++
		if err := create(fmt.Sprint("full-", n)); err == nil || !strings.Contains(err.Error(), "The disk of the server that leads is full") {
			return fmt.Errorf("a write on a full disk: %v", err)
		}
		return nil
	})
	server.says("nothing is written until there is room; reading goes on")
	if code, text := probe(); code != 503 || !strings.Contains(text, "[-]disk: ") || !strings.Contains(text, "no space left") {
		t.Errorf("the probe says %d: %s", code, text)
	}
	known("on a full disk")

	server.end(syscall.SIGKILL)
	fill()
	server = start(t, "server", "-v", "--data", s.serverDir, "--listen", s.listen, "--peer-listen", s.peers, "--join-token", token, "--insecure")
	server.says(`not ready yet; waiting.*no space left`)
	known("started on a full disk")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	server.says("neargate server is ready")
	if err := create("after"); err != nil {
		t.Error(err)
	}
	known("with room again")
	if code, text := probe(); code != 200 {
		t.Errorf("the probe says %d: %s", code, text)
	}
	server.end(syscall.SIGTERM)
}

// ownCertificate is one that another authority has made, for the address of this process.
func ownCertificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "own"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(own)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestOwnCertificate: the public port shows the certificate that it is given, and a server that is given a bad one makes nothing.
func TestOwnCertificate(t *testing.T) {
	data := t.TempDir()
	cert, key := ownCertificate(t, t.TempDir())
	_, another := ownCertificate(t, t.TempDir())
	args := []string{"server", "--data", data, "--listen", anyPort, "--peer-listen", anyPort, "--join-token", token, "--tls-cert", cert, "--tls-key"}
	bad := start(t, append(args, another)...)
	bad.says("certificate of the public port: .*private key does not match")
	bad.wait()
	if left, err := os.ReadDir(data); err != nil || len(left) > 0 || strings.Contains(bad.output(), "AWS_SECRET_ACCESS_KEY") {
		t.Errorf("with a bad certificate there is %v (%v), and it says %s", left, err, bad.output())
	}
	p := start(t, append(args, key)...)
	cfg := client.Config{Region: "us-east-1", CABundle: cert}
	cfg.AccessKey, cfg.SecretKey = p.says(`AWS_ACCESS_KEY_ID=(\S+)$`)[0], p.says(`AWS_SECRET_ACCESS_KEY=(\S{40})$`)[0]
	cfg.Endpoint = p.says(`ready at (https://\S+) `)[0]
	list := func(cfg client.Config) error {
		c, err := client.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Clusters(t.Context())
		return err
	}
	if err := list(cfg); err != nil {
		t.Error(err)
	}
	cfg.CABundle = filepath.Join(data, "keys", "ca.pem")
	if b, err := os.ReadFile(cfg.CABundle); err != nil || !bytes.Contains(b, []byte("CERTIFICATE")) {
		t.Fatalf("%s: %v", b, err)
	}
	if err := list(cfg); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("by the cluster's own authority: %v", err)
	}
}
