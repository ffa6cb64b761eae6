package controlplane

import (
	"fmt"
	"strings"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// The tables. docs/design/controlplane.md says who writes and who watches each of them.
var (
	// Clusters are written by the operations of controlplane/ecs.
	Clusters = state.NewTable("ecs.cluster", func(c *Cluster) state.Key {
		return state.K(c.Account, c.Region, c.Name)
	})
	// TaskDefinitions are written by the operations; a revision never changes but for its status.
	TaskDefinitions = state.NewTable("ecs.taskdefinition", func(d *TaskDefinition) state.Key {
		return state.K(d.Account, d.Region, d.Family, revisionKey(d.Revision))
	})
	// Families remember the last revision given out, also when every revision is deleted.
	Families = state.NewTable("ecs.family", func(f *Family) state.Key {
		return state.K(f.Account, f.Region, f.Name)
	})
	// Services are written by the operations; the orchestrator watches them and ends DRAINING.
	Services = state.NewTable("ecs.service", func(s *Service) state.Key {
		return state.K(s.Account, s.Region, s.Cluster, s.Name)
	})
	// Deployments are created by the operations together with the service's change; the orchestrator writes their
	// progress and removes them.
	Deployments = state.NewTable("ecs.deployment", func(d *Deployment) state.Key {
		return state.K(d.Account, d.Region, d.Cluster, d.Service, d.Id)
	})
	// ServiceDeployments are begun by the operations, together with the deployment, and carried on by the orchestrator; see
	// servicedeployment.go.
	ServiceDeployments = state.NewTable("ecs.servicedeployment", func(d *ServiceDeployment) state.Key {
		return state.K(d.Account, d.Region, d.Cluster, d.Service, d.Id)
	})
	// ServiceRevisions are written with the first service deployment that names them, and go with the last.
	ServiceRevisions = state.NewTable("ecs.servicerevision", func(r *ServiceRevision) state.Key {
		return state.K(r.Account, r.Region, r.Cluster, r.Service, r.Id)
	})
	// ServiceEventRings are written through AppendServiceEvent: a service's events, in pages, of which 0 comes first and then the newest.
	ServiceEventRings = state.NewTable("ecs.serviceevents", func(e *ServiceEvents) state.Key {
		return eventPageKey(state.K(e.Account, e.Region, e.Cluster, e.Service), e.Page)
	})
	// Tasks are created through CreateTask and never change.
	Tasks = state.NewTable("ecs.task", func(t *Task) state.Key {
		return state.K(t.Account, t.Region, t.Cluster, t.Id)
	})
	// TaskStatuses change through the Advance methods only.
	TaskStatuses = state.NewTable("ecs.taskstatus", func(t *TaskStatus) state.Key {
		return state.K(t.Account, t.Region, t.Cluster, t.Id)
	})
	// Nodes are written by the dispatcher.
	Nodes = state.NewTable("ecs.node", func(n *Node) state.Key { return state.K(n.Id) })
	// ContainerInstances are created by the dispatcher and capacity, drained by the operations.
	ContainerInstances = state.NewTable("ecs.containerinstance", func(c *ContainerInstance) state.Key {
		return state.K(c.Account, c.Region, c.Cluster, c.Id)
	})
	// AccountSettings are written by the operations.
	AccountSettings = state.NewTable("ecs.accountsetting", func(s *AccountSetting) state.Key {
		return state.K(s.Account, s.Region, s.Principal, s.Name)
	})
	// ResourceTags hold the tags of any resource of any family; see SetTags.
	ResourceTags = state.NewTable("tags", func(t *Tags) state.Key { return state.K(t.Account, t.Region, t.Arn) })
	// ClientTokens remember requests; see Once.
	ClientTokens = state.NewTable("clienttoken", func(t *ClientToken) state.Key {
		return state.K(t.Account, t.Region, t.Operation, t.Token)
	})
)

// Schema is every table of the domain.
var Schema = state.Schema{
	Clusters, TaskDefinitions, Families, Services, Deployments, ServiceEventRings, Tasks, TaskStatuses, Nodes,
	ContainerInstances, AccountSettings, ResourceTags, ClientTokens, ServiceDeployments, ServiceRevisions,
}

// The indexes. A task is live until it observed STOPPED; a stopped one stays for its retention only.
var (
	// LiveTasks: account, region, cluster.
	LiveTasks = state.NewIndex(TaskStatuses, "live", func(t *TaskStatus) []state.Key {
		return when(t.Live(), t.Account, t.Region, t.Cluster)
	})
	// LiveTasksByService: account, region, cluster, service.
	LiveTasksByService = state.NewIndex(TaskStatuses, "liveservice", func(t *TaskStatus) []state.Key {
		return when(t.Live() && t.Service != "", t.Account, t.Region, t.Cluster, t.Service)
	})
	// FailedTasksByService: account, region, cluster, service. Those that ended by themselves or for their health; those that were replaced
	// or scaled in, or lost with their host, are many more, and nobody asks for them.
	FailedTasksByService = state.NewIndex(TaskStatuses, "failedservice", func(t *TaskStatus) []state.Key {
		return when(!t.Live() && t.Service != "" && t.StopCode != StopTermination && (t.StopCode != StopScheduler || strings.HasPrefix(t.StoppedReason, FailedHealth)),
			t.Account, t.Region, t.Cluster, t.Service)
	})
	// LiveTasksByNode: node. It is the node's ledger, and the dispatcher's assignments.
	LiveTasksByNode = state.NewIndex(TaskStatuses, "livenode", func(t *TaskStatus) []state.Key {
		return when(t.Live() && t.Node != "", t.Node)
	})
	// LiveTasksBySecurityGroup: account, region, group.
	LiveTasksBySecurityGroup = state.NewIndex(TaskStatuses, "livesecuritygroup", func(t *TaskStatus) []state.Key {
		if !t.Live() {
			return nil
		}
		var keys []state.Key
		for _, g := range t.SecurityGroups {
			keys = append(keys, state.K(t.Account, t.Region, g))
		}
		return keys
	})
	// UnplacedTasks: account, region, cluster. What the scheduler has to place.
	UnplacedTasks = state.NewIndex(TaskStatuses, "unplaced", func(t *TaskStatus) []state.Key {
		return when(t.Unplaced(), t.Account, t.Region, t.Cluster)
	})
	// LeavingTasks: account, region, cluster. Live tasks that somebody wants gone.
	LeavingTasks = state.NewIndex(TaskStatuses, "leaving", func(t *TaskStatus) []state.Key {
		return when(t.Live() && t.Desired > agentapi.TaskState_RUNNING, t.Account, t.Region, t.Cluster)
	})
	// StoppedTasks: time of stopping (see TimeKey), for retention.
	StoppedTasks = state.NewIndex(TaskStatuses, "stopped", func(t *TaskStatus) []state.Key {
		return when(!t.Live(), TimeKey(t.Stopped.AsTime()))
	})
	// TasksByID: id. What an agent reports names a task by its id alone. It is an index of the part that never changes, so that
	// looking a task up conflicts with nothing.
	TasksByID = state.NewIndex(Tasks, "id", func(t *Task) []state.Key { return []state.Key{state.K(t.Id)} })
	// TasksByFamily: account, region, cluster, family of the task definition.
	TasksByFamily = state.NewIndex(Tasks, "family", func(t *Task) []state.Key {
		family, _ := ParseFamilyRevision(t.TaskDefinition)
		return []state.Key{state.K(t.Account, t.Region, t.Cluster, family)}
	})
	// TasksByGroup: account, region, cluster, group.
	TasksByGroup = state.NewIndex(Tasks, "group", func(t *Task) []state.Key {
		return []state.Key{state.K(t.Account, t.Region, t.Cluster, t.Group)}
	})
	// NodesEverywhere: those that are container instances of every cluster.
	NodesEverywhere = state.NewIndex(Nodes, "everywhere", func(n *Node) []state.Key { return when(n.EveryCluster, "") })
	// ContainerInstancesByNode: node.
	ContainerInstancesByNode = state.NewIndex(ContainerInstances, "node", func(c *ContainerInstance) []state.Key {
		return []state.Key{state.K(c.Node)}
	})
	// InactiveServices: time of becoming INACTIVE (see TimeKey), for retention.
	InactiveServices = state.NewIndex(Services, "inactive", func(s *Service) []state.Key {
		return when(s.Status == "INACTIVE", TimeKey(s.InactiveSince.AsTime()))
	})
	// ServiceDeploymentsByTime: time of beginning (see TimeKey), for retention.
	ServiceDeploymentsByTime = state.NewIndex(ServiceDeployments, "begun", func(d *ServiceDeployment) []state.Key {
		return []state.Key{state.K(TimeKey(d.Created.AsTime()))}
	})
	// ClientTokensByExpiry: time of expiry (see TimeKey), for clean-up.
	ClientTokensByExpiry = state.NewIndex(ClientTokens, "expiry", func(t *ClientToken) []state.Key {
		return []state.Key{state.K(TimeKey(t.Expires.AsTime()))}
	})
)

// What FailedTasksByService goes by: the stop code of tasks that their service ended, and how the reason begins of those that it
// replaced for their health; the stop code of those whose host was stopped or lost.
const (
	StopScheduler   = "ServiceSchedulerInitiated"
	FailedHealth    = "Task failed "
	StopTermination = "TerminationNotice"
)

func when(ok bool, parts ...string) []state.Key {
	if !ok {
		return nil
	}
	return []state.Key{state.K(parts...)}
}

// TimeKey is a key part that sorts as t does.
func TimeKey(t time.Time) string { return fmt.Sprintf("%020d", max(t.UnixNano(), 0)) }

// revisionKey is a key part that sorts as the number does.
func revisionKey(r uint32) string { return fmt.Sprintf("%010d", r) }
