package orchestrator

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator/orchestratortest"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// TestScenarios runs testdata/*.txt: commands, "----", what they print, an empty line. Every command is followed by as many steps
// of all reconcilers as change something, one after the other, so that what happens is the same every time.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			var out strings.Builder
			for _, block := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
				commands, _, _ := strings.Cut(block, "\n----")
				fmt.Fprintf(&out, "%s\n----\n", commands)
				for line := range strings.Lines(commands) {
					if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
						w.command(strings.Fields(line), &out)
						w.settle()
						w.said(&out)
					}
				}
				out.WriteString("\n")
			}
			got := strings.TrimSuffix(out.String(), "\n")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s differs (run with -update to accept); got:\n%s", file, got)
			}
		})
	}
}

var scope = controlplane.Scope{Account: "000000000000", Region: "us-east-1"}

// world is one cluster "default" with nodes, whose scheduler is the test: unplaced tasks go to the nodes in turn.
type world struct {
	t      *testing.T
	store  *state.Store
	clock  *clock.Fake
	o      *Orchestrator
	router *orchestratortest.Router
	nodes  []string
	full   bool // no node takes tasks
	// trusting: the role of web:5 lets tasks assume it
	trusting bool
	names    map[string]int // task ids by order of appearance
	told     int            // events printed
	rand     *rand.ChaCha8
	releases *rand.ChaCha8 // of their ids: they do not change those of tasks
	placed   int
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, clock: clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), names: map[string]int{}, rand: rand.NewChaCha8([32]byte{1}),
		releases: rand.NewChaCha8([32]byte{2}),
		store:    statetest.New(t, append(slices.Clone(controlplane.Schema), orchestratortest.Endpoints)...),
		router:   &orchestratortest.Router{},
	}
	w.o = New(Config{
		Store: w.store, Clock: w.clock, Rand: w.rand, Log: slog.New(slog.DiscardHandler),
		RouterTables: []state.TableInfo{orchestratortest.Endpoints},
		Assume: func(_, role, _ string) error {
			if w.trusting {
				return nil
			}
			return awserr.New("ClientException", "ECS was unable to assume the role '%s'", role)
		},
	}, NewLifecycle(w.clock, w.rand, w.router))
	w.change(func(tx *state.Tx) error {
		controlplane.Clusters.Put(tx, &controlplane.Cluster{Account: scope.Account, Region: scope.Region, Name: "default", Status: "ACTIVE"})
		for rev := range uint32(5) {
			role := ""
			if rev == 4 {
				role = `"taskRoleArn":"r",`
			}
			controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{
				Account: scope.Account, Region: scope.Region, Family: "web", Revision: rev + 1, Status: "ACTIVE",
				DefinitionJson: []byte(`{` + role + `"containerDefinitions":[{"name":"web","image":"web"}]}`), Demand: &controlplane.Demand{CpuUnits: 256, MemoryMib: 256},
			})
		}
		return nil
	})
	return w
}

