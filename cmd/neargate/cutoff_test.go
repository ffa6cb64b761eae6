package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	sdtypes "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime/native"
	"github.com/seed-2f228079/neargate/client"
)

// TestServersCutOff runs three servers and two agents, each in a network namespace of its own, and drops what one of them sends, what it is sent, or
// both, while clients write: the leader's, then a whole host's. No acknowledged write is lost and none is answered from before; names are resolved and
// requests are served throughout; and of the tasks of a host that was lost for a time each runs once in the end.
func TestServersCutOff(t *testing.T) {
	if lacks := native.Check(); len(lacks) > 0 {
		t.Skip("this host cannot run containers: " + strings.Join(lacks, "; "))
	}
	if os.Getenv(apart) != "" {
		serversCutOff(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServersCutOff$", "-test.v")
	cmd.Env = append(os.Environ(), apart+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestServersCutOff") {
		t.Errorf("%v\n%s", err, out)
	}
}

// newCabledHost is a host at a switch, which is there.
func newCabledHost(t *testing.T, name, address string) *farHost {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	h := &farHost{t: t, name: name, pid: cmd.Process.Pid, address: address, dir: t.TempDir(), zone: "us-east-1a"}
	ip(t, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(h.pid))
	ip(t, "link", "set", name, "master", "switch", "up")
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"address", "add", address + "/24", "dev", "eth0"}, {"link", "set", "eth0", "up"}, {"route", "add", "default", "via", "192.0.2.254"}} {
		h.output("ip", args...)
	}
	return h
}

// cut drops what goes between this host and others: in what they send, out what they are sent.
func (h *farHost) cut(in, out bool, others ...*farHost) {
	h.t.Helper()
	var addresses []string
	for _, o := range others {
		addresses = append(addresses, o.address)
	}
	rules := "table inet cut {\n"
	for _, c := range []struct {
		drop         bool
		hook, of, to string
	}{{in, "input", "saddr", ""}, {out, "output", "daddr", ""}} {
		if c.drop {
			rules += fmt.Sprintf("chain %s { type filter hook %s priority -500; ip %s { %s } drop; }\n", c.hook, c.hook, c.of, strings.Join(addresses, ", "))
		}
	}
	cmd := h.within("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules + "}\n")
	if b, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("nft: %v: %s", err, b)
	}
}

func (h *farHost) heal() { h.t.Helper(); h.output("nft", "delete", "table", "inet", "cut") }

// served asks hosts for a page and a name, again and again, and counts what was not answered.
type served struct {
	stop          func()
	asked, missed atomic.Int64
	answers       []atomic.Int64 // by each host: a page and a name
	mu            sync.Mutex
	why           []string
}

// goesOn waits until each host has answered some more, and so shows that what is cut off now does not hold up traffic until it is no more.
func (v *served) goesOn(t *testing.T) {
	t.Helper()
	before := make([]int64, len(v.answers))
	for i := range v.answers {
		before[i] = v.answers[i].Load()
	}
	eventually(t, func() error {
		for i := range v.answers {
			if n := v.answers[i].Load() - before[i]; n < 10 {
				return fmt.Errorf("host %d has answered %d times more", i, n)
			}
		}
		return nil
	})
}

func (v *served) miss(err error) {
	v.missed.Add(1)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.why = append(v.why, time.Now().Format("15:04:05.000 ")+err.Error())
}

// servedPatience is for how long who asks waits for an answer: longer than a busy machine holds anybody up. Who is not served is told so, or waits in vain.
const servedPatience = 30 * time.Second

