package ecs

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

var here = controlplane.Scope{Account: "000000000000", Region: "us-east-1"}

const groupARN = "arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/"

// platform is the family over real state in memory, and what it asks of others answered by rule: names say what a thing is.
type platform struct {
	*Service
	t          *testing.T
	now        time.Time
	mayPassAll bool
	sessionLog *controlplane.SessionLog // of the session that was made last
}

func newPlatform(t *testing.T) *platform {
	p := &platform{t: t, now: time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)}
	store := statetest.New(t, controlplane.Schema...)
	p.Service = New(Config{Store: store, Rand: rand.Reader, Pages: api.NewPages(plain{}), TargetGroups: p, Registries: p, Network: p, Placer: p, Lifecycle: p, Roles: p, Sessions: p})
	return p
}

// PassRole lets every role be passed but one.
func (p *platform) PassRole(_ context.Context, role, service string) error {
	if role == "arn:aws:iam::"+here.Account+":role/forbidden" && !p.mayPassAll || service != taskService && service != ecsService {
		return awserr.New("AccessDeniedException", "not %s to %s", role, service)
	}
	return nil
}

// TaskIdentity lets tasks assume every role but one.
func (p *platform) TaskIdentity(account, role, taskARN string) (api.Identity, error) {
	if role == "arn:aws:iam::"+here.Account+":role/untrusting" {
		return api.Identity{}, awserr.New("ClientException", "ECS was unable to assume the role '%s' for %s", role, taskARN)
	}
	return api.Identity{Account: account, ARN: role}, nil
}

// Begin makes a session of a node that is called away for none.
func (p *platform) Begin(_ context.Context, t *controlplane.Task, node, container string, command []string, to *controlplane.SessionLog) (types.Session, error) {
	p.sessionLog = to
	if node == "away" {
		return types.Session{}, awserr.New("TargetNotConnectedException", "away")
	}
	return types.Session{SessionId: aws.String(fmt.Sprintf("%s on %s: %q", container, node, command))}, nil
}

// plain seals nothing; page tokens have tests of their own.
type plain struct{}

func (plain) Seal(v, bound []byte) []byte { return append(slices.Clone(bound), v...) }
func (plain) Open(sealed, bound []byte) ([]byte, error) {
	if len(sealed) < len(bound) || !slices.Equal(sealed[:len(bound)], bound) {
		return nil, fmt.Errorf("not sealed for this")
	}
	return sealed[len(bound):], nil
}

func (p *platform) ServiceTargetGroup(_ state.Reader, _, _, arn string) (string, bool, bool) {
	switch arn {
	case groupARN + "instance/1":
		return "instance", true, true
	case groupARN + "ip/1":
		return "ip", true, true
	case groupARN + "lonely/1":
		return "instance", false, true
	}
	return "", false, false
}

func (p *platform) ServiceRegistry(_ state.Reader, _, _, arn string) (srv, exists bool) {
	return arn == "srv", arn == "srv" || arn == "a"
}

func (p *platform) NamespaceExists(_ state.Reader, _, _, ref string) bool {
	return ref == "prod.local" || ref == "arn:aws:servicediscovery:us-east-1:000000000000:namespace/ns-1"
}

func (p *platform) Subnet(_, _, id string) (string, bool) { return "us-east-1a", id == "subnet-1" }

func (p *platform) SecurityGroup(_ state.Reader, _, _, id string) (string, bool) {
	return "vpc-1", id == "sg-1"
}

// PlaceNow has room for 1024 MiB on the first instance of the cluster.
func (p *platform) PlaceNow(tx *state.Tx, tasks []*controlplane.Task) (placed []*controlplane.TaskStatus, why []types.Failure, err error) {
	for ci := range controlplane.ContainerInstances.Scan(tx, tasks[0].Scope().Key(tasks[0].Cluster)) {
		free := uint32(1024)
		for _, t := range tasks {
			if t.Demand.MemoryMib > free {
				return placed, []types.Failure{{Arn: aws.String(ci.ARN()), Reason: aws.String("RESOURCE:MEMORY")}}, nil
			}
			free -= t.Demand.MemoryMib
			st, _ := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(t))
			st, _ = st.AdvancePlaced(ci.Node)
			controlplane.TaskStatuses.Put(tx, st)
			placed = append(placed, st)
		}
		return placed, nil, nil
	}
	return nil, nil, ErrNoInstances
}

// Stop knows no endpoints: every task may be stopped at once.
func (p *platform) Stop(tx *state.Tx, task state.Key, stopCode, reason string, planned bool) (*controlplane.TaskStatus, error) {
	st, _ := controlplane.TaskStatuses.Get(tx, task)
	if planned {
		return nil, fmt.Errorf("StopTask is not planned")
	}
	if next, moved := st.AdvanceDesired(agentapi.TaskState_STOPPED, stopCode, reason, p.now); moved {
		controlplane.TaskStatuses.Put(tx, next)
		st = next
	}
	return st, nil
}

// ctx is a call of this account in this region.
// Report is what the orchestrator makes of a report, without routers.
func (p *platform) Report(tx *state.Tx, node string, r *agentapi.TaskStatus) error {
	for t := range controlplane.TasksByID.Scan(tx, state.K(r.TaskId)) {
		st, _ := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(t))
		if next, moved := st.AdvanceReport(r, r.State, p.now); moved && st.Node == node {
			controlplane.TaskStatuses.Put(tx, next)
		}
	}
	return nil
}

func (p *platform) ctx() context.Context { return p.as(here) }

func (p *platform) as(scope controlplane.Scope) context.Context {
	return api.WithCall(p.t.Context(), &api.Call{
		Identity: api.Identity{Account: scope.Account, ARN: "arn:aws:iam::" + scope.Account + ":root", Root: true},
		Region:   scope.Region, Service: "ecs", Operation: "test", Time: p.now,
	})
}

