package controlplane

import (
	"maps"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// CreateTask puts the task and its first status, and its tags when there are any.
func CreateTask(tx *state.Tx, t *Task, tags map[string]string) *TaskStatus {
	status := &TaskStatus{
		Account: t.Account, Region: t.Region, Cluster: t.Cluster, Id: t.Id, Service: t.Service, Deployment: t.Deployment,
		Desired: agentapi.TaskState_RUNNING, Observed: agentapi.TaskState_PROVISIONING, Version: 1,
		SecurityGroups: securityGroups(t),
	}
	Tasks.Put(tx, t)
	TaskStatuses.Put(tx, status)
	PutTags(tx, t.Scope(), t.ARN(), tags)
	return status
}

// DefaultSecurityGroup stands for the default group of a task's VPC.
const DefaultSecurityGroup = "default"

// securityGroups are those that the task's network interface is in; nil: it has none of its own.
func securityGroups(t *Task) []string {
	vpc := DecodeShape[types.NetworkConfiguration](t.NetworkConfigurationJson).AwsvpcConfiguration
	switch {
	case vpc == nil:
		return nil
	case len(vpc.SecurityGroups) == 0:
		return []string{DefaultSecurityGroup}
	}
	return vpc.SecurityGroups
}

// TaskHost is what a task is shown with of the host that it is on, or was.
type TaskHost struct {
	Zone, Architecture string
	Connected          bool   // its agent is
	Instance           string // id of its container instance; empty: there is none
}

// DeleteTask removes a stopped task with everything that hangs on it.
func DeleteTask(tx *state.Tx, s *TaskStatus) {
	key := TaskStatuses.Key(s)
	Tasks.Delete(tx, key)
	TaskStatuses.Delete(tx, key)
	PutTags(tx, s.Scope(), s.ARN(), nil)
}

// TaskTags are the tags a new task gets: its own, those of what it is started from (propagate is TASK_DEFINITION, SERVICE or
// nothing), and with managed those by which ECS says where it belongs. Own tags win.
func TaskTags(r state.Reader, t *Task, own map[string]string, propagate string, managed bool) map[string]string {
	tags := map[string]string{}
	switch propagate {
	case "TASK_DEFINITION":
		maps.Copy(tags, TagsOf(r, t.Scope(), t.Scope().TaskDefinitionARN(t.TaskDefinition)))
	case "SERVICE":
		maps.Copy(tags, TagsOf(r, t.Scope(), t.Scope().ServiceARN(t.Cluster, t.Service)))
	}
	maps.Copy(tags, own)
	if managed {
		tags["aws:ecs:clusterName"] = t.Cluster
		if t.Service != "" {
			tags["aws:ecs:serviceName"] = t.Service
		}
	}
	return tags
}

// ProviderFor chooses the capacity provider of the next task: bases first, then whoever is furthest below its share of
// the weights. have counts the tasks that each provider has already.
func ProviderFor(strategy []types.CapacityProviderStrategyItem, have map[string]int) string {
	var best string
	var bestShare float64
	for _, item := range strategy {
		name := aws.ToString(item.CapacityProvider)
		if have[name] < int(item.Base) {
			return name
		}
		weight := item.Weight
		if len(strategy) == 1 {
			weight = max(weight, 1)
		}
		if weight == 0 {
			continue
		}
		share := float64(have[name]-int(item.Base)+1) / float64(weight)
		if best == "" || share < bestShare {
			best, bestShare = name, share
		}
	}
	return best
}

// Has says whether a task on the instance's node is there by this membership: tasks of other clusters may be on the node too, and those
// of the serverless pool.
func (ci *ContainerInstance) Has(t *Task) bool {
	return t.Account == ci.Account && t.Region == ci.Region && t.Cluster == ci.Cluster && t.LaunchType == "EC2"
}
