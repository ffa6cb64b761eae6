package elb

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/mesh"
)

// Router registers the tasks of services with their target groups; the orchestrator calls it.
type Router struct{ Clock clock.Clock }

// Register makes the task's endpoints, INITIAL.
func (r Router) Register(tx *state.Tx, t *controlplane.Task, st *controlplane.TaskStatus) error {
	svc, ok := controlplane.Services.Get(tx, t.Scope().Key(t.Cluster, t.Service))
	if t.Service == "" || !ok {
		return nil
	}
	for _, lb := range controlplane.DecodeShape[[]types.LoadBalancer](svc.LoadBalancersJson) {
		arn := aws.ToString(lb.TargetGroupArn)
		if arn == "" {
			continue
		}
		g, err := findTargetGroup(tx, t.Scope(), arn)
		if err != nil {
			return err
		}
		e, err := taskEndpoint(tx, g, t, st, aws.ToString(lb.ContainerName), uint32(aws.ToInt32(lb.ContainerPort)))
		if err != nil {
			return err
		}
		mesh.Register(tx, start(e), r.Clock.Now())
	}
	return nil
}

// taskEndpoint is where the container's port answers: the task's own address for a group of addresses, else the host's with the
// port that the container was bound to.
func taskEndpoint(r state.Reader, g *TargetGroup, t *controlplane.Task, st *controlplane.TaskStatus, container string, port uint32) (*mesh.Endpoint, error) {
	e := &mesh.Endpoint{
		Account: g.Account, Region: g.Region, Group: g.ARN(), Weight: 1, Node: st.Node, Cluster: t.Cluster, Task: t.Id,
	}
	n, ok := controlplane.Nodes.Get(r, state.K(st.Node))
	if ok {
		e.Zone = n.Attributes["ecs.availability-zone"]
	}
	if g.TargetType == "ip" {
		e.Address, e.Port = st.Report.GetAddress(), port
		e.Target = e.Address
	} else {
		e.Address = st.Report.GetHostAddress()
		if e.Address == "" {
			e.Address = n.GetAddress()
		}
		e.Target = st.Node
		if ok {
			e.Target = instanceID(n)
		}
		e.Port = hostPort(st.Report, container, port)
	}
	if e.Address == "" || e.Port == 0 {
		return nil, invalid("container %s of task %s has no address for port %d", container, t.Id, port)
	}
	e.Id = endpointID(e.Address, e.Port)
	return e, nil
}

// hostPort is the port of the host that the container's port is bound to; 0: none.
func hostPort(report *agent.TaskStatus, container string, port uint32) uint32 {
	for _, c := range report.GetContainers() {
		if c.Name != container {
			continue
		}
		for _, b := range c.Ports {
			if b.ContainerPort == port && b.Protocol != "udp" {
				return b.HostPort
			}
		}
	}
	return 0
}

// Withdraw begins to drain the task's endpoints.
func (r Router) Withdraw(tx *state.Tx, t *controlplane.Task, _ bool) error {
	for _, e := range mesh.OfTask(tx, t.Account, t.Region, t.Cluster, t.Id, false) {
		w := mesh.Withdrawal{Delay: 300 * time.Second}
		if g, err := findTargetGroup(tx, t.Scope(), e.Group); err == nil {
			w = g.withdrawal()
		}
		mesh.Withdraw(tx, mesh.Endpoints.Key(e), w, r.Clock.Now())
	}
	return nil
}

// Remove deletes the task's endpoints: it is gone.
func (Router) Remove(tx *state.Tx, t *controlplane.Task) error {
	mesh.RemoveTask(tx, t.Account, t.Region, t.Cluster, t.Id, false)
	return nil
}

// Clear says that no endpoint of the task is left.
func (Router) Clear(r state.Reader, t *controlplane.Task) bool {
	return len(mesh.OfTask(r, t.Account, t.Region, t.Cluster, t.Id, false)) == 0
}

// Healthy says that all endpoints of the task get requests. A group that no listener forwards to is not checked: its
// targets count as healthy, or a service would wait for ever.
func (Router) Healthy(r state.Reader, t *controlplane.Task) bool {
	for _, e := range mesh.OfTask(r, t.Account, t.Region, t.Cluster, t.Id, false) {
		if e.State != agent.EndpointState_ENDPOINT_HEALTHY && used(r, t.Scope(), e.Group) {
			return false
		}
	}
	return true
}

// Failed is why the task has to be replaced, in ECS's words.
func (Router) Failed(r state.Reader, t *controlplane.Task) string {
	for _, e := range mesh.OfTask(r, t.Account, t.Region, t.Cluster, t.Id, false) {
		if e.State == agent.EndpointState_ENDPOINT_UNHEALTHY {
			return "Task failed ELB health checks in (target-group " + e.Group + ")"
		}
	}
	return ""
}

// ServiceTargetGroup answers ECS: whether the target group exists, what its targets are, and whether a load balancer
// forwards to it.
func (s *Service) ServiceTargetGroup(r state.Reader, account, region, arn string) (targetType string, attached, exists bool) {
	scope := controlplane.Scope{Account: account, Region: region}
	g, err := findTargetGroup(r, scope, arn)
	if err != nil {
		return "", false, false
	}
	return g.TargetType, used(r, scope, arn), true
}
