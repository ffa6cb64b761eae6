package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// buildNext builds the next version of this program (nextbuild.go).
func buildNext(t *testing.T) string {
	t.Helper()
	tags, err := os.ReadFile("../../scripts/tags")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "neargate")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", strings.TrimSpace(string(tags))+",neargate_next", "-ldflags", "-s -w", "-o", program, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("build the next version: %v\n%s", err, out)
	}
	return program
}

// change stops a server, as an upgrade does, and starts it with another program; "" is this one.
func (s *servers) change(one *oneServer, program string) {
	s.t.Helper()
	if code := one.end(syscall.SIGTERM); code != 0 {
		s.t.Errorf("server %s ended with %d; it said:\n%s", one.peers, code, one.output())
	}
	one.program = program
	s.start(one, token)
	s.ready(one)
}

// speak waits until all servers are well and speak what is wanted, in their order, and the cluster is at a version.
func (s *servers) speak(cluster uint32, want ...uint32) {
	s.t.Helper()
	eventually(s.t, func() error {
		for _, ask := range s.all {
			list, version, err := ask.Members(s.t.Context())
			if err != nil {
				return err
			}
			var got []uint32
			for _, one := range s.all {
				for _, d := range list {
					if d.Address == one.peers && d.Healthy {
						got = append(got, d.Version)
					}
				}
			}
			if version != cluster || !slices.Equal(got, want) {
				return fmt.Errorf("as %s says the cluster is at version %d and its servers speak %v; want %d and %v", ask.peers, version, got, cluster, want)
			}
		}
		return nil
	})
}

// lead has servers hand over until one leads that runs the program.
func (s *servers) lead(program string) *oneServer {
	s.t.Helper()
	for range 30 {
		leader, _ := s.leader()
		if leader.program == program {
			return leader
		}
		s.change(leader, leader.program)
	}
	s.t.Fatalf("none of those that run %q comes to lead", program)
	return nil
}

// saved is all of the state, as bytes.
func (one *oneServer) saved(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	eventually(t, func() error {
		b.Reset()
		return one.SaveSnapshot(t.Context(), &b)
	})
	return b.String()
}

// readBack asks one server after the other for what was acknowledged last: none may not know it.
func (s *servers) readBack(w *writer) (stop func() (answered int)) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	at, answered := s.clients(), 0
	running.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			names := w.acknowledged()
			if len(names) == 0 {
				continue
			}
			last := names[len(names)-1]
			out, err := at[i%len(at)].DescribeClusters(ctx, &ecs.DescribeClustersInput{Clusters: []string{last}}, func(o *ecs.Options) { o.RetryMaxAttempts = 1 })
			if err != nil {
				continue // that server may be the one that is stopped
			}
			if answered++; len(out.Clusters) != 1 || *out.Clusters[0].ClusterName != last || *out.Clusters[0].Status != "ACTIVE" {
				s.t.Errorf("server %d about %s: %+v", i%len(at), last, out)
			}
		}
	})
	stop = func() int { cancel(); running.Wait(); return answered }
	s.t.Cleanup(func() { stop() })
	return stop
}

// TestUpgrade: three servers get the next version of this program one by one, and while they are of two versions any of them may go back. What the
// next version holds back is not written before all are of it, and what it writes at once outlives the hands of the old; then there is no
// way back, and a server that tries says why. Clients and tasks notice nothing.
func TestUpgrade(t *testing.T) {
	next := buildNext(t)
	s := startServers(t, 3)
	cluster := "apart"
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	agent := s.startFakeAgent(t.TempDir())
	s.all[0].service(t, "web", 4)
	tasks := (&site{t: t, Client: s.all[1].Client}).running(4)
	w := s.write()
	stop := s.readBack(w)
	const old, marked, atOnce, heldBack = "", "marked-1", "written at once: marked-1", "held back: marked-1"
	settings := func(value string) { // has the record written anew
		t.Helper()
		leader, _ := s.leader()
		eventually(t, func() error {
			_, err := leader.ECS.UpdateClusterSettings(t.Context(), &ecs.UpdateClusterSettingsInput{Cluster: new(marked), Settings: []ecstypes.ClusterSetting{
				{Name: ecstypes.ClusterSettingNameContainerInsights, Value: &value},
			}})
			return err
		})
	}
	holds := func(when string, want bool, text string) {
		t.Helper()
		if has := strings.Contains(s.all[0].saved(t), text); has != want {
			t.Errorf("%s: the state has %q: %v", when, text, has)
		}
	}

	s.speak(1, 1, 1, 1)
	s.change(s.all[0], next)
	s.speak(1, 2, 1, 1)
	leader := s.lead(next)
	if _, err := leader.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new(marked)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if !strings.Contains(s.all[1].saved(t), atOnce) {
			return errors.New("the new leader does not write what it may")
		}
		return nil
	})
	s.change(leader, next) // hands over to an old one
	s.lead(old)
	settings("enabled")
	holds("an old leader has written the record anew", true, atOnce)
	w.more(t, 20)

	s.change(s.all[0], old)
	s.speak(1, 1, 1, 1)
	settings("disabled")
	holds("all are old again", true, atOnce)
	w.more(t, 20)

	for i, one := range s.all {
		holds(fmt.Sprintf("%d of 3 are of the next version", i), false, heldBack)
		s.change(one, next)
		w.more(t, 5)
	}
	s.speak(2, 2, 2, 2)
	eventually(t, func() error {
		if !strings.Contains(s.all[1].saved(t), heldBack) {
			return errors.New("what is held back is not written although all are of the next version")
		}
		return nil
	})

	back := s.all[2]
	back.end(syscall.SIGTERM)
	back.program = old
	s.start(back, token)
	back.says("the cluster has moved to version 2, and this build speaks 1")
	back.wait()
	if code := back.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("a server that cannot go back ends with %d", code)
	}
	back.program = next
	s.start(back, token)
	s.ready(back)
	s.speak(2, 2, 2, 2)
	made, err := s.all[0].CreateJoinToken(t.Context(), "server", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	refused := start(t, "server", "--data", t.TempDir(), "--listen", anyPort, "--peer-listen", anyPort, "--join", s.peers[0], "--join-token", made.Token, "--insecure")
	refused.says("the cluster has moved to a version that this build, which speaks 1, does not")
	s.speak(2, 2, 2, 2)

	w.more(t, 20)
	w.stop()
	if n := stop(); n < 50 {
		t.Errorf("only %d reads were answered", n)
	}
	t.Logf("%d writes were acknowledged; the longest pause was %v", len(w.names), w.longest)
	for _, one := range s.all {
		known := one.allClusters(t)
		for _, n := range w.names {
			if !known[n] {
				t.Errorf("server %s has lost %s", one.peers, n)
			}
		}
	}
	if now := (&site{t: t, Client: s.all[1].Client}).running(4); !slices.Equal(now, tasks) {
		t.Errorf("the tasks were %v and are %v", tasks, now)
	}
	for _, p := range []*process{agent, s.all[0].process, s.all[1].process, s.all[2].process} {
		if strings.Contains(p.output(), "panic") {
			t.Error(p.output())
		}
	}
}
