package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/client"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd/etcdtest"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/blob/blobtest"
)

// servers are processes that form one cluster.
type servers struct {
	t     *testing.T
	peers []string // addresses of the first ones
	all   []*oneServer
	flags []string // of all of them, besides the usual ones
}

type oneServer struct {
	*process
	dir, listen, peers, url string
	program                 string // that it runs; "": this one
	*client.Client
}

// own is a loopback address of this process alone. Ports there that were picked, or that a server had which is to come back, are given to nobody else in the
// meantime, and none is where a connection of somebody else's comes from.
var own = fmt.Sprintf("127.79.%d.%d", os.Getpid()>>8&255, os.Getpid()&255)

// anyPort is any port of it.
var anyPort = own + ":0"

// picked are the ports of own that freeAddresses has picked, by address.
var picked sync.Map

// freeAddresses are addresses of which nobody else will be given the ports.
func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	var list []string
	for len(list) < n {
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", own, 10000+rand.IntN(20000))) // none that anyPort may be
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, again := picked.LoadOrStore(l.Addr().String(), true); !again {
			list = append(list, l.Addr().String())
		}
	}
	return list
}

func startServers(t *testing.T, n int, flags ...string) *servers {
	t.Helper()
	s := &servers{t: t, peers: freeAddresses(t, n), flags: flags}
	for i := range n {
		s.all = append(s.all, &oneServer{dir: t.TempDir(), listen: anyPort, peers: s.peers[i]})
	}
	for _, one := range s.all {
		s.start(one, token)
	}
	for _, one := range s.all {
		s.ready(one)
	}
	return s
}

// startNamed starts servers that all know images by the address of one, so that an agent may be with any.
func startNamed(t *testing.T, n int) *servers {
	t.Helper()
	listen := freeAddresses(t, n)
	s := &servers{t: t, peers: freeAddresses(t, n), flags: []string{"--public-name", listen[0]}}
	for i := range n {
		s.all = append(s.all, &oneServer{dir: t.TempDir(), listen: listen[i], peers: s.peers[i]})
	}
	for _, one := range s.all {
		s.start(one, token)
	}
	for _, one := range s.all {
		s.ready(one)
	}
	return s
}

// start starts a server, for the first time or again.
func (s *servers) start(one *oneServer, token string, more ...string) {
	args := []string{"server", "-v", "--data", one.dir, "--listen", one.listen, "--peer-listen", one.peers, "--join", strings.Join(s.peers, ","),
		"--join-token", token, "--insecure"}
	if len(more) == 0 {
		more = []string{"--bootstrap-expect", fmt.Sprint(len(s.peers))}
	}
	one.process = startCommand(s.t, func(self string, args ...string) *exec.Cmd { return exec.Command(cmp.Or(one.program, self), args...) },
		slices.Concat(args, s.flags, more)...)
}

func (s *servers) ready(one *oneServer) {
	s.t.Helper()
	m := one.says(`ready at (http://(\S+)) .*peers at ([^,]+),`)
	one.url, one.listen, one.peers = m[0], m[1], m[2]
	var err error
	if one.Client, err = client.New(client.Config{Endpoint: one.url, Region: "us-east-1", AccessKey: "test", SecretKey: "test"}); err != nil {
		s.t.Fatal(err)
	}
}

// startFakeAgent starts an agent of the cluster "apart" that knows all servers.
func (s *servers) startFakeAgent(dir string) *process {
	s.t.Helper()
	p := start(s.t, "agent", "-v", "--data", dir, "--servers", strings.Join(s.peers, ","), "--cluster", "apart", "--runtime", "fake", "--join-token", token)
	p.says(`agent (\S+) is connected`)
	return p
}

// service makes a service of n tasks on a server.
func (one *oneServer) service(t *testing.T, name string, n int32) {
	t.Helper()
	cluster := "apart"
	if _, err := one.ECS.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{
		Family: &name, NetworkMode: ecstypes.NetworkModeBridge,
		ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("web"), Image: new("registry.test/web:1"), Cpu: 16, Memory: new(int32(16))}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := one.ECS.CreateService(t.Context(), &ecs.CreateServiceInput{
		Cluster: &cluster, ServiceName: &name, TaskDefinition: &name, DesiredCount: &n, LaunchType: ecstypes.LaunchTypeEc2,
	}); err != nil {
		t.Fatal(err)
	}
}

