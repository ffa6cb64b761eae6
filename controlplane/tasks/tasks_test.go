package tasks

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/seed-2f228079/neargate/agent"
	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/api/server"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator/orchestratortest"
	"github.com/seed-2f228079/neargate/controlplane/scheduler/placement"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
)

var scope = controlplane.Scope{Account: "000000000000", Region: "us-east-1"}

// platformUnderTest is an API over a state, a dispatcher and, once joined, an agent that runs scripted containers.
type platformUnderTest struct {
	t     *testing.T
	store *state.Store
	grpc  *bufconn.Listener
	http  *httptest.Server
	tasks int
}

func newPlatform(t *testing.T) *platformUnderTest {
	t.Helper()
	p := &platformUnderTest{t: t, grpc: bufconn.Listen(1 << 16),
		store: statetest.New(t, slices.Concat(controlplane.Schema, dispatcher.Schema, state.Schema{orchestratortest.Endpoints})...)}
	log, clk := slog.New(slog.DiscardHandler), clock.Real{}
	d := dispatcher.New(dispatcher.Config{Store: p.store, Clock: clk, Rand: rand.Reader, Log: log, Sources: []dispatcher.Source{dispatcher.Assignments{Log: log}},
		Reporter: orchestrator.NewLifecycle(clk, rand.Reader, &orchestratortest.Router{}), Rule: capacity.Rule{Account: scope.Account, Region: scope.Region}})
	g := grpc.NewServer()
	agentapi.RegisterDispatcherServer(g, d)
	go g.Serve(p.grpc)
	p.run(d.Run)
	t.Cleanup(g.Stop)

	creds, err := auth.NewStatic(auth.Root{Account: scope.Account, AccessKeyID: "test", SecretAccessKey: "test"},
		auth.Root{Account: "111111111111", AccessKeyID: "other", SecretAccessKey: "test"})
	if err != nil {
		t.Fatal(err)
	}
	api, err := server.New(server.Config{Credentials: creds, Account: scope.Account, Region: scope.Region, Logger: log, Guard: true,
		Resources: New(Config{Store: p.store, Placer: placement.New(p.store, clk, log), Nodes: d}).Resources()})
	if err != nil {
		t.Fatal(err)
	}
	p.http = httptest.NewServer(api)
	t.Cleanup(p.http.Close)
	p.change(func(tx *state.Tx) {
		controlplane.Clusters.Put(tx, &controlplane.Cluster{Account: scope.Account, Region: scope.Region, Name: "default", Status: "ACTIVE"})
	})
	return p
}

// run runs a part until the test or stop ends it.
func (p *platformUnderTest) run(part func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
	p.t.Cleanup(stop)
	return stop
}

// join starts an agent on node a.
func (p *platformUnderTest) join(d runtime.Driver) (leave func()) {
	p.t.Helper()
	conn, err := grpc.NewClient("passthrough:///plane", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.grpc.DialContext(ctx) }))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	a, err := agent.New(agent.Config{Dir: p.t.TempDir(), Driver: d, Client: agentapi.NewDispatcherClient(conn), NodeID: "a", NodeName: "laptop",
		Resources: &agentapi.NodeResources{CpuUnits: 4096, MemoryMib: 4096}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		p.t.Fatal(err)
	}
	return p.run(a.Run)
}

func (p *platformUnderTest) change(fn func(tx *state.Tx)) {
	p.t.Helper()
	if _, err := p.store.Update(context.Background(), func(tx *state.Tx) error { fn(tx); return nil }); err != nil {
		p.t.Fatal(err)
	}
}

