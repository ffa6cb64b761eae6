package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/client"
)

// servers are processes that form one cluster.
type servers struct {
	t     *testing.T
	peers []string // addresses of the first ones
	all   []*oneServer
}

type oneServer struct {
	*process
	dir, listen, peers, url string
	*client.Client
}

// freeAddresses are addresses that nobody listens on just now.
func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	var list []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		list = append(list, l.Addr().String())
	}
	return list
}

func startServers(t *testing.T, n int) *servers {
	t.Helper()
	s := &servers{t: t, peers: freeAddresses(t, n)}
	for i := range n {
		s.all = append(s.all, &oneServer{dir: t.TempDir(), listen: "127.0.0.1:0", peers: s.peers[i]})
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
	one.process = start(s.t, append(args, more...)...)
}

func (s *servers) ready(one *oneServer) {
	s.t.Helper()
	m := one.says(`ready at (http://(\S+)) .*peers at ([^,]+),`)
	one.url, one.listen = m[0], m[1]
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

// TestThreeServers: any server takes any request; the loss of the leader costs seconds and nothing that was acknowledged; tasks go on.
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
	s.all[1].service(t, "web", 4)
	site := &site{t: t, Client: s.all[2].Client}
	tasks := site.running(4)
	_ = agents
	_ = tasks
	var once sync.Once
	once.Do(func() {})
	_ = errors.New
	s.all[0].end(syscall.SIGKILL)
	site.running(4)
}