// clusters are the names of the ECS clusters that a server knows.
func (one *oneServer) clusters(t *testing.T) []string {
	t.Helper()
	out, err := one.ECS.ListClusters(t.Context(), &ecs.ListClustersInput{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, arn := range out.ClusterArns {
		names = append(names, arn[strings.LastIndex(arn, "/")+1:])
	}
	return names
}

// leader waits until the servers' leader is one that runs, and returns it with those that follow.
func (s *servers) leader() (*oneServer, []*oneServer) {
	s.t.Helper()
	var leader *oneServer
	var others []*oneServer
	eventually(s.t, func() error {
		leader, others = nil, nil
		for _, one := range s.all {
			if one.process == nil {
				continue
			}
			list, err := one.Servers(s.t.Context())
			if err != nil {
				return err
			}
			for _, d := range list {
				if d.Role == "leader" && d.Address == one.peers {
					leader = one
				}
			}
			if leader != one {
				others = append(others, one)
			}
		}
		if leader == nil {
			return errors.New("nobody leads")
		}
		return nil
	})
	return leader, others
}

func (s *servers) kill(one *oneServer) {
	one.end(syscall.SIGKILL)
	one.process = nil
}

// clients are for who asks servers while they are started again: one that is keeps its address.
func (s *servers) clients() (all []*ecs.Client) {
	for _, one := range s.all {
		all = append(all, one.ECS)
	}
	return all
}

// writer makes ECS clusters without a break, through one server after the other, and notes what was acknowledged.
type writer struct {
	stop func()

	mu      sync.Mutex
	names   []string
	longest time.Duration // between two acknowledgements
}

func (s *servers) write() *writer {
	ctx, cancel := context.WithCancel(s.t.Context())
	w := &writer{}
	var running sync.WaitGroup
	w.stop = func() { cancel(); running.Wait() }
	s.t.Cleanup(w.stop)
	at := s.clients()
	running.Go(func() {
		last := time.Now()
		for i := 0; ctx.Err() == nil; i++ {
			name := fmt.Sprint("acknowledged-", i)
			_, err := at[i%len(at)].CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: &name}, func(o *ecs.Options) { o.RetryMaxAttempts = 1 })
			if err != nil {
				continue // that server may be the one that is dead
			}
			w.mu.Lock()
			w.names = append(w.names, name)
			w.longest, last = max(w.longest, time.Since(last)), time.Now()
			w.mu.Unlock()
		}
	})
	return w
}

// more waits until n more writes are acknowledged.
func (w *writer) more(t *testing.T, n int) {
	t.Helper()
	from := len(w.acknowledged())
	eventually(t, func() error {
		if now := len(w.acknowledged()); now < from+n {
			return fmt.Errorf("%d writes were acknowledged, of %d", now-from, n)
		}
		return nil
	})
}

func (w *writer) acknowledged() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.names)
}

