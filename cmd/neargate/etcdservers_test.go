package main

import (
	"bytes"
	"errors"
	"fmt"
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

// member finds a server's entry in the list that another one gives, which may have to wait for a leader.
func member(t *testing.T, ask, about *oneServer) (id, role string, healthy bool) {
	t.Helper()
	var list []client.ServerDescription
	eventually(t, func() (err error) {
		list, err = ask.Servers(t.Context())
		return err
	})
	for _, d := range list {
		if d.Address == about.peers {
			return d.ID, d.Role, d.Healthy
		}
	}
	return "", "", false
}

// TestServersOnOneEtcd: servers whose state is in an etcd are one cluster as those are that keep it themselves. Any takes any request, the
// loss of the leader costs no more than its lease, a server can be removed, the leader too, and another one takes its place.
func TestServersOnOneEtcd(t *testing.T) {
	keep := etcdtest.Start(t)
	flags := []string{"--state", "etcd", "--etcd-endpoints", keep.Endpoint, "--etcd-prefix", "/shared"}
	s := startServers(t, 3, flags...)
	cluster := "apart"
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	s.startFakeAgent(t.TempDir())
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
	others[0].service(t, "web", 3)
	tasks := (&site{t: t, Client: others[1].Client}).running(3)

	w := s.write()
	w.more(t, 20)
	lost := leader
	s.kill(lost)
	w.more(t, 20)
	leader, others = s.leader()
	w.stop()
	t.Logf("the longest pause was %v", w.longest)
	for _, one := range []*oneServer{leader, others[0]} {
		known := one.allClusters(t)
		for _, n := range w.acknowledged() {
			if !known[n] {
				t.Errorf("server %s has lost %s", one.peers, n)
			}
		}
	}
	if now := (&site{t: t, Client: others[0].Client}).running(3); !slices.Equal(now, tasks) {
		t.Errorf("the tasks were %v and are %v", tasks, now)
	}

	// The lost one is removed, by way of a server that follows, and may not come back.
	eventually(t, func() error {
		if _, _, healthy := member(t, others[0], lost); healthy {
			return errors.New("the killed server passes for healthy")
		}
		return nil
	})
	id, _, _ := member(t, others[0], lost)
	if got, err := others[0].RemoveServer(t.Context(), id[:8]); err != nil || got != id {
		t.Fatal(got, err)
	}
	s.start(lost, token)
	lost.says("this server was removed from the cluster")
	lost.wait()
	if code := lost.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("a removed server that is started ends with %d", code)
	}
	lost.process = nil

	// Another one comes by a token.
	made, err := others[0].CreateJoinToken(t.Context(), "server", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	fourth := &oneServer{dir: t.TempDir(), listen: anyPort, peers: anyPort}
	s.peers = []string{leader.peers, others[0].peers}
	s.start(fourth, made.Token, "--bootstrap-expect", "1")
	s.ready(fourth)
	s.all = []*oneServer{leader, others[0], fourth}
	if known := fourth.allClusters(t); !known["made-at-0"] {
		t.Errorf("the fourth server knows %v", known)
	}
	eventually(t, func() error { // it takes its lease while it becomes ready, and is a member before
		if _, role, healthy := member(t, leader, fourth); role != "voter" || !healthy {
			return fmt.Errorf("the fourth server is %q, healthy: %v", role, healthy)
		}
		return nil
	})

	// The leader itself: it hands over, its successor removes it, and it ends.
	id, _, _ = member(t, fourth, leader)
	eventually(t, func() error {
		_, err := fourth.RemoveServer(t.Context(), id)
		if err != nil && strings.Contains(err.Error(), "has no server") {
			return nil // an earlier attempt has done it
		}
		return err
	})
	leader.says("this server was removed from the cluster")
	leader.end(syscall.SIGTERM)
	leader.process = nil
	leader, _ = s.leader()
	name := "made-by-the-rest"
	if _, err := leader.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name}); err != nil {
		t.Fatal(err)
	}
}

