package dispatcher

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// roles let tasks assume every role but "untrusting", and every one do everything but "powerless".
type roles struct{}

func (roles) TaskIdentity(account, role, taskARN string) (api.Identity, error) {
	if strings.HasSuffix(role, "untrusting") {
		return api.Identity{}, awserr.New("ClientException", "ECS was unable to assume the role")
	}
	return api.Identity{Account: account, ARN: role + " for " + taskARN, AccessKeyID: "ASIA"}, nil
}

func (r roles) TaskCredentials(account, role, taskARN string) (api.Credential, error) {
	who, err := r.TaskIdentity(account, role, taskARN)
	return api.Credential{Identity: who, SecretAccessKey: "secret", SessionToken: "token", Expires: time.Unix(1e9, 0)}, err
}

func (r roles) TaskMay(_ context.Context, role, taskARN, action, resource string) error {
	if strings.HasSuffix(role, "powerless") {
		return errors.New("not authorized to perform: " + action + " on resource: " + resource)
	}
	return nil
}

// as gives the task a definition with these roles.
func (p *plane) as(t *controlplane.Task, task, execution string) {
	p.change(func(tx *state.Tx) error {
		controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{
			Account: scope.Account, Region: scope.Region, Family: "web", Revision: 1, Status: "ACTIVE",
			DefinitionJson: []byte(`{"taskRoleArn":"` + task + `","executionRoleArn":"` + execution + `","containerDefinitions":[{"name":"web","image":"nginx"},{"name":"own","image":"ours/web"}]}`),
		})
		return nil
	})
}

// An agent gets credentials of the roles of the tasks that are on its node, and of no others.
func TestRoleCredentials(t *testing.T) {
	p := newPlane(t)
	p.Authorize = func(ctx context.Context, node string) error {
		if md, _ := metadata.FromIncomingContext(ctx); len(md["node"]) != 1 || md["node"][0] != node {
			return errors.New("the certificate names another node")
		}
		return nil
	}
	mine := p.task("a")
	p.as(mine, "app", "")
	ask := func(caller, node, task string) (*agentapi.RoleCredentialsAnswer, error) {
		return agentapi.NewDispatcherClient(p.dial).RoleCredentials(metadata.AppendToOutgoingContext(t.Context(), "node", caller),
			&agentapi.RoleCredentialsRequest{NodeId: node, TaskId: task})
	}
	if _, err := ask("a", "a", mine.Id); status.Code(err) != codes.Unimplemented {
		t.Errorf("without roles: %v", err)
	}
	p.Roles = roles{}
	got, err := ask("a", "a", mine.Id)
	if err != nil || got.RoleArn != "arn:aws:iam::000000000000:role/app" || got.AccessKeyId != "ASIA" || got.SecretAccessKey != "secret" || got.SessionToken != "token" || got.Expires.Seconds != 1e9 {
		t.Errorf("%v, %v", got, err)
	}
	for what, c := range map[string]struct{ caller, node, task string }{
		"a node asks in another's name":       {"b", "a", mine.Id},
		"a node asks for another's task":      {"b", "b", mine.Id},
		"there is no such task":               {"a", "a", strings.Repeat("0", 32)},
		"no task is named":                    {"a", "a", ""},
		"no node is named, none is on a task": {"", "", mine.Id},
	} {
		if got, err := ask(c.caller, c.node, c.task); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	p.as(mine, "untrusting", "")
	if _, err := ask("a", "a", mine.Id); status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != "ECS was unable to assume the role" {
		t.Errorf("a role that does not let tasks assume it: %v", err)
	}
	p.as(mine, "", "app")
	if _, err := ask("a", "a", mine.Id); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a task without a role of its own: %v", err)
	}
	p.as(mine, "app", "")
	p.change(func(tx *state.Tx) error {
		s, _ := p.status(mine).AdvanceReport(&agentapi.TaskStatus{TaskId: mine.Id, Epoch: p.status(mine).Epoch, State: agentapi.TaskState_STOPPED}, agentapi.TaskState_STOPPED, p.clock.Now())
		controlplane.TaskStatuses.Put(tx, s)
		return nil
	})
	if _, err := ask("a", "a", mine.Id); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a task that is over: %v", err)
	}
}