// TestThreeServers: any server takes any request; the loss of the leader costs seconds and nothing that was acknowledged; tasks go on;
// the server that was lost comes back, or another takes its place.
func TestThreeServers(t *testing.T) {
	s := startServers(t, 3)
	cluster := "apart"
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	agents := []*process{s.startFakeAgent(t.TempDir()), s.startFakeAgent(t.TempDir())}
	for i, one := range s.all {
		name := fmt.Sprint("made-at-", i)
		if _, err := one.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name}); err != nil {
			t.Fatal(err)
		}
		for j, other := range s.all {
			if !slices.Contains(other.clusters(t), name) {
				t.Errorf("server %d does not know at once what server %d has acknowledged", j, i)
			}
		}
	}
	leader, others := s.leader()
	others[0].service(t, "web", 4)
	tasks := (&site{t: t, Client: others[1].Client}).running(4)
	unharmed := func(when string, ask *oneServer) {
		t.Helper()
		if now := (&site{t: t, Client: ask.Client}).running(len(tasks)); !slices.Equal(now, tasks) {
			t.Errorf("%s: the tasks were %v and are %v", when, tasks, now)
		}
	}

	// An agent has its session with one server; the others find it.
	for _, one := range s.all {
		for _, task := range tasks {
			arn, _, _ := strings.Cut(task, " ")
			found, err := one.FindTask(t.Context(), cluster, arn)
			if err != nil {
				t.Fatal(err)
			}
			err = one.Logs(t.Context(), found, client.LogOptions{}, func(l client.LogLine) error {
				if l.Stream == "platform" {
					t.Errorf("server %s about the logs of %s: %s", one.peers, arn, l.Message)
				}
				return nil
			})
			if err != nil {
				t.Errorf("server %s about the logs of %s: %v", one.peers, arn, err)
			}
		}
	}

	w := s.write()
	w.more(t, 20)
	dead := leader
	s.kill(dead)
	w.more(t, 20)
	leader, others = s.leader()
	name := "made-without-it"
	for _, one := range []*oneServer{others[0], leader} {
		if _, err := one.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name}); err != nil {
			t.Errorf("after the leader was killed: %v", err)
		}
	}
	unharmed("after the leader was killed", others[0])
	s.start(dead, token)
	s.ready(dead)
	w.more(t, 20)
	w.stop()
	t.Logf("%d writes were acknowledged meanwhile; the longest pause was %v", len(w.names), w.longest)
	for _, one := range s.all {
		known := one.allClusters(t)
		for _, n := range append(w.names, name) {
			if !known[n] {
				t.Errorf("server %s has lost %s", one.peers, n)
			}
		}
	}
	unharmed("after it came back", dead)
	for _, a := range agents {
		if strings.Contains(a.output(), "panic") {
			t.Error(a.output())
		}
	}

	// A fourth server takes the place of one that is lost for good.
	leader, others = s.leader()
	lost := others[0]
	var id string
	list, err := leader.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if d.Address == lost.peers {
			id = d.ID
		}
	}
	s.kill(lost)
	if got, err := others[1].RemoveServer(t.Context(), id[:8]); err != nil || got != id {
		t.Fatal(got, err)
	}
	fourth := &oneServer{dir: t.TempDir(), listen: anyPort, peers: anyPort}
	refused := start(t, "server", "--data", t.TempDir(), "--listen", anyPort, "--peer-listen", anyPort, "--join", leader.peers, "--join-token", token, "--insecure")
	refused.says("give a token of `neargate operator token`")
	made, err := others[1].CreateJoinToken(t.Context(), "server", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	s.start(fourth, made.Token, "--bootstrap-expect", "1")
	s.ready(fourth)
	s.all = append(slices.DeleteFunc(s.all, func(one *oneServer) bool { return one == lost }), fourth)
	if !fourth.allClusters(t)[name] {
		t.Error("the fourth server does not know what was acknowledged")
	}
	eventually(t, func() error {
		list, err := fourth.Servers(t.Context())
		if err != nil {
			return err
		}
		voters := 0
		for _, d := range list {
			if d.Role != "learner" && d.Healthy {
				voters++
			}
		}
		if voters != 3 || len(list) != 3 {
			return fmt.Errorf("the servers are %+v", list)
		}
		return nil
	})
	// What is acknowledged after the vote was given comes after it in the log: now the fourth has it for good.
	settled := "made-before-another-loss"
	if _, err := fourth.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &settled}); err != nil {
		t.Fatal(err)
	}
	leader, _ = s.leader()
	s.kill(leader)
	_, others = s.leader()
	unharmed("with the fourth server, after another leader was killed", others[0])
	again := "made-with-the-fourth"
	if _, err := others[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &again}); err != nil {
		t.Error(err)
	}
}

// allClusters are the names of all ECS clusters that a server knows.
func (one *oneServer) allClusters(t *testing.T) map[string]bool {
	t.Helper()
	names, err := one.knownClusters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func (one *oneServer) knownClusters(ctx context.Context) (map[string]bool, error) {
	names := map[string]bool{}
	for p := ecs.NewListClustersPaginator(one.ECS, &ecs.ListClustersInput{}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, arn := range page.ClusterArns {
			names[arn[strings.LastIndex(arn, "/")+1:]] = true
		}
	}
	return names, nil
}

// TestRegistryOfThreeServers: what is pushed to any server is pulled from any, also once the one that took it in is gone.
func TestRegistryOfThreeServers(t *testing.T) {
	s := startServers(t, 3)
	leader, others := s.leader()
	repository := "app/web"
	if _, err := others[0].ECR.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &repository}); err != nil {
		t.Fatal(err)
	}
	login := ociclient.Credentials{User: "test", Password: "test"}
	name := func(one *oneServer, tag string) string { return one.listen + "/" + repository + ":" + tag }
	push := func(one *oneServer, tag string) {
		t.Helper()
		image := ocitest.Image(t, ociclient.Config{}, []ociclient.File{ociclient.Text("same", strings.Repeat("x", 1<<20))}, []ociclient.File{ociclient.Text("tag", tag)})
		if _, err := new(ociclient.Client).Push(t.Context(), name(one, tag), login, image); err != nil {
			t.Fatal(err)
		}
	}
	pulled := func(one *oneServer, tag string) {
		t.Helper()
		if err := pull(t, name(one, tag), login); err != nil {
			t.Errorf("%s of server %s: %v", tag, one.peers, err)
		}
	}
	push(others[0], "first")
	for _, one := range s.all {
		pulled(one, "first")
	}
	push(others[0], "unread") // by nobody, so that only the push has copied it
	s.kill(leader)
	_, left := s.leader()
	push(left[0], "second")
	for _, one := range s.all {
		if one.process != nil {
			pulled(one, "first")
			pulled(one, "unread")
			pulled(one, "second")
		}
	}
	// The one that was away copies what it has missed, without being asked for it.
	s.start(leader, token)
	s.ready(leader)
	blobs := func(one *oneServer) []blob.Digest {
		t.Helper()
		return blobtest.Digests(t, filepath.Join(one.dir, "blobs"))
	}
	eventually(t, func() error {
		want, is := blobs(left[0]), blobs(leader)
		if len(want) < 6 || !slices.Equal(want, is) {
			return fmt.Errorf("one server has the blobs %v, the other %v", want, is)
		}
		return nil
	})
}

