package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	sdtypes "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime/native"
	"github.com/seed-2f228079/neargate/agent/runtime/runtimetest"
	"github.com/seed-2f228079/neargate/client"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

// apart is set for the test's process in a network namespace of its own, which is the place of the server and the router between hosts.
const apart = "NEARGATE_TEST_APART"

// farHost is the host of an agent: a network namespace at the end of a cable, and a data directory.
type farHost struct {
	t       *testing.T
	name    string
	pid     int // of a process in the namespace
	address string
	zone    string
	dir     string
	agent   *process
}

// TestTasksOfDifferentHosts runs two agents in namespaces, as neighbours and with a router between them, and tasks on them that
// reach one another as their security groups have it.
func TestTasksOfDifferentHosts(t *testing.T) {
	if lacks := native.Check(); len(lacks) > 0 {
		t.Skip("this host cannot run containers: " + strings.Join(lacks, "; "))
	}
	for _, routed := range []bool{false, true} {
		name := map[bool]string{false: "neighbours", true: "routed"}[routed]
		t.Run(name, func(t *testing.T) {
			if os.Getenv(apart) != "" {
				differentHosts(t, routed)
				return
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestTasksOfDifferentHosts$/^"+name+"$", "-test.v")
			cmd.Env = append(os.Environ(), apart+"=1")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestTasksOfDifferentHosts/"+name) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// newFarHosts lays the cables. The server is at the first address returned.
func newFarHosts(t *testing.T, routed bool) (server string, hosts []*farHost) {
	t.Helper()
	ip(t, "link", "set", "lo", "up")
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if !routed {
		ip(t, "link", "add", "switch", "type", "bridge")
		ip(t, "address", "add", "192.0.2.254/24", "dev", "switch")
		ip(t, "link", "set", "switch", "up")
	}
	for i, name := range []string{"one", "two"} {
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		h := &farHost{t: t, name: name, pid: cmd.Process.Pid, dir: t.TempDir(), zone: "us-east-1" + "ab"[i:i+1]}
		gateway := "192.0.2.254"
		h.address = fmt.Sprintf("192.0.2.%d", i+1)
		if routed && i == 1 {
			h.address, gateway = "198.51.100.1", "198.51.100.254"
		}
		ip(t, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(h.pid))
		if routed {
			ip(t, "address", "add", gateway+"/24", "dev", name)
		} else {
			ip(t, "link", "set", name, "master", "switch")
		}
		ip(t, "link", "set", name, "up")
		for _, args := range [][]string{{"link", "set", "lo", "up"}, {"address", "add", h.address + "/24", "dev", "eth0"}, {"link", "set", "eth0", "up"}, {"route", "add", "default", "via", gateway}} {
			h.output("ip", args...)
		}
		hosts = append(hosts, h)
	}
	return "192.0.2.254", hosts
}

// within is a command in the host's namespace.
func (h *farHost) within(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/proc/" + fmt.Sprint(h.pid) + "/ns/net", name}, args...)...)
}

func (h *farHost) output(name string, args ...string) string {
	h.t.Helper()
	out, err := h.within(name, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %s %s: %v: %s", h.name, name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (h *farHost) start(peers string) {
	h.t.Helper()
	args := []string{"agent", "-v", "--data", h.dir, "--servers", peers, "--cluster", "apart", "--availability-zone", h.zone, "--join-token", token}
	h.agent = startCommand(h.t, h.within, args...)
	h.agent.says(`agent (\S+) is connected`)
}

// removeAll removes what agents leave on purpose, and looks whether it is all.
func (h *farHost) removeAll() {
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := h.within(self)
	cmd.Env = append(os.Environ(), asRemover+"="+h.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Errorf("remove what is left of %s: %v: %s", h.name, err, out)
	}
	left := h.output("ip", "-br", "link") + h.output("ip", "route") + h.output("nft", "list", "tables") + h.output("ip", "-6", "route") + h.output("ip", "-6", "address")
	for _, word := range []string{"10.64.", "10.80.", "fd8e:", ":a40:1/", ":a50:1/", "ng-", "nx-", "neargate", "proto 78"} {
		if strings.Contains(left, word) {
			h.t.Errorf("%s: left behind:\n%s", h.name, left)
			break
		}
	}
}

// inNamespace runs f in the network namespace of a process.
func inNamespace(pid int, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		ns, err := netns.GetFromPid(pid)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// taskPID is the process of a task's container.
func (h *farHost) taskPID(arn string) int {
	h.t.Helper()
	id := arn[strings.LastIndex(arn, "/")+1:]
	files, err := filepath.Glob(filepath.Join(h.dir, "agent/native/tasks", id, "containers/*/started.json"))
	if err != nil || len(files) != 1 {
		h.t.Fatalf("task %s on %s: %v, %v", id, h.name, files, err)
	}
	b, err := os.ReadFile(files[0])
	var r struct{ PID int }
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return r.PID
}

// get asks for a page from within a namespace, once, and does not wait for long: it is asked again.
func get(pid int, address, host string) (answer string, err error) {
	return ask(pid, address, host, 2*time.Second)
}

// ask asks for a page from within a namespace.
func ask(pid int, address, host string, patience time.Duration) (answer string, err error) {
	err = inNamespace(pid, func() error {
		c, err := net.DialTimeout("tcp", address, patience/4)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(c, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", host)
		b, err := io.ReadAll(c)
		answer = string(b)
		return err
	})
	return answer, err
}

func reaches(t *testing.T, pid int, address, want string) {
	t.Helper()
	eventually(t, func() error {
		got, err := get(pid, address, "web")
		if err == nil && !strings.Contains(got, want) {
			err = fmt.Errorf("%s answers %q, want %q", address, got, want)
		}
		return err
	})
}

func blocked(t *testing.T, pid int, address string) {
	t.Helper()
	eventually(t, func() error {
		if got, err := get(pid, address, "web"); err == nil {
			return fmt.Errorf("%s answers %q", address, got)
		}
		return nil
	})
}

// look asks the resolver that a task has.
func look(pid int, resolver, name string, patience time.Duration) (answer []string, err error) {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
		err = inNamespace(pid, func() error {
			c, err = new(net.Dialer).DialContext(ctx, "udp", resolver)
			return err
		})
		return c, err
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.LookupHost(ctx, name)
}

func differentHosts(t *testing.T, routed bool) {
	server, hosts := newFarHosts(t, routed)
	data := t.TempDir()
	p := start(t, "server", "--data", data, "--listen", server+":0", "--peer-listen", server+":0", "--join-token", token)
	cfg := client.Config{Region: "us-east-1", CABundle: filepath.Join(data, "keys", "ca.pem")}
	cfg.AccessKey, cfg.SecretKey = p.says(`AWS_ACCESS_KEY_ID=(\S+)$`)[0], p.says(`AWS_SECRET_ACCESS_KEY=(\S+)$`)[0]
	m := p.says(`ready at (https://\S+) .*peers at ([^,]+),`)
	cfg.Endpoint = m[0]
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, Client: c}
	ctx := t.Context()
	if _, err := s.ECS.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("apart")}); err != nil {
		t.Fatal(err)
	}
	one, two := hosts[0], hosts[1]
	for _, h := range hosts {
		t.Cleanup(h.removeAll)
		h.start(m[1])
	}
	image := pushTLS(t, s, cfg)

	sd := servicediscovery.New(servicediscovery.Options{BaseEndpoint: &cfg.Endpoint, Region: cfg.Region, HTTPClient: &http.Client{Transport: trusting(t, cfg.CABundle)}, Credentials: s.EC2.Options().Credentials})
	vpc, subnetIDs := defaultNetwork(t, s)
	group := func(name string) string {
		out, err := s.EC2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: &name, Description: &name, VpcId: &vpc})
		if err != nil {
			t.Fatal(err)
		}
		return *out.GroupId
	}
	clients, web, front := group("clients"), group("web"), group("front")
	fromClients := []ec2types.IpPermission{{IpProtocol: new("tcp"), FromPort: new(int32(80)), ToPort: new(int32(80)), UserIdGroupPairs: []ec2types.UserIdGroupPair{{GroupId: &clients}}}}

	// The service: on the first host, by its name in Cloud Map, behind a load balancer.
	namespace := privateNamespace(t, sd, "corp.internal", vpc)
	registry, err := sd.CreateService(ctx, &servicediscovery.CreateServiceInput{Name: new("web"), NamespaceId: &namespace,
		DnsConfig: &sdtypes.DnsConfig{DnsRecords: []sdtypes.DnsRecord{{Type: sdtypes.RecordTypeA, TTL: new(int64(1))}, {Type: sdtypes.RecordTypeAaaa, TTL: new(int64(1))}}}, HealthCheckCustomConfig: &sdtypes.HealthCheckCustomConfig{}})
	if err != nil {
		t.Fatal(err)
	}
	lb, err := s.ELB.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: new("front"), Subnets: subnetIDs, SecurityGroups: []string{front}})
	if err != nil {
		t.Fatal(err)
	}
	target, err := s.ELB.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: new("web"), Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(80)), VpcId: &vpc, TargetType: elbtypes.TargetTypeEnumIp,
		HealthCheckIntervalSeconds: new(int32(5)), HealthCheckTimeoutSeconds: new(int32(2)), HealthyThresholdCount: new(int32(2))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ELB.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Protocol: elbtypes.ProtocolEnumHttp, Port: new(int32(8080)),
		DefaultActions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: target.TargetGroups[0].TargetGroupArn}}}); err != nil {
		t.Fatal(err)
	}
	authorize := func(to string, p ...ec2types.IpPermission) {
		t.Helper()
		if _, err := s.EC2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &to, IpPermissions: p}); err != nil {
			t.Fatal(err)
		}
	}
	define := func(family string, command ...string) {
		t.Helper()
		_, err := s.ECS.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: &family, NetworkMode: ecstypes.NetworkModeAwsvpc, ContainerDefinitions: []ecstypes.ContainerDefinition{{
			Name: new("main"), Image: &image, Command: command, Memory: new(int32(256)), // the init is this test, with the race detector
			PortMappings: []ecstypes.PortMapping{{ContainerPort: new(int32(80))}}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	define("web", "serve", ":80", "hello from web")
	define("client", "wait")
	vpcConfiguration := func(groups ...string) *ecstypes.NetworkConfiguration {
		return &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: subnetIDs, SecurityGroups: groups}}
	}
	inZone := func(h *farHost) []ecstypes.PlacementConstraint {
		return []ecstypes.PlacementConstraint{{Type: ecstypes.PlacementConstraintTypeMemberOf, Expression: new("attribute:ecs.availability-zone == " + h.zone)}}
	}
	if _, err := s.ECS.CreateService(ctx, &ecs.CreateServiceInput{Cluster: new("apart"), ServiceName: new("web"), TaskDefinition: new("web"), DesiredCount: new(int32(1)), LaunchType: ecstypes.LaunchTypeEc2,
		HealthCheckGracePeriodSeconds: new(int32(600)),
		NetworkConfiguration:          vpcConfiguration(web), PlacementConstraints: inZone(one), ServiceRegistries: []ecstypes.ServiceRegistry{{RegistryArn: registry.Service.Arn}},
		LoadBalancers: []ecstypes.LoadBalancer{{TargetGroupArn: target.TargetGroups[0].TargetGroupArn, ContainerName: new("main"), ContainerPort: new(int32(80))}}}); err != nil {
		t.Fatal(err)
	}
	runClient := func(h *farHost, groups ...string) string {
		t.Helper()
		out, err := s.ECS.RunTask(ctx, &ecs.RunTaskInput{Cluster: new("apart"), TaskDefinition: new("client"), LaunchType: ecstypes.LaunchTypeEc2, NetworkConfiguration: vpcConfiguration(groups...), PlacementConstraints: inZone(h)})
		if err != nil || len(out.Failures) > 0 {
			t.Fatal(err, out.Failures)
		}
		return *out.Tasks[0].TaskArn
	}
	near, far, stranger := runClient(one, clients), runClient(two, clients), runClient(two)
	s.running(4)
	serving, err := s.ECS.ListTasks(ctx, &ecs.ListTasksInput{Cluster: new("apart"), ServiceName: new("web")})
	if err != nil {
		t.Fatal(err)
	}
	described, err := s.ECS.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: new("apart"), Tasks: serving.TaskArns})
	if err != nil {
		t.Fatal(err)
	}
	details := map[string]string{}
	for _, d := range described.Tasks[0].Attachments[0].Details {
		details[*d.Name] = *d.Value
	}
	address := details["privateIPv4Address"]
	if !strings.HasPrefix(address, "10.64.0.") || details["subnetId"] != subnetIDs[0] || details["macAddress"] == "" || !strings.HasPrefix(details["networkInterfaceId"], "eni-") {
		t.Errorf("the task's interface: %v", details)
	}
	at80 := address + ":80"
	six := details["ipv6Address"]
	at80over6 := "[" + six + "]:80"
	if shown := described.Tasks[0].Containers[0].NetworkInterfaces; !strings.HasPrefix(six, "fd8e:2f17:5b60:") || len(shown) != 1 || *shown[0].Ipv6Address != six {
		t.Errorf("the task's IPv6 address: %v, %+v", details, shown)
	}
	pids := map[string]int{"near": one.taskPID(near), "far": two.taskPID(far), "stranger": two.taskPID(stranger)}

	// No task may, and no load balancer.
	for _, who := range []string{"near", "far", "stranger"} {
		blocked(t, pids[who], at80)
		blocked(t, pids[who], at80over6)
	}
	for _, h := range hosts {
		reaches(t, h.pid, at80, "hello from web") // but whoever is on a host
		reaches(t, h.pid, h.address+":8080", "503 ")
	}
	eventually(t, func() error {
		d, err := s.ELB.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: target.TargetGroups[0].TargetGroupArn})
		if err == nil && (len(d.TargetHealthDescriptions) != 1 || d.TargetHealthDescriptions[0].TargetHealth.Reason != elbtypes.TargetHealthReasonEnumTimeout) {
			err = fmt.Errorf("the target's health is %+v", d.TargetHealthDescriptions)
		}
		return err
	})
	authorize(web, ec2types.IpPermission{IpProtocol: new("tcp"), FromPort: new(int32(80)), ToPort: new(int32(80)), UserIdGroupPairs: []ec2types.UserIdGroupPair{{GroupId: &front}}})
	for _, h := range hosts { // through the load balancer on either host
		reaches(t, h.pid, h.address+":8080", "hello from web")
	}
	// Members of a group may, from either host, by address and by name.
	authorize(web, fromClients...)
	reaches(t, pids["near"], at80, "hello from web to ")
	reaches(t, pids["far"], at80, "hello from web to 10.80.0.") // the address of its own
	reaches(t, pids["near"], at80over6, "hello from web to ")
	reaches(t, pids["far"], at80over6, "hello from web to [fd8e:2f17:5b61:")
	blocked(t, pids["stranger"], at80)
	blocked(t, pids["stranger"], at80over6)
	eventually(t, func() error {
		found, err := look(pids["far"], "10.80.0.1:53", "web.corp.internal", 2*time.Second)
		if slices.Sort(found); err == nil && !slices.Equal(found, []string{address, six}) {
			err = fmt.Errorf("web.corp.internal is %v, want %s and %s", found, address, six)
		}
		return err
	})
	// No more, and again, while the task runs on.
	if _, err := s.EC2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &web, IpPermissions: fromClients}); err != nil {
		t.Fatal(err)
	}
	blocked(t, pids["near"], at80)
	blocked(t, pids["far"], at80)
	blocked(t, pids["far"], at80over6)
	authorize(web, fromClients...)
	reaches(t, pids["far"], at80, "hello from web")

	// Without their agents, and with new ones.
	for _, h := range hosts {
		h.agent.end(syscall.SIGKILL)
	}
	check := func() {
		t.Helper()
		reaches(t, pids["far"], at80, "hello from web")
		reaches(t, pids["near"], at80, "hello from web")
		reaches(t, pids["far"], at80over6, "hello from web")
		blocked(t, pids["stranger"], at80)
		blocked(t, pids["stranger"], at80over6)
	}
	check()
	for _, h := range hosts {
		h.start(m[1])
	}
	check()
	s.running(4)
	// A host that leaves is reached no more, and neither is one that comes in its place by its old entries.
	if routes := one.output("ip", "route", "show", "proto", "78"); !strings.HasPrefix(routes, "10.80.0.0/22 ") {
		t.Errorf("routes of the first host: %s", routes)
	}
	if vxlan := strings.Contains(one.output("ip", "-br", "link"), "nx-"); vxlan != routed {
		t.Errorf("VXLAN is used: %v, want %v", vxlan, routed)
	}
	if _, err := s.ECS.DeleteService(ctx, &ecs.DeleteServiceInput{Cluster: new("apart"), Service: new("web"), Force: new(true)}); err != nil {
		t.Fatal(err)
	}
	for _, task := range []string{near, far, stranger} {
		if _, err := s.ECS.StopTask(ctx, &ecs.StopTaskInput{Cluster: new("apart"), Task: &task}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.EC2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &clients}); err == nil {
		t.Error("a group that another's rule names was deleted")
	}
	for _, id := range []string{web, clients} { // once their tasks are over
		eventually(t, func() error {
			_, err := s.EC2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &id})
			return err
		})
	}
	for _, h := range hosts {
		h.agent.end(syscall.SIGTERM)
	}
}