// What an image of the platform's own registry is pulled with, and the words of a pull that is refused before it begins.
func TestLogin(t *testing.T) {
	p := newPlane(t)
	a := Assignments{Log: p.Log, Roles: roles{}, Credentials: func(account, region, image string, as *api.Identity) (string, string, bool) {
		if !strings.HasPrefix(image, "ours/") {
			return "", "", false
		}
		who := "platform"
		if as != nil {
			who = as.ARN
		}
		return "AWS", account + " " + region + " " + who, true
	}, Answer: func(_ state.Reader, account, region, image string, as *api.Identity) (string, bool) {
		if as == nil {
			return "sha256:" + account + region + image, true
		}
		return "sha256:" + as.ARN, as.ARN != ""
	}}
	for _, c := range []struct{ role, launchType, password, refusal string }{
		{"", "EC2", "platform", ""},
		{"pull", "EC2", "arn:aws:iam::000000000000:role/pull for TASK", ""},
		{"untrusting", "EC2", "", "CannotPullECRContainerError: ECS was unable to assume the role"},
		{"powerless", "EC2", "", "CannotPullECRContainerError: AccessDeniedException: not authorized to perform: ecr:GetAuthorizationToken on resource: *"},
		{"powerless", "FARGATE", "", "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve ecr registry auth: " +
			"service call has been retried 1 time(s): AccessDeniedException: not authorized to perform: ecr:GetAuthorizationToken on resource: *"},
	} {
		task := p.task("a")
		p.as(task, "app", c.role)
		task.LaunchType = c.launchType
		p.change(func(tx *state.Tx) error { controlplane.Tasks.Put(tx, task); return nil })
		assignment := a.resource(p.Store.View(), p.status(task)).GetAssignment()
		spec := assignment.Spec
		if spec.TaskRole != "arn:aws:iam::000000000000:role/app" {
			t.Errorf("task role %s", spec.TaskRole)
		}
		foreign, own := spec.Containers[0], spec.Containers[1]
		if foreign.RegistryUser != "" || foreign.RegistryPassword != "" || foreign.RegistryRefusal != "" {
			t.Errorf("%s: an image of another registry is pulled with %+v", c.role, foreign)
		}
		want := ""
		if c.password != "" {
			want = "000000000000 us-east-1 " + strings.ReplaceAll(c.password, "TASK", task.ARN())
		}
		if own.RegistryPassword != want || own.RegistryRefusal != c.refusal {
			t.Errorf("%s: %q, %q", c.role, own.RegistryPassword, own.RegistryRefusal)
		}
		// What the registry would answer, for whoever the image is pulled as.
		answers := map[string]string{}
		switch c.role {
		case "":
			answers[own.Name] = "sha256:000000000000us-east-1" + own.Image
		case "pull":
			answers[own.Name] = "sha256:" + strings.ReplaceAll(c.password, "TASK", task.ARN())
		}
		if !maps.Equal(assignment.ImageDigests, answers) {
			t.Errorf("%s: answers %v, want %v", c.role, assignment.ImageDigests, answers)
		}
		p.change(func(tx *state.Tx) error { // nothing is pulled any more
			s, _ := p.status(task).AdvanceReport(&agentapi.TaskStatus{TaskId: task.Id, Epoch: p.status(task).Epoch, State: agentapi.TaskState_ACTIVATING}, agentapi.TaskState_PENDING, p.clock.Now())
			controlplane.TaskStatuses.Put(tx, s)
			return nil
		})
		if later := a.resource(p.Store.View(), p.status(task)).GetAssignment(); len(later.ImageDigests) > 0 {
			t.Errorf("%s: a task that is past its pulls has %v", c.role, later.ImageDigests)
		}
	}
}