// pull reads an image, whose bytes the client checks.
func pull(t *testing.T, ref string, login ociclient.Credentials) error {
	t.Helper()
	image, err := new(ociclient.Client).Resolve(t.Context(), ref, login)
	if err != nil {
		return err
	}
	if _, err := image.Config(); err != nil {
		return err
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		r, err := l.Open()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// TestFormingServers: first servers that are killed while they form the cluster form one all the same, with one authority and one set of
// root credentials, printed once; afterwards they come back to it whatever the flags say.
func TestFormingServers(t *testing.T) {
	s := &servers{t: t, peers: freeAddresses(t, 3)}
	var outputs []func() string
	run := func(one *oneServer, expect string) {
		one.process = start(t, "server", "--data", one.dir, "--listen", one.listen, "--peer-listen", one.peers, "--join", strings.Join(s.peers, ","),
			"--join-token", token, "--bootstrap-expect", expect)
		outputs = append(outputs, one.process.output)
	}
	for _, address := range s.peers {
		s.all = append(s.all, &oneServer{dir: t.TempDir(), listen: anyPort, peers: address})
	}
	run(s.all[0], "3")
	s.all[0].says("1 of 3 servers are there")
	s.kill(s.all[0])
	run(s.all[0], "3")
	run(s.all[1], "5")
	s.all[0].says("has --bootstrap-expect 5 and this one 3: start all with the same")
	s.kill(s.all[1])
	run(s.all[2], "3")
	s.all[2].says("2 of 3 servers are there")
	run(s.all[1], "3")
	ready := func() {
		t.Helper()
		for _, one := range s.all {
			m := one.says(`ready at (https://(\S+)) `)
			one.url, one.listen = m[0], m[1]
		}
	}
	ready()
	shown := regexp.MustCompile(`AWS_ACCESS_KEY_ID=(\S+)\s+export AWS_SECRET_ACCESS_KEY=(\S+)`)
	var roots [][]string
	for _, output := range outputs {
		roots = append(roots, shown.FindAllStringSubmatch(output(), -1)...)
	}
	if len(roots) != 1 {
		t.Fatalf("root credentials were shown %d times", len(roots))
	}
	clusters := func(want ...string) {
		t.Helper()
		for _, one := range s.all {
			c, err := client.New(client.Config{Endpoint: one.url, Region: "us-east-1", AccessKey: roots[0][1], SecretKey: roots[0][2], CABundle: filepath.Join(s.all[0].dir, "keys", "ca.pem")})
			if err != nil {
				t.Fatal(err)
			}
			one.Client = c
			names, err := c.Clusters(t.Context())
			if err != nil || !slices.Equal(names, want) {
				t.Errorf("server %s: the clusters are %v, %v; want %v", one.peers, names, err, want)
			}
		}
	}
	clusters()
	name := "kept"
	if _, err := s.all[1].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name}); err != nil {
		t.Fatal(err)
	}
	// Every server admits hosts.
	for _, one := range s.all {
		agent := start(t, "agent", "--data", t.TempDir(), "--servers", one.peers, "--cluster", name, "--runtime", "fake", "--join-token", token)
		agent.says(`agent (\S+) is connected`)
	}

	// A snapshot, through whichever server, undoes what came after it.
	t.Setenv("AWS_ACCESS_KEY_ID", roots[0][1])
	t.Setenv("AWS_SECRET_ACCESS_KEY", roots[0][2])
	t.Setenv("AWS_CA_BUNDLE", filepath.Join(s.all[2].dir, "keys", "ca.pem"))
	operator := func(one *oneServer, args ...string) string {
		t.Helper()
		p := start(t, append(append([]string{"operator"}, args...), "--endpoint", one.url)...)
		p.wait()
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			t.Fatalf("neargate operator %v ended with %d: %s", args, code, p.output())
		}
		return p.output()
	}
	file := filepath.Join(t.TempDir(), "state")
	operator(s.all[0], "snapshot", "save", file)
	undone := "undone"
	if _, err := s.all[2].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &undone}); err != nil {
		t.Fatal(err)
	}
	clusters(name, undone)
	_, followers := s.leader()
	operator(followers[0], "snapshot", "restore", file)
	clusters(name)
	if out := operator(followers[1], "members"); strings.Count(out, own+":") != 3 || strings.Count(out, "leader") != 1 {
		t.Errorf("the members are\n%s", out)
	}

	for _, one := range s.all {
		s.kill(one)
	}
	for _, one := range s.all {
		run(one, "5")
	}
	ready()
	clusters(name)
	sealingKeyIsApart(t, s.all, name, file)
}

