package runtimetest

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

const childVariable = "NEARGATE_RUNTIMETEST"

// child is what a process of the suite that is going to be killed has to do.
type child struct {
	Dir, Image string
	IDs        []string
	Command    []string
	// Images are pulled one after the other once the tasks run, each for a task that is started, stopped and removed.
	Images []string
}

// Main runs a package's tests. In a process that the suite started to be killed it runs the driver instead.
func Main(m *testing.M, open Factory) {
	if v := os.Getenv(childVariable); v != "" {
		if err := runChild(v, open); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		select {} // until killed
	}
	os.Exit(m.Run())
}

func runChild(v string, open Factory) error {
	var c child
	if err := json.Unmarshal([]byte(v), &c); err != nil {
		return err
	}
	ctx := context.Background()
	d, err := open(c.Dir)
	if err != nil {
		return err
	}
	if _, err := d.Recover(ctx); err != nil {
		return err
	}
	if _, err := d.Pull(ctx, runtime.PullRequest{Image: c.Image}); err != nil {
		return err
	}
	for _, id := range c.IDs {
		spec := command(c.Command...)
		spec.Image, spec.Ports = c.Image, []*agentapi.PortMapping{{ContainerPort: 80, Protocol: "tcp"}}
		fmt.Println("creating", id)
		if _, err := d.Create(ctx, runtime.Task{ID: id, Spec: &agentapi.TaskSpec{NetworkMode: "bridge", Containers: []*agentapi.ContainerSpec{spec}}}); err != nil {
			return err
		}
		fmt.Println("created", id)
		started, err := d.Start(ctx, id, "main")
		if err != nil {
			return err
		}
		fmt.Println("started", id, started.PID)
	}
	fmt.Println("ready")
	for n, image := range c.Images {
		if err := churn(ctx, d, fmt.Sprintf("%032d", n), image); err != nil {
			return err
		}
	}
	return nil
}

// churn takes a task through its whole life.
func churn(ctx context.Context, d runtime.Driver, id, image string) error {
	fmt.Println("pulling", image)
	if _, err := d.Pull(ctx, runtime.PullRequest{Image: image}); err != nil {
		return err
	}
	spec := command("wait")
	spec.Image = image
	if _, err := d.Create(ctx, runtime.Task{ID: id, Spec: &agentapi.TaskSpec{NetworkMode: "bridge", Containers: []*agentapi.ContainerSpec{spec}}}); err != nil {
		return err
	}
	if _, err := d.Start(ctx, id, "main"); err != nil {
		return err
	}
	fmt.Println("stopping", id)
	if err := d.Stop(ctx, id, "main", 10*time.Second); err != nil {
		return err
	}
	fmt.Println("removing", id)
	if err := d.Remove(ctx, id); err != nil {
		return err
	}
	fmt.Println("removed", id)
	return nil
}

// recovery kills the driver's process.
func (s *suite) recovery(t *testing.T) {
	ctx := context.Background()

	t.Run("Adopts", func(t *testing.T) {
		h := s.host(t)
		if err := h.Close(ctx, false); err != nil {
			t.Fatal(err)
		}
		ids := []string{TaskID(), TaskID()}
		pids := map[string]int{}
		s.kill(t, child{Dir: h.Dir, Image: h.Image, IDs: ids, Command: []string{"serve", ":80", "alive"}}, func(line string) bool {
			var id string
			var pid int
			if n, _ := fmt.Sscanf(line, "started %s %d", &id, &pid); n == 2 {
				pids[id] = pid
			}
			return line == "ready"
		})
		got := s.reopen(t, h)
		if len(got) != len(ids) {
			t.Fatalf("recovered %d tasks, want %d", len(got), len(ids))
		}
		for _, r := range got {
			c := r.Containers["main"]
			if c.Exit != nil || c.Started.PID != pids[r.Task.ID] {
				t.Errorf("task %s: %+v, started as %d", r.Task.ID, c, pids[r.Task.ID])
				continue
			}
			if answer := get(t, fmt.Sprintf("http://127.0.0.1:%d", r.Sandbox.Ports["main"][0].HostPort)); !strings.HasPrefix(answer, "alive ") {
				t.Errorf("task %s answers %q", r.Task.ID, answer)
			}
			if err := h.Stop(ctx, r.Task.ID, "main", 10*time.Second); err != nil {
				t.Error(err)
			}
			if e := h.wait(r.Task, "main"); e.Code != 0 {
				t.Errorf("exit = %+v", e)
			}
		}
	})

	// Killed at any point, what is found again can be removed and nothing is left.
	for _, point := range []string{"creating", "created", "started", "ready"} {
		for _, delay := range []time.Duration{0, 5 * time.Millisecond, 30 * time.Millisecond} {
			t.Run(fmt.Sprintf("Killed/%s+%v", point, delay), func(t *testing.T) {
				h := s.host(t)
				if err := h.Close(ctx, false); err != nil {
					t.Fatal(err)
				}
				ids := make([]string, 3)
				for n := range ids {
					ids[n] = TaskID()
				}
				seen := 0
				s.kill(t, child{Dir: h.Dir, Image: h.Image, IDs: ids, Command: []string{"wait"}}, func(line string) bool {
					if strings.HasPrefix(line, point) {
						seen++
					}
					hit := seen == 2 || line == "ready"
					if hit {
						time.Sleep(delay) // the point of the test: somewhere within the next step
					}
					return hit
				})
				for _, r := range s.reopen(t, h) {
					if err := h.Remove(ctx, r.Task.ID); err != nil {
						t.Errorf("remove: %v", err)
					}
				}
				left, err := h.Recover(ctx)
				if err != nil || len(left) != 0 {
					t.Errorf("%d tasks left, %v", len(left), err)
				}
			})
		}
	}
}

