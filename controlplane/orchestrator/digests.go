package orchestrator

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// resolveImages keeps what the images of a service's task turned out to be for the tasks of its deployment that are to come: the first
// that says it decides, as in ECS. Containers whose version consistency is disabled resolve their image each time. before is what the task had
// said already: only what is new is looked at, so that reports seldom depend on the deployment.
func resolveImages(tx *state.Tx, t *controlplane.Task, before, now *agentapi.TaskStatus) {
	if t.Service == "" || t.Deployment == "" {
		return
	}
	known := func(name string) bool { // a task has few
		return slices.ContainsFunc(before.GetContainers(), func(c *agentapi.ContainerStatus) bool { return c.Name == name && c.ImageDigest != "" })
	}
	var said []*agentapi.ContainerStatus
	for _, c := range now.GetContainers() {
		if c.ImageDigest != "" && !known(c.Name) {
			said = append(said, c)
		}
	}
	if len(said) == 0 {
		return
	}
	d, ok := controlplane.Deployments.Get(tx, t.Scope().Key(t.Cluster, t.Service, t.Deployment))
	if !ok || d.TaskDefinition != t.TaskDefinition {
		return
	}
	said = slices.DeleteFunc(said, func(c *agentapi.ContainerStatus) bool { return d.ImageDigests[c.Name] != "" })
	if len(said) == 0 {
		return
	}
	changed, consistent := proto.CloneOf(d), consistentContainers(tx, t)
	for _, c := range said {
		if consistent[c.Name] {
			if changed.ImageDigests == nil {
				changed.ImageDigests = map[string]string{}
			}
			changed.ImageDigests[c.Name] = c.ImageDigest
		}
	}
	if len(changed.ImageDigests) > len(d.ImageDigests) {
		controlplane.Deployments.Put(tx, changed)
	}
}

// consistentContainers are those of a task whose image is to be the same in all tasks of a deployment and is not named by its digest anyway.
func consistentContainers(tx *state.Tx, t *controlplane.Task) map[string]bool {
	names := map[string]bool{}
	if def, ok := controlplane.TaskDefinitions.Get(tx, t.Scope().FamilyRevisionKey(t.TaskDefinition)); ok {
		for _, c := range def.Shape().ContainerDefinitions {
			names[aws.ToString(c.Name)] = c.VersionConsistency != types.VersionConsistencyDisabled && !strings.Contains(aws.ToString(c.Image), "@")
		}
	}
	return names
}
