package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
)

// TestAllServersLost: of three servers nothing is left but a snapshot and one's folder of keys. One new server goes on with them, and the
// hosts, which notice that its state is another one, go on running what it knows.
func TestAllServersLost(t *testing.T) {
	s := startServers(t, 3)
	cluster := "apart"
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	s.startFakeAgent(t.TempDir())
	s.all[1].service(t, "web", 3)
	tasks := (&site{t: t, Client: s.all[2].Client}).running(3)
	var saved bytes.Buffer
	if err := s.all[2].SaveSnapshot(t.Context(), &saved); err != nil {
		t.Fatal(err)
	}
	for _, one := range s.all {
		one.end(syscall.SIGKILL)
	}

	fresh := &oneServer{dir: t.TempDir(), listen: anyPort, peers: s.peers[0]}
	if err := os.CopyFS(filepath.Join(fresh.dir, "keys"), os.DirFS(filepath.Join(s.all[0].dir, "keys"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(fresh.dir, "keys", "founding.json")); err != nil {
		t.Fatal(err)
	}
	fresh.process = start(t, "server", "-v", "--data", fresh.dir, "--listen", fresh.listen, "--peer-listen", fresh.peers, "--insecure")
	s.ready(fresh)
	if _, err := fresh.RestoreSnapshot(t.Context(), &saved); err != nil {
		t.Fatal(err)
	}
	if now := (&site{t: t, Client: fresh.Client}).running(3); !slices.Equal(now, tasks) {
		t.Errorf("the tasks were %v and are %v", tasks, now)
	}
	eventually(t, func() error {
		out, err := fresh.ECS.DescribeClusters(t.Context(), &ecs.DescribeClustersInput{Clusters: []string{cluster}})
		if err == nil && (len(out.Clusters) != 1 || out.Clusters[0].RegisteredContainerInstancesCount != 1) {
			err = fmt.Errorf("the cluster is %+v", out.Clusters)
		}
		return err
	})
	list, err := fresh.Servers(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("servers: %v, %v", list, err)
	}
}