// killed kills the driver's process at some moment of pulls, stops and removals. The task that runs goes on, of the others and of pulls
// nothing is left but whole images, and everything can be done again.
func (s *suite) killed(t *testing.T) {
	ctx := context.Background()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for _, point := range []string{"pulling", "stopping", "removing"} {
		for round := range 2 {
			nth, delay := 1+random.IntN(3), time.Duration(random.Int64N(int64(60*time.Millisecond)))
			t.Run(fmt.Sprintf("%s/%d", point, round), func(t *testing.T) {
				t.Logf("seed %d: the %d. time, after %v", seed, nth, delay)
				h := s.host(t)
				body := make([]byte, 4<<20)
				for i := range body {
					body[i] = byte(random.Uint32())
				}
				var images []string
				for n := range 3 {
					own := []ociclient.File{ociclient.Text(fmt.Sprint("data/", n), fmt.Sprint(n)), {Header: tar.Header{Typeflag: tar.TypeReg, Name: "data/large", Mode: 0o644}, Body: body}}
					images = append(images, h.Registry.Push(t, fmt.Sprintf("churn%d:1", n), ocitest.Image(t, ProgConfig, ProgLayer(t), own)))
				}
				if err := h.Close(ctx, false); err != nil {
					t.Fatal(err)
				}
				stays := TaskID()
				seen := 0
				s.kill(t, child{Dir: h.Dir, Image: h.Image, IDs: []string{stays}, Command: []string{"wait"}, Images: images}, func(line string) bool {
					if strings.HasPrefix(line, point) {
						seen++
					}
					if seen < nth {
						return false
					}
					time.Sleep(delay) // the point of the test: somewhere within what was begun
					return true
				})
				found := false
				for _, r := range s.reopen(t, h) {
					if r.Task.ID == stays {
						if found = true; r.Containers["main"].Exit != nil {
							t.Errorf("the task that ran ended: %+v", r.Containers["main"].Exit)
						}
					}
					if err := h.Remove(ctx, r.Task.ID); err != nil {
						t.Errorf("remove: %v", err)
					}
				}
				if !found {
					t.Error("the task that ran is gone")
				}
				if s.features.Unfinished != nil {
					for _, l := range s.features.Unfinished(t, h.Dir) {
						t.Errorf("left behind: %s", l)
					}
				}
				for _, image := range images {
					c := command("print", "again")
					c.Image = image
					if _, out := h.run(c); out != "again\n" {
						t.Errorf("%s: %q", image, out)
					}
				}
			})
		}
	}
}

func (s *suite) reopen(t *testing.T, h *host) []runtime.Recovered {
	t.Helper()
	d, err := s.open(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	h.Driver = d
	got, err := d.Recover(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// kill runs the child until enough says so of a line it printed, then ends it with SIGKILL.
func (s *suite) kill(t *testing.T, c child, enough func(line string) bool) {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"="+string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := false
	for sc := bufio.NewScanner(out); !done && sc.Scan(); {
		done = enough(sc.Text())
	}
	cmd.Process.Kill()
	cmd.Wait()
	if !done {
		t.Fatal("the driver's process ended early")
	}
}