// serve begins to ask hosts' load balancer and resolver for a service's page and name.
func serve(t *testing.T, hosts []*farHost, name, want string) *served {
	v, stop := &served{answers: make([]atomic.Int64, len(hosts))}, make(chan struct{})
	var asking sync.WaitGroup
	v.stop = sync.OnceFunc(func() { close(stop); asking.Wait() })
	t.Cleanup(v.stop)
	for i, h := range hosts {
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond): // a pace, not a wait
				}
				v.asked.Add(1)
				page, err := ask(h.pid, h.address+":8080", "web", servedPatience)
				if err != nil || !strings.Contains(page, want) {
					v.miss(fmt.Errorf("%s serves %q, %v", h.name, page, err))
					continue
				}
				found, err := look(h.pid, h.address+":5353", name, servedPatience)
				if err != nil || len(found) == 0 {
					v.miss(fmt.Errorf("%s resolves %v, %v", h.name, found, err))
					continue
				}
				v.answers[i].Add(1)
			}
		})
	}
	return v
}

func serversCutOff(t *testing.T) {
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "switch", "type", "bridge")
	ip(t, "address", "add", "192.0.2.254/24", "dev", "switch")
	ip(t, "link", "set", "switch", "up")
	var places, hosts []*farHost
	s := &servers{t: t}
	for i := range 3 {
		h := newCabledHost(t, fmt.Sprint("server", i), fmt.Sprintf("192.0.2.%d", 11+i))
		places, s.peers = append(places, h), append(s.peers, h.address+":4646")
	}
	for i := range 2 {
		hosts = append(hosts, newCabledHost(t, fmt.Sprint("host", i), fmt.Sprintf("192.0.2.%d", 1+i)))
	}
	cfg := client.Config{Region: "us-east-1", CABundle: filepath.Join(places[0].dir, "keys", "ca.pem")}
	for i, h := range places {
		one := &oneServer{dir: h.dir, peers: s.peers[i]}
		one.process = startCommand(t, h.within, "server", "-v", "--data", h.dir, "--listen", h.address+":4566", "--peer-listen", one.peers, "--join", strings.Join(s.peers, ","),
			"--join-token", token, "--bootstrap-expect", "3", "--public-name", places[0].address+":4566")
		s.all = append(s.all, one)
	}
	for _, one := range s.all {
		one.url = one.says(`ready at (https://\S+) `)[0]
	}
	b, err := os.ReadFile(filepath.Join(founder(t, places), "keys", "root-credentials"))
	if err != nil {
		t.Fatal(err)
	}
	root := strings.Fields(string(b))
	cfg.AccessKey, cfg.SecretKey = root[0], root[1]
	for _, one := range s.all {
		cfg.Endpoint = one.url
		if one.Client, err = client.New(cfg); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Endpoint = s.all[0].url
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("apart")}); err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		t.Cleanup(h.removeAll)
		h.agent = startCommand(t, h.within, "agent", "-v", "--data", h.dir, "--servers", strings.Join(s.peers, ","), "--cluster", "apart", "--join-token", token,
			"--dns", h.address+":5353")
		h.agent.says(`agent (\S+) is connected`)
	}
	at := &site{t: t, Client: s.all[0].Client}
	webService(t, at, cfg)
	tasks := at.running(2)
	eventually(t, func() error { // the routes are everywhere
		for _, h := range hosts {
			got, err := get(h.pid, h.address+":8080", "web")
			if err == nil && !strings.Contains(got, "hello from web") {
				err = fmt.Errorf("%s serves %q", h.name, got)
			}
			if err == nil {
				_, err = look(h.pid, h.address+":5353", "web.corp.internal", 2*time.Second)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	traffic := serve(t, hosts, "web.corp.internal", "hello from web")
	interrupted := func(when string) {
		t.Helper()
		if n := traffic.missed.Load(); n > 0 {
			t.Errorf("%s: %d of %d were not served or resolved:\n%s", when, n, traffic.asked.Load(), strings.Join(traffic.why, "\n"))
		}
	}
	w := s.write()
	w.more(t, 20)
	place := func(one *oneServer) *farHost { return places[slices.Index(s.all, one)] }

	for _, c := range []struct {
		name    string
		in, out bool
	}{{"cut off", true, true}, {"not heard", false, true}, {"not told", true, false}} {
		leader, others := s.leader()
		var rest []*farHost
		for _, o := range others {
			rest = append(rest, place(o))
		}
		place(leader).cut(c.in, c.out, rest...)
		survivors := &servers{t: t, all: others}
		next, _ := survivors.leader()
		name := "while-" + strings.ReplaceAll(c.name, " ", "-")
		if _, err := others[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &name}); err != nil {
			t.Errorf("the leader is %s: %v", c.name, err)
		}
		if !others[1].allClusters(t)[name] {
			t.Errorf("the leader is %s: a server does not know what another has acknowledged", c.name)
		}
		// Who is cut off may not answer as if nothing had happened.
		if out, err := leader.ECS.DescribeClusters(t.Context(), &ecs.DescribeClustersInput{Clusters: []string{name}}, func(o *ecs.Options) { o.RetryMaxAttempts = 1 }); err == nil && len(out.Clusters) == 0 {
			t.Errorf("the leader is %s, and answers from before", c.name)
		}
		traffic.goesOn(t)
		place(leader).heal()
		w.more(t, 20)
		eventually(t, func() error {
			known, err := leader.knownClusters(t.Context())
			if err == nil && !known[name] {
				err = errors.New("it has not caught up")
			}
			return err
		})
		interrupted("the leader, now " + next.peers + ", was " + c.name)
	}
	w.stop()
	for _, one := range s.all {
		known := one.allClusters(t)
		for _, n := range w.acknowledged() {
			if !known[n] {
				t.Errorf("server %s has lost %s", one.peers, n)
			}
		}
	}
	if now := at.running(2); !slices.Equal(now, tasks) {
		t.Errorf("the tasks were %v and are %v", tasks, now)
	}

	// A whole host away from all servers: its task goes on, and is replaced elsewhere, where nobody notices; when it is back one of each runs.
	traffic.stop()
	traffic = serve(t, hosts[1:], "web.corp.internal", "hello from web")
	hosts[0].cut(true, true, places...)
	s.all[0].replaced(t, tasks)
	interrupted("a host is away from the servers")
	if len(containers(t, hosts)) != 3 { // the old one goes on: its host cannot know better
		t.Errorf("while the host is away these run: %v", containers(t, hosts))
	}
	traffic.goesOn(t)
	hosts[0].heal()
	eventually(t, func() error {
		if is := containers(t, hosts); len(is) != 2 {
			return fmt.Errorf("these tasks run: %v", is)
		}
		return nil
	})
	want := containers(t, hosts)
	for _, line := range at.running(2) {
		arn, _, _ := strings.Cut(line, " ")
		if !slices.Contains(want, arn[strings.LastIndex(arn, "/")+1:]) {
			t.Errorf("%s is said to run; these do: %v", arn, want)
		}
	}
	traffic.stop()
	interrupted("the host came back")
	for _, h := range hosts {
		h.agent.end(syscall.SIGTERM)
	}
}

// founder is the data directory of the server that has made the cluster's root credentials.
func founder(t *testing.T, places []*farHost) string {
	t.Helper()
	for _, h := range places {
		if _, err := os.Stat(filepath.Join(h.dir, "keys", "root-credentials")); err == nil {
			return h.dir
		}
	}
	t.Fatal("no server has root credentials")
	return ""
}

// containers are the ids of tasks whose processes run on hosts.
func containers(t *testing.T, hosts []*farHost) (ids []string) {
	t.Helper()
	for _, h := range hosts {
		files, err := filepath.Glob(filepath.Join(h.dir, "agent/native/tasks/*/containers/*/started.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			ids = append(ids, filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(f)))))
		}
	}
	return ids
}

// replaced waits until two tasks run of which one is none of those before.
func (one *oneServer) replaced(t *testing.T, before []string) {
	t.Helper()
	eventually(t, func() error {
		list, err := one.ECS.ListTasks(t.Context(), &ecs.ListTasksInput{Cluster: new("apart")})
		if err != nil || len(list.TaskArns) == 0 {
			return fmt.Errorf("tasks: %v, %v", list, err)
		}
		d, err := one.ECS.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Cluster: new("apart"), Tasks: list.TaskArns})
		if err != nil {
			return err
		}
		fresh := 0
		for _, task := range d.Tasks {
			if !slices.ContainsFunc(before, func(b string) bool { return strings.HasPrefix(b, *task.TaskArn) }) && *task.LastStatus == "RUNNING" {
				fresh++
			}
		}
		if fresh != 1 {
			return fmt.Errorf("%d tasks are new", fresh)
		}
		return nil
	})
}

// webService has two tasks, one on each host, behind a load balancer and a name.
func webService(t *testing.T, s *site, cfg client.Config) {
	t.Helper()
	ctx := t.Context()
	image := pushTLS(t, s, cfg)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	sd := servicediscovery.New(servicediscovery.Options{BaseEndpoint: &cfg.Endpoint, Region: cfg.Region, HTTPClient: s.ECS.Options().HTTPClient, Credentials: s.EC2.Options().Credentials})
	vpc, subnetIDs := defaultNetwork(t, s)
	group, err := s.EC2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: new("web"), Description: new("web"), VpcId: &vpc})
	must(err)
	_, err = s.EC2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group.GroupId, IpPermissions: []ec2types.IpPermission{
		{IpProtocol: new("tcp"), FromPort: new(int32(80)), ToPort: new(int32(80)), IpRanges: []ec2types.IpRange{{CidrIp: new("0.0.0.0/0")}}}}})
	must(err)
	namespace := privateNamespace(t, sd, "corp.internal", vpc)
	registry, err := sd.CreateService(ctx, &servicediscovery.CreateServiceInput{Name: new("web"), NamespaceId: &namespace,
		DnsConfig: &sdtypes.DnsConfig{DnsRecords: []sdtypes.DnsRecord{{Type: sdtypes.RecordTypeA, TTL: new(int64(1))}}}, HealthCheckCustomConfig: &sdtypes.HealthCheckCustomConfig{}})
	must(err)
	lb, err := s.ELB.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: new("front"), Subnets: subnetIDs, SecurityGroups: []string{*group.GroupId}})
	must(err)
	target, err := s.ELB.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: new("web"), Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(80)), VpcId: &vpc, TargetType: elbtypes.TargetTypeEnumIp,
		HealthCheckIntervalSeconds: new(int32(5)), HealthCheckTimeoutSeconds: new(int32(2)), HealthyThresholdCount: new(int32(2))})
	must(err)
	_, err = s.ELB.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(8080)),
		DefaultActions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: target.TargetGroups[0].TargetGroupArn}}})
	must(err)
	_, err = s.ECS.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), NetworkMode: ecstypes.NetworkModeAwsvpc, ContainerDefinitions: []ecstypes.ContainerDefinition{{
		Name: new("main"), Image: &image, Command: []string{"serve", ":80", "hello from web"}, Memory: new(int32(256)),
		PortMappings: []ecstypes.PortMapping{{ContainerPort: new(int32(80))}}}}})
	must(err)
	_, err = s.ECS.CreateService(ctx, &ecs.CreateServiceInput{Cluster: new("apart"), ServiceName: new("web"), TaskDefinition: new("web"), DesiredCount: new(int32(2)), LaunchType: ecstypes.LaunchTypeEc2,
		HealthCheckGracePeriodSeconds: new(int32(600)), // a busy machine's slow answers are no reason to replace a task
		PlacementStrategy:             []ecstypes.PlacementStrategy{{Type: ecstypes.PlacementStrategyTypeSpread, Field: new("instanceId")}},
		NetworkConfiguration:          &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: subnetIDs, SecurityGroups: []string{*group.GroupId}}},
		ServiceRegistries:             []ecstypes.ServiceRegistry{{RegistryArn: registry.Service.Arn}},
		LoadBalancers:                 []ecstypes.LoadBalancer{{TargetGroupArn: target.TargetGroups[0].TargetGroupArn, ContainerName: new("main"), ContainerPort: new(int32(80))}}})
	must(err)
}