func (w *world) change(fn func(tx *state.Tx) error) {
	w.t.Helper()
	if _, err := w.store.Update(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) command(f []string, out *strings.Builder) {
	args := map[string]string{}
	for _, a := range f[1:] {
		k, v, _ := strings.Cut(a, "=")
		args[k] = v
	}
	number := func(key string, otherwise int) uint32 {
		if args[key] == "" {
			return uint32(otherwise)
		}
		n, err := strconv.Atoi(args[key])
		if err != nil {
			w.t.Fatal(err)
		}
		return uint32(n)
	}
	switch f[0] {
	case "node": // node NAME zone=a
		w.nodes = append(w.nodes, f[1])
		w.change(func(tx *state.Tx) error {
			controlplane.Nodes.Put(tx, &controlplane.Node{Id: f[1], Status: "READY", Attributes: map[string]string{"ecs.availability-zone": args["zone"]}})
			controlplane.ContainerInstances.Put(tx, &controlplane.ContainerInstance{Account: scope.Account, Region: scope.Region, Cluster: "default", Id: "ci-" + f[1], Node: f[1], Status: "ACTIVE"})
			return nil
		})
	case "down":
		w.nodes = slices.DeleteFunc(w.nodes, func(n string) bool { return n == f[1] })
		w.change(func(tx *state.Tx) error {
			n, _ := controlplane.Nodes.Get(tx, state.K(f[1]))
			n = proto.CloneOf(n)
			n.Status = "DOWN"
			controlplane.Nodes.Put(tx, n)
			return nil
		})
	case "deregister":
		w.nodes = slices.DeleteFunc(w.nodes, func(n string) bool { return n == f[1] })
		w.change(func(tx *state.Tx) error {
			c, _ := controlplane.ContainerInstances.Get(tx, scope.Key("default", "ci-"+f[1]))
			c = proto.CloneOf(c)
			c.Status = "INACTIVE"
			controlplane.ContainerInstances.Put(tx, c)
			return nil
		})
	case "drain":
		w.nodes = slices.DeleteFunc(w.nodes, func(n string) bool { return n == f[1] })
		w.change(func(tx *state.Tx) error {
			c, _ := controlplane.ContainerInstances.Get(tx, scope.Key("default", "ci-"+f[1]))
			c = proto.CloneOf(c)
			c.Status = "DRAINING"
			controlplane.ContainerInstances.Put(tx, c)
			return nil
		})
	case "trusting":
		w.trusting = true
	case "full":
		w.full = f[1] == "yes"
	case "create": // create desired=2 min=100 max=200 lb daemon breaker|rollback
		w.change(func(tx *state.Tx) error {
			s := &controlplane.Service{
				Account: scope.Account, Region: scope.Region, Cluster: "default", Name: "web", Status: "ACTIVE", DesiredCount: number("desired", 1),
				MinimumHealthyPercent: number("min", 100), MaximumPercent: number("max", 200), SchedulingStrategy: "REPLICA", LaunchType: "EC2",
				HealthCheckGraceSeconds: number("grace", 0),
			}
			if _, ok := args["lb"]; ok {
				s.LoadBalancersJson = `[{"targetGroupArn":"tg-web","containerName":"web","containerPort":80}]`
			}
			if _, ok := args["daemon"]; ok {
				s.SchedulingStrategy = "DAEMON"
			}
			if _, ok := args["breaker"]; ok {
				s.DeploymentConfigurationJson = `{"deploymentCircuitBreaker":{"enable":true,"rollback":false}}`
			}
			if _, ok := args["rollback"]; ok {
				s.DeploymentConfigurationJson = `{"deploymentCircuitBreaker":{"enable":true,"rollback":true}}`
			}
			w.deploy(tx, s, "web:1")
			return nil
		})
	case "update": // update desired=3 definition=web:2
		w.change(func(tx *state.Tx) error {
			s, _ := controlplane.Services.Get(tx, scope.Key("default", "web"))
			s = proto.CloneOf(s)
			s.DesiredCount = number("desired", int(s.DesiredCount))
			if d := args["definition"]; d != "" {
				for old := range controlplane.Deployments.Scan(tx, scope.Key("default", "web")) {
					old = proto.CloneOf(old)
					old.Status = "ACTIVE"
					controlplane.Deployments.Put(tx, old)
				}
				w.deploy(tx, s, d)
			} else {
				controlplane.Services.Put(tx, s)
			}
			return nil
		})
	case "delete":
		w.change(func(tx *state.Tx) error {
			s, _ := controlplane.Services.Get(tx, scope.Key("default", "web"))
			s = proto.CloneOf(s)
			s.Status, s.DesiredCount = "DRAINING", 0
			controlplane.Services.Put(tx, s)
			return nil
		})
	case "report": // report RUNNING [health=HEALTHY | failed=pull] t1 t2 | all: what agents say
		chosen := f[2:]
		if args["health"]+args["failed"] != "" {
			chosen = f[3:]
		}
		for _, s := range w.chosen(chosen) {
			r := &agentapi.TaskStatus{TaskId: s.Id, Epoch: s.Epoch, State: agentapi.TaskState(agentapi.TaskState_value[f[1]]), Started: s.Report.GetStarted()}
			r.Health = agentapi.Health(agentapi.Health_value["HEALTH_"+args["health"]])
			if r.Started == nil && r.State == agentapi.TaskState_RUNNING {
				r.Started = timestamppb.New(w.clock.Now())
			}
			if r.State == agentapi.TaskState_STOPPED {
				r.StoppedReason = "Essential container in task exited"
			}
			if args["failed"] != "" {
				r.StopCode, r.StoppedReason = stopFailedToStart, "CannotPullContainerError: denied"
			}
			w.change(func(tx *state.Tx) error { return w.o.lifecycle.Report(tx, s.Node, r) })
		}
	case "endpoint": // endpoint HEALTHY t1 | all
		for _, s := range w.chosen(f[2:]) {
			w.change(func(tx *state.Tx) error {
				if orchestratortest.State(tx, s.Id) != 0 {
					orchestratortest.Set(tx, s.Id, agentapi.EndpointState(agentapi.EndpointState_value["ENDPOINT_"+f[1]]))
				}
				return nil
			})
		}
	case "drained": // endpoints that are DRAINING are deleted
		w.change(func(tx *state.Tx) error {
			for s := range controlplane.LiveTasks.Scan(tx, state.K()) {
				if orchestratortest.State(tx, s.Id) == agentapi.EndpointState_ENDPOINT_DRAINING {
					orchestratortest.Endpoints.Delete(tx, state.K(s.Id))
				}
			}
			return nil
		})
	case "stop": // stop t1: StopTask
		for _, s := range w.chosen(f[1:]) {
			w.change(func(tx *state.Tx) error {
				_, err := w.o.lifecycle.Stop(tx, controlplane.TaskStatuses.Key(s), "UserInitiated", "Task stopped by user", false)
				return err
			})
		}
	case "protect": // protect 1h t1 | all; 0s: no longer
		d, err := time.ParseDuration(f[1])
		if err != nil {
			w.t.Fatal(err)
		}
		for _, s := range w.chosen(f[2:]) {
			until := w.clock.Now().Add(d)
			if d == 0 {
				until = time.Time{}
			}
			w.change(func(tx *state.Tx) error {
				s, _ := s.AdvanceProtection(until)
				controlplane.TaskStatuses.Put(tx, s)
				return nil
			})
		}
	case "refuse":
		w.router.Refuse = true
	case "advance":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			w.t.Fatal(err)
		}
		w.clock.Advance(d)
	case "tasks":
		w.print(out)
	case "halt": // halt ROLLBACK_REQUESTED | STOP_REQUESTED: StopServiceDeployment
		w.change(func(tx *state.Tx) error {
			s, _ := controlplane.Services.Get(tx, scope.Key("default", "web"))
			r := proto.CloneOf(controlplane.LastServiceDeployment(tx, s))
			r.Status = f[1]
			controlplane.ServiceDeployments.Put(tx, r)
			return nil
		})
	case "releases":
		w.printReleases(out)
	default:
		w.t.Fatalf("unknown command %q", f[0])
	}
}