// must returns what a call answers, in this account.
func must[I, O any](p *platform, f func(context.Context, *I) (*O, error), in *I) *O {
	p.t.Helper()
	out, err := f(p.ctx(), in)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *platform) change(fn func(tx *state.Tx)) {
	p.t.Helper()
	if _, err := p.Store.Update(p.t.Context(), func(tx *state.Tx) error { fn(tx); return nil }); err != nil {
		p.t.Fatal(err)
	}
}

// node joins a host of 2 cores and 4 GiB to the cluster and returns the container instance's id.
func (p *platform) node(cluster string) string {
	const id = "0123456789abcdef0123456789abcdef"
	p.change(func(tx *state.Tx) {
		controlplane.Nodes.Put(tx, &controlplane.Node{
			Id: "node", Status: "READY", Version: "1", Attributes: map[string]string{"ecs.availability-zone": "us-east-1a", "ecs.cpu-architecture": "x86_64"},
			Resources: &agentapi.NodeResources{CpuUnits: 2048, MemoryMib: 4096, ReservedPorts: []*agentapi.PortRange{{First: 22, Last: 22, Protocol: "tcp"}}},
		})
		controlplane.ContainerInstances.Put(tx, &controlplane.ContainerInstance{
			Account: here.Account, Region: here.Region, Cluster: cluster, Id: id, Node: "node", Status: active, Version: 1,
			Attributes: map[string]string{"tier": "web"},
		})
	})
	return id
}

// report is what the agent says of every live task of the cluster.
func (p *platform) report(cluster string, to agentapi.TaskState) {
	p.change(func(tx *state.Tx) {
		for _, st := range slices.Collect(controlplane.LiveTasks.Scan(tx, here.Key(cluster))) {
			if st.Node == "" {
				st, _ = st.AdvancePlaced("node")
			}
			r := &agentapi.TaskStatus{TaskId: st.Id, Epoch: st.Epoch, State: to, Address: "10.1.0.2", MacAddress: "02:42:0a:01:00:02", Ipv6Address: "fd00::2", Health: agentapi.Health_HEALTH_HEALTHY, Containers: []*agentapi.ContainerStatus{{
				Health: agentapi.Health_HEALTH_HEALTHY,
				Name:   "web", State: agentapi.ContainerState_CONTAINER_RUNNING, Started: timestamppb.New(p.now), RuntimeId: "rt", ImageDigest: "sha256:1",
				Ports: []*agentapi.PortBinding{{ContainerPort: 3000, HostPort: 32768, Protocol: "tcp"}},
			}}}
			if to == agentapi.TaskState_STOPPED {
				r.StopCode, r.StoppedReason = "EssentialContainerExited", "Essential container in task exited"
				r.Containers[0].State, r.Containers[0].ExitCode = agentapi.ContainerState_CONTAINER_STOPPED, proto.Int32(3)
			}
			if next, moved := st.AdvanceReport(r, to, p.now); moved {
				controlplane.TaskStatuses.Put(tx, next)
			}
		}
	})
}

func webDefinition() *ecs.RegisterTaskDefinitionInput {
	return &ecs.RegisterTaskDefinitionInput{Family: aws.String("web"), ContainerDefinitions: []types.ContainerDefinition{{
		Name: aws.String("web"), Image: aws.String("web:1"), Cpu: 256, Memory: aws.Int32(256),
		PortMappings: []types.PortMapping{{ContainerPort: aws.Int32(3000), HostPort: aws.Int32(0)}},
	}}}
}

func vpcDefinition() *ecs.RegisterTaskDefinitionInput {
	in := webDefinition()
	in.Family, in.Cpu, in.Memory = aws.String("vpc"), aws.String(".25 vCPU"), aws.String("0.5 GB")
	in.NetworkMode, in.RequiresCompatibilities = types.NetworkModeAwsvpc, []types.Compatibility{types.CompatibilityFargate}
	return in
}

func subnet() *types.NetworkConfiguration {
	return &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"subnet-1"}, SecurityGroups: []string{"sg-1"}}}
}

// world is what the error cases happen in: a cluster with a host, task definitions web, vpc and dead, and services in every
// status.
func world(t *testing.T) *platform {
	p := newPlatform(t)
	for _, name := range []string{"default", "empty", "gone"} {
		must(p, p.createCluster, &ecs.CreateClusterInput{ClusterName: &name})
	}
	must(p, p.deleteCluster, &ecs.DeleteClusterInput{Cluster: aws.String("gone")})
	p.node("default")
	must(p, p.registerTaskDefinition, webDefinition())
	must(p, p.registerTaskDefinition, vpcDefinition())
	dead := webDefinition()
	dead.Family = aws.String("dead")
	must(p, p.registerTaskDefinition, dead)
	must(p, p.deregisterTaskDefinition, &ecs.DeregisterTaskDefinitionInput{TaskDefinition: aws.String("dead:1")})
	for _, name := range []string{"active", "draining", "inactive"} {
		must(p, p.createService, &ecs.CreateServiceInput{ServiceName: &name, TaskDefinition: aws.String("web"), DesiredCount: aws.Int32(2)})
	}
	for _, name := range []string{"draining", "inactive"} {
		must(p, p.deleteService, &ecs.DeleteServiceInput{Service: &name, Force: aws.Bool(true)})
	}
	p.change(func(tx *state.Tx) {
		svc, _ := controlplane.Services.Get(tx, here.Key("default", "inactive"))
		svc = proto.CloneOf(svc)
		svc.Status = inactive
		controlplane.Services.Put(tx, svc)
	})
	return p
}
