package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/agent/runtime/native"
	"github.com/seed-2f228079/neargate/agent/runtime/runtimetest"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/client"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd/etcdtest"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/internal/id"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
	"github.com/seed-2f228079/neargate/internal/sdkhttp"
	"github.com/seed-2f228079/neargate/internal/trust"
)

const token = "the secret of this test's cluster"

// site is a server and the host of an agent, whose processes come and go.
type site struct {
	t                   *testing.T
	serverDir, agentDir string
	url, listen, peers  string
	args                []string // further ones of the server
	*client.Client
}

func (s *site) startServer() *process {
	s.t.Helper()
	p := start(s.t, append([]string{"server", "-v", "--data", s.serverDir, "--listen", s.listen, "--peer-listen", s.peers, "--join-token", token, "--insecure"}, s.args...)...)
	m := p.says(`ready at (http://(\S+)) .*peers at ([^,]+),`)
	s.url, s.listen, s.peers = m[0], m[1], m[2]
	var err error
	if s.Client, err = client.New(client.Config{Endpoint: s.url, Region: "us-east-1", AccessKey: "test", SecretKey: "test"}); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// startAgent starts the agent, with a token or without, and returns it with its node's id.
func (s *site) startAgent(runtime, token string) (*process, string) {
	s.t.Helper()
	args := []string{"agent", "-v", "--data", s.agentDir, "--servers", s.peers, "--cluster", "apart", "--runtime", runtime}
	if token != "" {
		args = append(args, "--join-token", token)
	}
	p := start(s.t, args...)
	return p, p.says(`agent (\S+) is connected`)[0]
}

// stopped are the tasks of a cluster that have ended, with what they ended of.
func (s *site) stopped(cluster string) (all []string) {
	list, err := s.ECS.ListTasks(s.t.Context(), &ecs.ListTasksInput{Cluster: &cluster, DesiredStatus: ecstypes.DesiredStatusStopped})
	if err != nil || len(list.TaskArns) == 0 {
		return nil
	}
	d, err := s.ECS.DescribeTasks(s.t.Context(), &ecs.DescribeTasksInput{Cluster: &cluster, Tasks: list.TaskArns})
	if err != nil {
		return nil
	}
	for _, t := range d.Tasks {
		all = append(all, fmt.Sprintf("%s %s: %s %s", *t.TaskArn, *t.LastStatus, t.StopCode, aws.ToString(t.StoppedReason)))
		for _, c := range t.Containers {
			all = append(all, fmt.Sprintf("%s: %d %s", *c.Name, aws.ToInt32(c.ExitCode), aws.ToString(c.Reason)))
		}
	}
	return all
}

// running waits until n tasks of the cluster run, and returns id and start of each, sorted.
func (s *site) running(n int) []string {
	s.t.Helper()
	var now []string
	cluster := "apart"
	eventually(s.t, func() error {
		now = nil
		list, err := s.ECS.ListTasks(s.t.Context(), &ecs.ListTasksInput{Cluster: &cluster})
		if err != nil {
			return err
		}
		if len(list.TaskArns) == 0 {
			return errors.New("there are no tasks")
		}
		d, err := s.ECS.DescribeTasks(s.t.Context(), &ecs.DescribeTasksInput{Cluster: &cluster, Tasks: list.TaskArns})
		if err != nil {
			return err
		}
		var all []string
		for _, t := range d.Tasks {
			all = append(all, fmt.Sprintf("%s %s %v", *t.TaskArn, *t.LastStatus, t.StartedAt))
			if *t.LastStatus == "RUNNING" {
				now = append(now, *t.TaskArn+" "+t.StartedAt.String())
			}
		}
		if len(now) != n || len(d.Tasks) != n {
			all = append(all, s.stopped(cluster)...)
			return fmt.Errorf("%d of %d tasks run: %v", len(now), n, all)
		}
		return nil
	})
	slices.Sort(now)
	return now
}

// TestServerAndAgent runs a service on an agent in another process, and kills one after the other.
func TestServerAndAgent(t *testing.T) {
	t.Run("fake", func(t *testing.T) { serverAndAgent(t, "fake") })
	t.Run("etcd", func(t *testing.T) {
		serverAndAgent(t, "fake", "--state", "etcd", "--etcd-endpoints", etcdtest.Start(t).Endpoint)
	})
	t.Run("native", func(t *testing.T) {
		if lacks := native.Check(); len(lacks) > 0 {
			t.Skip("this host cannot run containers: " + strings.Join(lacks, "; "))
		}
		serverAndAgent(t, "native")
	})
}

func serverAndAgent(t *testing.T, runtime string, args ...string) {
	s := &site{t: t, serverDir: t.TempDir(), agentDir: t.TempDir(), listen: anyPort, peers: anyPort, args: args}
	if runtime == "native" {
		t.Cleanup(func() { removeEverything(t, s.agentDir) })
	}
	ctx := t.Context()
	cluster, service, family := "apart", "web", "web"
	server := s.startServer()
	if _, err := s.ECS.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}

	// Who has the wrong token learns it, on both sides, and gets nothing.
	wrong := start(t, "agent", "--data", s.agentDir, "--servers", s.peers, "--join-token", "another secret altogether", "--runtime", "fake")
	wrong.says("neargate: join the cluster: server .*: the server refused the join token")
	wrong.wait()
	if code := wrong.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("an agent with the wrong token ended with %d", code)
	}
	server.says(`a host was not admitted.*wrong join token`)

	agent, node := s.startAgent(runtime, token)
	image, marker := "registry.test/web:1", "wait-"+id.Hex(rand.Reader, 16)
	if runtime == "native" {
		image = s.push(t, "web")
	}
	if _, err := s.ECS.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{
		Family: &family, NetworkMode: ecstypes.NetworkModeBridge,
		ContainerDefinitions: []ecstypes.ContainerDefinition{{
			Name: new("web"), Image: &image, Cpu: 64, Memory: new(int32(256)), Command: []string{"print", marker, "then", "wait"},
			LogConfiguration: &ecstypes.LogConfiguration{LogDriver: ecstypes.LogDriverAwslogs, Options: map[string]string{
				"awslogs-region": "us-east-1", "awslogs-group": "apart", "awslogs-create-group": "true", "awslogs-stream-prefix": "p",
			}},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ECS.CreateService(ctx, &ecs.CreateServiceInput{
		Cluster: &cluster, ServiceName: &service, TaskDefinition: &family, DesiredCount: new(int32(2)), LaunchType: ecstypes.LaunchTypeEc2,
	}); err != nil {
		t.Fatal(err)
	}
	tasks := s.running(2)
	var pids []string
	unharmed := func(when string) {
		t.Helper()
		if now := s.running(len(tasks)); !slices.Equal(now, tasks) {
			t.Errorf("%s: the tasks were %v and are %v", when, tasks, now)
		}
		if now := processesWith(t, marker); runtime == "native" && !slices.Equal(now, pids) {
			t.Errorf("%s: the processes were %v and are %v", when, pids, now)
		}
	}
	// A task runs a moment before its process has become its program: the last step of a start cannot be seen from outside.
	programs := func(n int) {
		t.Helper()
		eventually(t, func() error {
			if pids = processesWith(t, marker); runtime == "native" && len(pids) != n {
				return fmt.Errorf("%d tasks run in the processes %v", n, pids)
			}
			return nil
		})
	}
	programs(2)
	unharmed("at first")

	server.end(syscall.SIGKILL)
	agent.says("session with the control plane ended; tasks go on")
	if now := processesWith(t, marker); runtime == "native" && !slices.Equal(now, pids) {
		t.Errorf("without a server: the processes were %v and are %v", pids, now)
	}
	server = s.startServer()
	server.says(`agent connected.*` + node)
	unharmed("after the server was killed")

	agent.end(syscall.SIGKILL)
	if now := processesWith(t, marker); runtime == "native" && !slices.Equal(now, pids) {
		t.Errorf("without an agent: the processes were %v and are %v", pids, now)
	}
	agent, again := s.startAgent(runtime, "") // by its certificate
	if again != node {
		t.Errorf("the node was %s and is %s", node, again)
	}
	unharmed("after the agent was killed")

	// Both are of use again, and end in order.
	if _, err := s.ECS.UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: &cluster, Service: &service, DesiredCount: new(int32(3))}); err != nil {
		t.Fatal(err)
	}
	grown := s.running(3)
	for _, was := range tasks {
		if !slices.Contains(grown, was) {
			t.Errorf("of %v there are %v left", tasks, grown)
		}
	}
	tasks = grown
	programs(3)
	if code := agent.end(syscall.SIGTERM); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	if code := server.end(syscall.SIGTERM); code != 0 {
		t.Errorf("the server ended with %d", code)
	}
	s.startServer()
	s.startAgent(runtime, "")
	unharmed("after both ended and came back")
	if runtime == "native" {
		// What each task wrote has come over mutual TLS, once, whoever was killed meanwhile.
		eventually(t, func() error {
			got, err := s.logged("apart")
			if want := slices.Repeat([]string{marker}, 3); err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("the log group holds %q, want %q", got, want)
			}
			return err
		})
	}

	if _, err := s.ECS.DeleteService(ctx, &ecs.DeleteServiceInput{Cluster: &cluster, Service: &service, Force: new(true)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		list, err := s.ECS.ListTasks(ctx, &ecs.ListTasksInput{Cluster: &cluster})
		if err == nil && len(list.TaskArns) > 0 {
			err = fmt.Errorf("still there: %v", list.TaskArns)
		}
		if left := processesWith(t, marker); err == nil && len(left) > 0 {
			err = fmt.Errorf("still there: processes %v", left)
		}
		return err
	})
}