func (w *world) deploy(tx *state.Tx, s *controlplane.Service, definition string) {
	before := slices.Collect(controlplane.Deployments.Scan(tx, scope.Key("default", "web")))
	s.TaskDefinition = definition
	s.PrimaryDeployment = "ecs-svc/" + definition
	d := &controlplane.Deployment{
		Account: s.Account, Region: s.Region, Cluster: s.Cluster, Service: s.Name, Id: s.PrimaryDeployment, Status: "PRIMARY", LaunchType: "EC2",
		TaskDefinition: definition, RolloutState: "IN_PROGRESS", LoadBalancersJson: s.LoadBalancersJson, Created: timestamppb.New(w.clock.Now()),
	}
	controlplane.Deployments.Put(tx, d)
	controlplane.BeginServiceDeployment(tx, s, d, before, w.clock.Now(), w.releases)
	controlplane.Services.Put(tx, s)
}

// printReleases prints the service's history, oldest first.
func (w *world) printReleases(out *strings.Builder) {
	list := slices.Collect(controlplane.ServiceDeployments.Scan(w.store.View(), state.K()))
	slices.SortFunc(list, func(a, b *controlplane.ServiceDeployment) int { return a.Created.AsTime().Compare(b.Created.AsTime()) })
	count := func(n *controlplane.RevisionCount) string {
		return fmt.Sprintf("%s %d/%d/%d", n.Revision, n.Requested, n.Running, n.Pending)
	}
	for _, r := range list {
		fmt.Fprintf(out, "release %s %s", count(r.Target), r.Status)
		if r.StatusReason != "" {
			fmt.Fprintf(out, " (%s)", r.StatusReason)
		}
		for _, n := range r.Sources {
			fmt.Fprintf(out, " from %s", count(n))
		}
		if r.RollbackRevision != "" {
			fmt.Fprintf(out, " back to %s", r.RollbackRevision)
		}
		fmt.Fprintf(out, " breaker %s %d of %d, took %v\n", r.Breaker, r.Failures, r.Threshold, r.Updated.AsTime().Sub(r.Created.AsTime()))
	}
	for r := range controlplane.ServiceRevisions.Scan(w.store.View(), state.K()) {
		fmt.Fprintf(out, "revision %s\n", r.Id)
	}
}

