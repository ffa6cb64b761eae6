package dispatcher

import (
	"log/slog"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Assignments is the source of what nodes have to run: the live tasks placed on them.
type Assignments struct {
	Log *slog.Logger
	// Credentials are those with which an agent pulls an image of the account from the platform's own registry, as somebody or, nil, with the
	// platform's own rights; ok is false for images of other registries. Nil: there are none.
	Credentials func(account, region, image string, as *api.Identity) (user, password string, ok bool)
	Roles       Roles // needed with Credentials
	// Plans keep what was read of definitions; nil: each is read for every task.
	Plans *controlplane.Plans
	// Answer is what an image of that registry is, for a host that has it already: with it no question is needed when the task starts. ok is false where one is. Nil:
	// all is asked.
	Answer func(v state.Reader, account, region, image string, as *api.Identity) (digest string, ok bool)
	// DefaultGroup is the id of the default VPC's default security group; nil: there are no security groups.
	DefaultGroup func(account, region string) string
}

// Kind is ASSIGNMENTS.
func (Assignments) Kind() agentapi.Kind { return agentapi.Kind_ASSIGNMENTS }

// Tables are the task statuses: tasks and their definitions never change.
func (Assignments) Tables() []state.TableInfo { return []state.TableInfo{controlplane.TaskStatuses} }

// Full is every live task of the node.
func (a Assignments) Full(v *state.View, node string) []*agentapi.Resource {
	var list []*agentapi.Resource
	for s := range controlplane.LiveTasksByNode.Scan(v, state.K(node)) {
		if r := a.resource(v, s); r != nil {
			list = append(list, r)
		}
	}
	return list
}

// Delta is the tasks that came, went, or are wanted otherwise; what agents reported themselves is no news to them.
func (a Assignments) Delta(v *state.View, events []state.Event) []Change {
	var changes []Change
	for _, e := range events {
		before, _ := e.Old.(*controlplane.TaskStatus)
		after, _ := e.New.(*controlplane.TaskStatus)
		was, is := assigned(before), assigned(after)
		switch {
		case was && !is:
			changes = append(changes, Change{Node: before.Node, Name: before.Id})
		case is && (!was || before.Epoch != after.Epoch || desired(before) != desired(after)):
			if r := a.resource(v, after); r != nil {
				changes = append(changes, Change{Node: after.Node, Name: after.Id, Resource: r})
			}
		}
	}
	return changes
}

func assigned(s *controlplane.TaskStatus) bool { return s != nil && s.Node != "" && s.Live() }

// desired is what the agent is told: a task that leaves the traffic first runs until it has.
func desired(s *controlplane.TaskStatus) agentapi.DesiredState {
	if s.Desired == agentapi.TaskState_STOPPED {
		return agentapi.DesiredState_DESIRED_STOPPED
	}
	return agentapi.DesiredState_DESIRED_RUNNING
}

func (a Assignments) resource(v *state.View, s *controlplane.TaskStatus) *agentapi.Resource {
	t, ok := controlplane.Tasks.Get(v, controlplane.TaskStatuses.Key(s))
	if !ok {
		return nil // removed within the same batch
	}
	d, ok := controlplane.TaskDefinitions.Get(v, t.Scope().FamilyRevisionKey(t.TaskDefinition))
	if !ok {
		a.Log.Error("an assigned task has no task definition", "task", t.Id, "definition", t.TaskDefinition)
		return nil
	}
	deployment, _ := controlplane.Deployments.Get(v, t.Scope().Key(t.Cluster, t.Service, t.Deployment))
	spec, role, err := a.Plans.Render(t, d, deployment.GetImageDigests())
	if err != nil {
		a.Log.Error("an assigned task cannot be rendered", "task", t.Id, "error", err)
		return nil
	}
	controlplane.SetLogMode(v, t, spec)
	controlplane.SetGPUs(s, t, d, spec)
	spec.Ipv6 = spec.NetworkMode == "awsvpc" && controlplane.DualStack(v, t.Scope())
	for _, g := range s.SecurityGroups {
		if a.DefaultGroup == nil {
			break
		}
		fallback := a.DefaultGroup(t.Account, t.Region)
		if g == controlplane.DefaultSecurityGroup {
			g = fallback
		}
		spec.SecurityGroups = append(spec.SecurityGroups, g)
		spec.DefaultSecurityGroup = g == fallback && len(s.SecurityGroups) == 1
	}
	as := &agentapi.Assignment{TaskId: t.Id, TaskArn: t.ARN(), Epoch: s.Epoch, Desired: desired(s), Spec: spec, StopReason: s.StoppedReason}
	if a.Credentials != nil {
		starts := as.Desired == agentapi.DesiredState_DESIRED_RUNNING && s.Report.GetState() < agentapi.TaskState_ACTIVATING
		for _, c := range spec.Containers {
			who := a.login(t, role, c)
			if !starts || a.Answer == nil || c.RegistryPassword == "" {
				continue
			}
			if digest, ok := a.Answer(v, t.Account, t.Region, c.Image, who); ok {
				if as.ImageDigests == nil {
					as.ImageDigests = map[string]string{}
				}
				as.ImageDigests[c.Name] = digest
			}
		}
	}
	return &agentapi.Resource{Name: t.Id, Body: &agentapi.Resource_Assignment{Assignment: as}}
}
