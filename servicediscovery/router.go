package servicediscovery

import (
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/mesh"
)

// Router registers the tasks of services with their discovery services; the orchestrator calls it.
type Router struct{ Clock clock.Clock }

// Register makes the task an instance, HEALTHY at once: it runs.
func (r Router) Register(tx *state.Tx, t *controlplane.Task, st *controlplane.TaskStatus) error {
	svc, ok := controlplane.Services.Get(tx, t.Scope().Key(t.Cluster, t.Service))
	if t.Service == "" || !ok {
		return nil
	}
	for _, reg := range controlplane.DecodeShape[[]ecstypes.ServiceRegistry](svc.ServiceRegistriesJson) {
		s, err := findService(tx, t.Scope(), reg.RegistryArn)
		if err != nil {
			return err
		}
		address, six, port := st.Report.GetAddress(), st.Report.GetIpv6Address(), uint32(aws.ToInt32(reg.Port))
		if port == 0 {
			port = uint32(aws.ToInt32(reg.ContainerPort))
		}
		for _, c := range st.Report.GetContainers() {
			for _, b := range c.Ports { // bound on the host: there it answers
				if c.Name == aws.ToString(reg.ContainerName) && b.ContainerPort == port && b.HostPort != 0 && st.Report.GetHostAddress() != "" {
					address, port = st.Report.GetHostAddress(), b.HostPort
				}
			}
		}
		e := s.endpoint(t.Id, address, port)
		e.Node, e.Cluster, e.Task = st.Node, t.Cluster, t.Id
		e.Attributes = map[string]string{
			"AWS_INSTANCE_IPV4": address, "ECS_CLUSTER_NAME": t.Cluster, "ECS_SERVICE_NAME": t.Service, "ECS_TASK_DEFINITION_FAMILY": strings.SplitN(t.TaskDefinition, ":", 2)[0],
			"REGION": t.Region, "AWS_INIT_HEALTH_STATUS": "HEALTHY",
		}
		if six != "" { // network mode awsvpc: the port is the task's own
			e.Attributes[attrIPv6] = six
		}
		if port != 0 {
			e.Attributes["AWS_INSTANCE_PORT"] = strconv.Itoa(int(port))
		}
		mesh.Register(tx, e, r.Clock.Now())
		touch(tx, s, e.Node)
	}
	return nil
}

// Withdraw takes the task out of the answers; a planned withdrawal also waits until given answers have expired.
func (r Router) Withdraw(tx *state.Tx, t *controlplane.Task, planned bool) error {
	for _, e := range mesh.OfTask(tx, t.Account, t.Region, t.Cluster, t.Id, true) {
		var w mesh.Withdrawal
		if s, err := findService(tx, t.Scope(), &e.Group); err == nil && e.State != agent.EndpointState_ENDPOINT_DRAINING {
			touch(tx, s, e.Node)
			for _, rec := range s.Records {
				if planned {
					w.TTL = max(w.TTL, time.Duration(rec.Ttl)*time.Second)
				}
			}
		}
		mesh.Withdraw(tx, mesh.Endpoints.Key(e), w, r.Clock.Now())
	}
	return nil
}

// Remove deletes the task's instances: it is gone.
func (Router) Remove(tx *state.Tx, t *controlplane.Task) error {
	for _, e := range mesh.OfTask(tx, t.Account, t.Region, t.Cluster, t.Id, true) {
		if s, err := findService(tx, t.Scope(), &e.Group); err == nil && e.State != agent.EndpointState_ENDPOINT_DRAINING {
			touch(tx, s, e.Node)
		}
	}
	mesh.RemoveTask(tx, t.Account, t.Region, t.Cluster, t.Id, true)
	return nil
}

// Clear says that no instance of the task is left.
func (Router) Clear(r state.Reader, t *controlplane.Task) bool {
	return len(mesh.OfTask(r, t.Account, t.Region, t.Cluster, t.Id, true)) == 0
}

// Healthy is true: an instance is answered from the moment it is registered.
func (Router) Healthy(state.Reader, *controlplane.Task) bool { return true }