// logged is what a log group holds, but for the programs' own remarks.
func (s *site) logged(group string) (lines []string, err error) {
	c := cloudwatchlogs.New(cloudwatchlogs.Options{BaseEndpoint: &s.url, HTTPClient: sdkhttp.New(nil), Region: "us-east-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		})})
	out, err := c.FilterLogEvents(s.t.Context(), &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group, FilterPattern: new("-waiting")})
	if err != nil {
		return nil, err
	}
	for _, e := range out.Events {
		lines = append(lines, *e.Message)
	}
	return lines, nil
}

// push makes a repository and puts the suite's program into it.
func (s *site) push(t *testing.T, repository string) string {
	t.Helper()
	out, err := s.ECR.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &repository})
	if err != nil {
		t.Fatal(err)
	}
	image := *out.Repository.RepositoryUri + ":1"
	built := ocitest.Image(t, runtimetest.ProgConfig, runtimetest.ProgLayer(t))
	if _, err := new(ociclient.Client).Push(t.Context(), image, ociclient.Credentials{User: "test", Password: "test"}, built); err != nil {
		t.Fatal(err)
	}
	return image
}

// removeEverything removes what agents leave on their host on purpose.
func removeEverything(t *testing.T, data string) {
	if err := removeHost(data); err != nil {
		t.Error(err)
	}
}