// TestFollowerOfEtcdLags: who asks for the servers sees how far one is behind that does not get through to etcd, and that it has caught up.
func TestFollowerOfEtcdLags(t *testing.T) {
	keep := etcdtest.Start(t)
	flags := func(endpoint string) []string { return []string{"--state", "etcd", "--etcd-endpoints", endpoint} }
	s := startServers(t, 3, flags(keep.Endpoint)...)
	leader, others := s.leader()
	follower := others[0]
	follower.end(syscall.SIGTERM)
	way := etcdtest.NewLink(t, keep)
	s.flags = flags(way.Endpoint)
	s.start(follower, token)
	s.ready(follower)
	lag := func() (n uint64) {
		t.Helper()
		eventually(t, func() error {
			list, err := leader.Servers(t.Context())
			if err != nil {
				return err
			}
			for _, d := range list {
				if d.Address == follower.peers && d.Version > 0 { // it has said how far it is
					n = d.Lag
					return nil
				}
			}
			return fmt.Errorf("server %s does not answer: %+v", follower.peers, list)
		})
		return n
	}
	made := 0
	write := func(n int) {
		t.Helper()
		for range n {
			name := fmt.Sprint("made-", made)
			if _, err := leader.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name}); err != nil {
				t.Fatal(err)
			}
			made++
		}
	}
	write(5)
	none := func() error {
		if n := lag(); n != 0 {
			return fmt.Errorf("the server is %d transactions behind", n)
		}
		return nil
	}
	eventually(t, none)
	way.Hold(true, true)
	for last := uint64(0); last < 60; {
		write(20)
		now := lag()
		if now < last+20 {
			t.Fatalf("the lag is %d after %d and 20 more transactions", now, last)
		}
		last = now
	}
	way.Heal()
	eventually(t, none)
	if known := follower.allClusters(t); len(known) < made {
		t.Errorf("the server knows %d clusters, %d were made", len(known), made)
	}
}

// TestStateMovesBetweenEngines: a cluster of one moves from its own disk into an etcd and back, by a snapshot each time. What it runs goes on.
func TestStateMovesBetweenEngines(t *testing.T) {
	keep := etcdtest.Start(t)
	s := &servers{t: t, peers: freeAddresses(t, 1)}
	one := &oneServer{dir: t.TempDir(), listen: anyPort, peers: s.peers[0]}
	s.all = []*oneServer{one}
	s.start(one, token)
	s.ready(one)
	cluster := "apart"
	if _, err := one.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	s.startFakeAgent(t.TempDir())
	one.service(t, "web", 3)
	tasks := (&site{t: t, Client: one.Client}).running(3)
	state := filepath.Join(one.dir, "state", "main")
	for i, flags := range [][]string{{"--state", "etcd", "--etcd-endpoints", keep.Endpoint}, nil} {
		var saved bytes.Buffer
		if err := one.SaveSnapshot(t.Context(), &saved); err != nil {
			t.Fatal(err)
		}
		one.end(syscall.SIGTERM)
		s.flags = flags
		if i == 0 {
			s.start(one, token)
			one.says("holds the state itself")
			one.end(syscall.SIGTERM)
		}
		if err := os.Rename(state, fmt.Sprint(state, ".", i)); err != nil {
			t.Fatal(err)
		}
		s.start(one, token)
		s.ready(one)
		if _, err := one.RestoreSnapshot(t.Context(), &saved); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			list, err := one.ECS.ListContainerInstances(t.Context(), &ecs.ListContainerInstancesInput{Cluster: &cluster})
			if err == nil && len(list.ContainerInstanceArns) != 1 {
				err = fmt.Errorf("container instances: %v", list.ContainerInstanceArns)
			}
			return err
		})
		if now := (&site{t: t, Client: one.Client}).running(3); !slices.Equal(now, tasks) {
			t.Errorf("with %v the tasks are %v, and were %v", flags, now, tasks)
		}
		name := fmt.Sprint("after-move-", i)
		if _, err := one.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name}); err != nil {
			t.Fatal(err)
		}
	}
	if known := one.allClusters(t); !known["after-move-0"] {
		t.Errorf("what was made while the state was in etcd is lost: %v", known)
	}
}