// TestServerMoves: a server that is started with another peer address is found there by the others, whether it has followed or led before.
func TestServerMoves(t *testing.T) {
	for _, engine := range []string{"raft", "etcd"} {
		t.Run(engine, func(t *testing.T) {
			var flags []string
			if engine == "etcd" {
				flags = []string{"--state", "etcd", "--etcd-endpoints", etcdtest.Start(t).Endpoint}
			}
			s := startServers(t, 3, flags...)
			leader, others := s.leader()
			for i, one := range []*oneServer{others[0], leader} {
				one.end(syscall.SIGTERM)
				one.peers = freeAddresses(t, 1)[0]
				s.start(one, token)
				s.ready(one)
				eventually(t, func() error {
					for _, ask := range s.all {
						if _, _, healthy := member(t, ask, one); !healthy {
							return fmt.Errorf("server %s does not know that %s is well", ask.peers, one.peers)
						}
					}
					return nil
				})
				name := fmt.Sprint("after-move-", i)
				if _, err := one.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestFiveServers: five live through the loss of two at once, whoever leads among them.
func TestFiveServers(t *testing.T) {
	s := startServers(t, 5)
	cluster := "apart"
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	s.startFakeAgent(t.TempDir())
	s.all[4].service(t, "web", 2)
	tasks := (&site{t: t, Client: s.all[3].Client}).running(2)
	w := s.write()
	w.more(t, 20)
	leader, others := s.leader()
	s.kill(leader)
	s.kill(others[0])
	w.more(t, 20)
	w.stop()
	for _, one := range others[1:] {
		known := one.allClusters(t)
		for _, n := range w.acknowledged() {
			if !known[n] {
				t.Errorf("server %s has lost %s", one.peers, n)
			}
		}
	}
	if now := (&site{t: t, Client: others[1].Client}).running(2); !slices.Equal(now, tasks) {
		t.Errorf("the tasks were %v and are %v", tasks, now)
	}
	for _, one := range []*oneServer{leader, others[0]} {
		s.start(one, token)
		s.ready(one)
		if known := one.allClusters(t); !known[cluster] {
			t.Errorf("server %s has come back without the state", one.peers)
		}
	}
}

// TestLeaderStopsAndGoesOn: a leader that is stopped whole, as a host that swaps or is migrated stops, is replaced; when it goes on it believes that it
// leads still, and must neither acknowledge what the others do not have nor answer from before.
func TestLeaderStopsAndGoesOn(t *testing.T) {
	s := startServers(t, 3)
	for round := range 2 {
		old, others := s.leader()
		if err := old.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		// Asked while it stands still: it has these in its sockets when it goes on.
		late := fmt.Sprint("late-", round)
		answered := make(chan error, 1)
		go func() {
			_, err := old.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &late})
			answered <- err
		}()
		name := fmt.Sprint("without-it-", round)
		eventually(t, func() error {
			_, err := others[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name})
			return err
		})
		if err := old.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if known := old.allClusters(t); !known[name] {
			t.Errorf("round %d: the old leader answers from before", round)
		}
		err := <-answered
		for _, one := range s.all {
			if known := one.allClusters(t); err == nil && !known[late] {
				t.Errorf("round %d: server %s has not what the old leader has acknowledged", round, one.peers)
			}
		}
	}
}