// trusting is a transport that trusts the cluster's authority.
func trusting(t *testing.T, bundle string) *http.Transport {
	t.Helper()
	authorities := x509.NewCertPool()
	if text, err := os.ReadFile(bundle); err != nil || !authorities.AppendCertsFromPEM(text) {
		t.Fatal(errors.Join(err, errors.New("no certificate")))
	}
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities}}
}

// pushTLS puts the suite's program into a repository of a server that speaks TLS.
func pushTLS(t *testing.T, s *site, cfg client.Config) string {
	t.Helper()
	repository, err := s.ECR.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: new("web")})
	if err != nil {
		t.Fatal(err)
	}
	image := *repository.Repository.RepositoryUri + ":1"
	push := ociclient.Client{Transport: trusting(t, cfg.CABundle)}
	built := ocitest.Image(t, runtimetest.ProgConfig, runtimetest.ProgLayer(t))
	if _, err := push.Push(t.Context(), image, ociclient.Credentials{User: cfg.AccessKey, Password: cfg.SecretKey}, built); err != nil {
		t.Fatal(err)
	}
	return image
}

// defaultNetwork is the VPC that every account has, and its subnets.
func defaultNetwork(t *testing.T, s *site) (vpc string, subnets []string) {
	t.Helper()
	vpcs, err := s.EC2.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.EC2.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all.Subnets {
		subnets = append(subnets, *n.SubnetId)
	}
	return *vpcs.Vpcs[0].VpcId, subnets
}

// privateNamespace makes one and waits until it is there.
func privateNamespace(t *testing.T, sd *servicediscovery.Client, name, vpc string) (id string) {
	t.Helper()
	operation, err := sd.CreatePrivateDnsNamespace(t.Context(), &servicediscovery.CreatePrivateDnsNamespaceInput{Name: &name, Vpc: &vpc})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		o, err := sd.GetOperation(t.Context(), &servicediscovery.GetOperationInput{OperationId: operation.OperationId})
		if err != nil {
			return err
		}
		if id = o.Operation.Targets["NAMESPACE"]; o.Operation.Status != sdtypes.OperationStatusSuccess {
			return fmt.Errorf("the namespace is %s", o.Operation.Status)
		}
		return nil
	})
	return id
}