func removeHost(data string) error {
	dir, err := datadir.Open(data)
	if err != nil {
		return err
	}
	defer dir.Close()
	d, err := native.New(native.Config{Dir: filepath.Join(dir.Agent(), "native"), ID: dir.ID()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return d.Close(ctx, true)
}

// TestTLSOnThePublicPort: the root credentials are printed once, and clients need the authority's certificate.
func TestTLSOnThePublicPort(t *testing.T) {
	data := t.TempDir()
	args := []string{"server", "--data", data, "--listen", anyPort, "--peer-listen", anyPort, "--join-token", token}
	p := start(t, args...)
	cfg := client.Config{Region: "us-east-1"}
	cfg.AccessKey, cfg.SecretKey = p.says(`AWS_ACCESS_KEY_ID=(AKIA[A-Z2-7]{16})$`)[0], p.says(`AWS_SECRET_ACCESS_KEY=(\S{40})$`)[0]
	cfg.Endpoint = p.says(`ready at (https://\S+) `)[0]
	list := func(cfg client.Config) error {
		c, err := client.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Clusters(t.Context())
		return err
	}
	if err := list(cfg); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the authority: %v", err)
	}
	cfg.CABundle = filepath.Join(data, "keys", "ca.pem")
	if err := list(cfg); err != nil {
		t.Error(err)
	}
	plain := cfg
	plain.Endpoint, plain.CABundle = strings.Replace(cfg.Endpoint, "https", "http", 1), ""
	if err := list(plain); err == nil {
		t.Error("plain HTTP is answered")
	}
	plain = cfg
	plain.AccessKey, plain.SecretKey = "test", "test"
	if err := list(plain); err == nil {
		t.Error("test/test is let in")
	}
	p.end(syscall.SIGTERM)

	p = start(t, args...)
	cfg.Endpoint = p.says(`ready at (https://\S+) `)[0]
	if strings.Contains(p.output(), cfg.SecretKey) {
		t.Error("the credentials are printed again")
	}
	if err := list(cfg); err != nil {
		t.Error(err)
	}
	err := filepath.WalkDir(filepath.Join(data, "keys"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v (%v)", name, info.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestServerFlags(t *testing.T) {
	good := serverFlags{listen: "127.0.0.1:4566", peerListen: "10.0.0.1:4646", bootstrapExpect: 1, blobCopies: 2, logCopies: 2, hostBlock: 22}
	for _, c := range []struct {
		change func(*serverFlags)
		says   string // "": accepted
	}{
		{func(*serverFlags) {}, ""},
		{func(f *serverFlags) { f.join = []string{"10.0.0.1:4646"} }, ""}, // its own
		{func(f *serverFlags) { f.insecure = true }, ""},
		{func(f *serverFlags) { f.bootstrapExpect = 3 }, ""},
		{func(f *serverFlags) { f.bootstrapExpect = 2 }, "--bootstrap-expect is 1, 3 or 5"},
		{func(f *serverFlags) { f.bootstrapExpect = 0 }, "--bootstrap-expect is 1, 3 or 5"},
		{func(f *serverFlags) { f.blobCopies = 0 }, "--blob-copies is between 1 and 5"},
		{func(f *serverFlags) { f.logCopies = 6 }, "--log-copies is between 1 and 5"},
		{func(f *serverFlags) { f.hostBlock = 24 }, ""},
		{func(f *serverFlags) { f.hostBlock = 20 }, "--host-block is between 22 and 26"},
		{func(f *serverFlags) { f.hostBlock = 27 }, "--host-block is between 22 and 26"},
		{func(f *serverFlags) { f.insecure, f.listen = true, "0.0.0.0:4566" }, "--insecure is for loopback only"},
		{func(f *serverFlags) { f.deadAfter = 24 * time.Hour }, ""},
		{func(f *serverFlags) { f.deadAfter = time.Minute }, "--remove-dead-after is 0 or at least 10m0s"},
		{func(f *serverFlags) { f.deadAfter = -time.Hour }, "--remove-dead-after is 0 or at least 10m0s"},
		{func(f *serverFlags) { f.tlsCert = "cert.pem" }, "go together"},
		{func(f *serverFlags) { f.insecure, f.tlsCert, f.tlsKey = true, "cert.pem", "key.pem" }, "goes with no --tls-cert"},
	} {
		f := good
		c.change(&f)
		if err := f.check(); (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

func TestKeptRoot(t *testing.T) {
	keys := t.TempDir()
	var out strings.Builder
	id, secret, err := keptRoot(keys, &out)
	if err != nil || len(id) != 20 || len(secret) != 40 || !strings.Contains(out.String(), secret) {
		t.Fatalf("%q, %q, %v; printed %q", id, secret, err, out.String())
	}
	out.Reset()
	id2, secret2, err := keptRoot(keys, &out)
	if err != nil || id2 != id || secret2 != secret || out.Len() > 0 {
		t.Errorf("%q, %q, %v; printed %q", id2, secret2, err, out.String())
	}
	if err := os.WriteFile(filepath.Join(keys, "root-credentials"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keptRoot(keys, &out); err == nil {
		t.Error("damaged credentials are taken")
	}
}

// TestAgentSpeaksForItself: a host that has joined opens a session as itself, and none as another node.
func TestAgentSpeaksForItself(t *testing.T) {
	s := &site{t: t, serverDir: t.TempDir(), listen: anyPort, peers: anyPort}
	s.startServer()
	secret, err := trust.NewSecret(token)
	if err != nil {
		t.Fatal(err)
	}
	m := &trust.Membership{Keys: t.TempDir(), Servers: []string{s.peers}, Secret: secret, Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler)}
	credential, err := m.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := credential.DialServers(m.Servers)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for node, want := range map[string]codes.Code{credential.ID(): codes.OK, "another": codes.PermissionDenied} {
		stream, err := agentapi.NewDispatcherClient(conn).Session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		hello := &agentapi.Hello{NodeId: node, Kinds: []agentapi.Kind{agentapi.Kind_ASSIGNMENTS}, Resources: &agentapi.NodeResources{CpuUnits: 1024, MemoryMib: 1024}}
		if err := stream.Send(&agentapi.Up{Body: &agentapi.Up_Hello{Hello: hello}}); err != nil {
			t.Fatal(err)
		}
		if down, err := stream.Recv(); status.Code(err) != want {
			t.Errorf("as node %s: %v, %v", node, down, err)
		}
	}
}