// task creates a task with a container for each image, named a, b, …; the first one is essential. It is placed on node, if given.
func (p *platformUnderTest) task(node string, images ...string) *controlplane.Task {
	p.t.Helper()
	p.tasks++
	var containers []string
	for i, image := range images {
		containers = append(containers, fmt.Sprintf(`{"name":"%c","image":"%s","essential":%t}`, 'a'+i, image, i == 0))
	}
	t := &controlplane.Task{Account: scope.Account, Region: scope.Region, Cluster: "default", Id: fmt.Sprintf("%032x", p.tasks), LaunchType: "EC2", Group: "family:web",
		TaskDefinition: controlplane.FamilyRevision("web", uint32(p.tasks)), Demand: &controlplane.Demand{CpuUnits: 8192, MemoryMib: 1}}
	p.change(func(tx *state.Tx) {
		controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{Account: scope.Account, Region: scope.Region, Family: "web", Revision: uint32(p.tasks),
			Status: "ACTIVE", DefinitionJson: []byte(`{"containerDefinitions":[` + strings.Join(containers, ",") + `]}`)})
		s := controlplane.CreateTask(tx, t, nil)
		if node != "" {
			s, _ = s.AdvancePlaced(node)
		}
		controlplane.TaskStatuses.Put(tx, s)
	})
	return t
}

func (p *platformUnderTest) status(t *controlplane.Task) *controlplane.TaskStatus {
	s, _ := controlplane.TaskStatuses.Get(p.store.View(), controlplane.Tasks.Key(t))
	return s
}

func (p *platformUnderTest) until(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func (p *platformUnderTest) untilState(t *controlplane.Task, want agentapi.TaskState) {
	p.t.Helper()
	p.until("the task is "+want.String(), func() bool { return p.status(t).Observed == want })
}

// get asks as user (the access key) for a resource of the task.
func (p *platformUnderTest) get(ctx context.Context, user, cluster, task, what string) *http.Response {
	p.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.http.URL+"/api/v1/clusters/"+cluster+"/tasks/"+task+"/"+what, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	r.SetBasicAuth(user, "test")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// lines reads the whole answer.
func (p *platformUnderTest) lines(t *controlplane.Task, query string) []LogLine {
	p.t.Helper()
	return p.read(p.get(p.t.Context(), "test", "default", t.Id, "logs"+query))
}

func (p *platformUnderTest) read(resp *http.Response) []LogLine {
	p.t.Helper()
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || ct != "application/x-ndjson" {
		b, _ := io.ReadAll(resp.Body)
		p.t.Fatalf("HTTP %d %s %s", resp.StatusCode, ct, b)
	}
	var lines []LogLine
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		var l LogLine
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			p.t.Fatalf("%s: %v", s.Bytes(), err)
		}
		lines = append(lines, l)
	}
	return lines
}

// said is a line without its time.
func said(lines []LogLine) (all []string) {
	for _, l := range lines {
		all = append(all, l.Container+" "+l.Stream+" "+l.Message+l.Error)
	}
	return all
}

// refused expects an error as the answer.
func refused(t *testing.T, resp *http.Response, status int, code, message string) {
	t.Helper()
	var e struct{ Code, Message string }
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || resp.StatusCode != status || e.Code != code || !strings.Contains(e.Message, message) {
		t.Errorf("HTTP %d %+v %v; want %d %s %q", resp.StatusCode, e, err, status, code, message)
	}
}

// lively is a driver whose containers write what the test says, when it says so.
type lively struct {
	*fake.Driver
	logs func(ctx context.Context, container string, opt runtime.LogOptions) (runtime.LogReader, error)
}

func (d lively) Logs(ctx context.Context, _, container string, opt runtime.LogOptions) (runtime.LogReader, error) {
	return d.logs(ctx, container, opt)
}

// written is what a container writes; the end of the channel is that of the log.
type written struct {
	ctx   context.Context
	lines <-chan runtime.LogLine
	fail  error // instead of the end
	gone  chan<- struct{}
}

func (w written) Next() (runtime.LogLine, error) {
	select {
	case l, ok := <-w.lines:
		if ok {
			return l, nil
		}
		if w.fail != nil {
			return l, w.fail
		}
		return l, io.EOF
	case <-w.ctx.Done():
		return runtime.LogLine{}, w.ctx.Err()
	}
}

func (w written) Close() error {
	if w.gone != nil {
		close(w.gone)
	}
	return nil
}

var errDisk = errors.New("the disk is on fire")