// settle steps everything until nothing changes.
func (w *world) settle() {
	for range 100 {
		before := w.store.Revision()
		for _, r := range []*reconciler{w.o.services(), w.o.leaving(), w.o.nodes(), w.o.instances(), w.o.retention()} {
			for _, k := range slices.Sorted(r.list(w.store.View())) {
				if _, err := r.reconcile(context.Background(), k); err != nil {
					w.t.Fatalf("%s %s: %v", r.name, k, err)
				}
			}
		}
		w.schedule()
		if w.store.Revision() == before {
			return
		}
	}
	w.t.Fatal("the reconcilers do not come to rest")
}

func (w *world) schedule() {
	if len(w.nodes) == 0 {
		return
	}
	for s := range controlplane.UnplacedTasks.Scan(w.store.View(), state.K()) {
		w.change(func(tx *state.Tx) error {
			s, changed := s.AdvancePlacementFailure("no room")
			if !w.full {
				t, _ := controlplane.Tasks.Get(tx, controlplane.TaskStatuses.Key(s))
				node := w.nodes[w.placed%len(w.nodes)]
				if _, bound, ok := strings.Cut(t.PlacementConstraintsJson, daemonConstraint+"ci-"); ok {
					node = bound[:strings.Index(bound, `"`)]
				}
				for n := range controlplane.Nodes.Scan(tx, state.K()) {
					if t.AvailabilityZone != "" && n.Attributes["ecs.availability-zone"] == t.AvailabilityZone {
						node = n.Id
					}
				}
				s, changed = s.AdvancePlaced(node)
				w.placed++
			}
			if changed {
				controlplane.TaskStatuses.Put(tx, s)
			}
			return nil
		})
	}
}

func (w *world) name(id string) string {
	if w.names[id] == 0 {
		w.names[id] = len(w.names) + 1
	}
	return fmt.Sprintf("t%d", w.names[id])
}

var hexID = regexp.MustCompile(`[0-9a-f]{32}`)

// said prints the service events since it was last asked, oldest first.
func (w *world) said(out *strings.Builder) {
	events := controlplane.ServiceEventsOf(w.store.View(), scope.Key("default", "web"))
	for i := len(events) - w.told - 1; i >= 0; i-- {
		fmt.Fprintln(out, hexID.ReplaceAllStringFunc(events[i].Message, w.name))
	}
	w.told = len(events)
}

// statuses of all tasks by their names.
func (w *world) statuses() []*controlplane.TaskStatus {
	list := slices.Collect(controlplane.TaskStatuses.Scan(w.store.View(), state.K()))
	for _, s := range list {
		w.name(s.Id)
	}
	slices.SortFunc(list, func(a, b *controlplane.TaskStatus) int { return w.names[a.Id] - w.names[b.Id] })
	return list
}

func (w *world) chosen(names []string) (list []*controlplane.TaskStatus) {
	for _, s := range w.statuses() {
		if s.Live() && (names[0] == "all" || slices.Contains(names, w.name(s.Id))) {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		w.t.Fatalf("no such tasks: %v", names)
	}
	return list
}

func (w *world) print(out *strings.Builder) {
	v := w.store.View()
	for _, s := range w.statuses() {
		t, _ := controlplane.Tasks.Get(v, controlplane.TaskStatuses.Key(s))
		fmt.Fprintf(out, "%s %s %s desired %s on %s", w.name(s.Id), t.TaskDefinition, s.Observed, s.Desired, s.Node)
		if e := orchestratortest.State(v, s.Id); e != 0 {
			fmt.Fprintf(out, " %s", e)
		}
		if s.StopCode != "" {
			fmt.Fprintf(out, " (%s: %s)", s.StopCode, s.StoppedReason)
		}
		fmt.Fprintln(out)
	}
	for d := range controlplane.Deployments.Scan(v, state.K()) {
		fmt.Fprintf(out, "deployment %s %s %s failed %d\n", d.TaskDefinition, d.Status, d.RolloutState, d.FailedTasks)
	}
	if s, ok := controlplane.Services.Get(v, scope.Key("default", "web")); ok {
		fmt.Fprintf(out, "service %s wants %d\n", s.Status, s.DesiredCount)
	}
}
