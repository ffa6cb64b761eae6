package controlplane

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// Scope is where names are unique: an account in a region. Every key but a node's begins with it.
type Scope struct{ Account, Region string }

// Key is the key of the named record: Key("default") of a cluster, Key("default", "web") of a service in it.
func (s Scope) Key(parts ...string) state.Key {
	return state.K(append([]string{s.Account, s.Region}, parts...)...)
}

// TaskDefinitionKey is the key of one revision.
func (s Scope) TaskDefinitionKey(family string, revision uint32) state.Key {
	return s.Key(family, revisionKey(revision))
}

// FamilyRevisionKey is the key of what "family:revision" names, as records hold it.
func (s Scope) FamilyRevisionKey(familyRevision string) state.Key {
	return s.TaskDefinitionKey(ParseFamilyRevision(familyRevision))
}

func (s Scope) ecs(resource string) string {
	return arn.New("ecs", s.Region, s.Account, resource).String()
}

// ClusterARN is arn:aws:ecs:REGION:ACCOUNT:cluster/NAME.
func (s Scope) ClusterARN(name string) string { return s.ecs("cluster/" + name) }

// ServiceARN is the long form, with the cluster's name.
func (s Scope) ServiceARN(cluster, name string) string {
	return s.ecs("service/" + cluster + "/" + name)
}

// TaskARN is the long form, with the cluster's name.
func (s Scope) TaskARN(cluster, id string) string { return s.ecs("task/" + cluster + "/" + id) }

// ContainerARN names one container of a task.
func (s Scope) ContainerARN(cluster, taskID, id string) string {
	return s.ecs("container/" + cluster + "/" + taskID + "/" + id)
}

// ContainerInstanceARN is the long form, with the cluster's name.
func (s Scope) ContainerInstanceARN(cluster, id string) string {
	return s.ecs("container-instance/" + cluster + "/" + id)
}

// TaskDefinitionARN names what "family:revision" names.
func (s Scope) TaskDefinitionARN(familyRevision string) string {
	return s.ecs("task-definition/" + familyRevision)
}

// ServiceDeploymentARN names a release of a service.
func (s Scope) ServiceDeploymentARN(cluster, service, id string) string {
	return s.ecs("service-deployment/" + cluster + "/" + service + "/" + id)
}

// ServiceRevisionARN names what a deployment's tasks are made of; id is Deployment.Id, with or without its prefix.
func (s Scope) ServiceRevisionARN(cluster, service, id string) string {
	return s.ecs("service-revision/" + cluster + "/" + service + "/" + RevisionID(id))
}

// RevisionID is a deployment's revision: its id without the prefix, as with ECS.
func RevisionID(deployment string) string { return strings.TrimPrefix(deployment, DeploymentPrefix) }

// DeploymentPrefix begins the id of every deployment made by the ECS deployment controller.
const DeploymentPrefix = "ecs-svc/"

// FamilyRevision is how records name a task definition: "family:revision".
func FamilyRevision(family string, revision uint32) string {
	return family + ":" + strconv.FormatUint(uint64(revision), 10)
}

// ParseFamilyRevision splits what FamilyRevision made. Anything else is a broken record.
func ParseFamilyRevision(s string) (family string, revision uint32) {
	family, number, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		panic(fmt.Sprintf("controlplane: %q is not family:revision", s))
	}
	return family, uint32(n)
}

// Scope, ARN and FamilyRevision of the records.

// Scope is the cluster's account and region.
func (c *Cluster) Scope() Scope { return Scope{c.Account, c.Region} }

// ARN is the cluster's.
func (c *Cluster) ARN() string { return c.Scope().ClusterARN(c.Name) }

// Scope is the task definition's account and region.
func (d *TaskDefinition) Scope() Scope { return Scope{d.Account, d.Region} }

// FamilyRevision is "family:revision".
func (d *TaskDefinition) FamilyRevision() string { return FamilyRevision(d.Family, d.Revision) }

// ARN is the task definition's.
func (d *TaskDefinition) ARN() string { return d.Scope().TaskDefinitionARN(d.FamilyRevision()) }

// Scope is the service's account and region.
func (s *Service) Scope() Scope { return Scope{s.Account, s.Region} }

// ARN is the service's.
func (s *Service) ARN() string { return s.Scope().ServiceARN(s.Cluster, s.Name) }

// Scope is the deployment's account and region.
func (d *Deployment) Scope() Scope { return Scope{d.Account, d.Region} }

// Scope is the service deployment's account and region.
func (d *ServiceDeployment) Scope() Scope { return Scope{d.Account, d.Region} }

// ARN is the service deployment's.
func (d *ServiceDeployment) ARN() string {
	return d.Scope().ServiceDeploymentARN(d.Cluster, d.Service, d.Id)
}

// Scope is the task's account and region.
func (t *Task) Scope() Scope { return Scope{t.Account, t.Region} }

// ARN is the task's.
func (t *Task) ARN() string { return t.Scope().TaskARN(t.Cluster, t.Id) }

// Scope is the task's account and region.
func (t *TaskStatus) Scope() Scope { return Scope{t.Account, t.Region} }

// ARN is the task's.
func (t *TaskStatus) ARN() string { return t.Scope().TaskARN(t.Cluster, t.Id) }

// Scope is the container instance's account and region.
func (c *ContainerInstance) Scope() Scope { return Scope{c.Account, c.Region} }

// ARN is the container instance's.
func (c *ContainerInstance) ARN() string { return c.Scope().ContainerInstanceARN(c.Cluster, c.Id) }
