package ecs

import (
	"context"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// A role is given three times over: its form is looked at when a definition names it (a role that does not exist yet may be named), the
// caller's right to pass it then and whenever a task or a service is given the definition, and whether it lets tasks assume it when one is run.

// Roles is what ECS asks of IAM.
type Roles interface {
	// PassRole says whether the caller may pass a role to a service that will act with it.
	PassRole(ctx context.Context, role, service string) error
	// TaskIdentity is who the role makes of a task; the error is ECS's words for a role that does not let tasks assume it.
	TaskIdentity(account, role, taskARN string) (api.Identity, error)
}

// Who acts with roles: tasks with those of task definitions, ECS itself with a service's.
const (
	taskService = "ecs-tasks.amazonaws.com"
	ecsService  = "ecs.amazonaws.com"
)

var (
	roleName    = regexp.MustCompile(`^/?([\w+=,.@-]+/)*[\w+=,.@-]{1,64}$`)
	roleAccount = regexp.MustCompile(`^[0-9]{12}$`)
)

// checkRoles looks at the form of roles, which are ARNs or names.
func checkRoles(roles ...*string) error {
	for _, r := range roles {
		given := aws.ToString(r)
		name := given
		if arn.Is(given) {
			a, err := arn.Parse(given)
			if err != nil || a.Service != "iam" || a.Region != "" || !roleAccount.MatchString(a.Account) || !strings.HasPrefix(a.Resource, "role/") {
				return client("Role is not valid")
			}
			name = a.Rest()
		}
		if given != "" && !roleName.MatchString(name) {
			return client("Role is not valid")
		}
	}
	return nil
}

// passRoles checks iam:PassRole for every role that is given.
func (s *Service) passRoles(ctx context.Context, service string, roles ...*string) error {
	for _, r := range roles {
		name := controlplane.RoleARN(api.CallFrom(ctx).Account, aws.ToString(r))
		if name == "" {
			continue
		}
		if err := s.Roles.PassRole(ctx, name, service); err != nil {
			return err
		}
	}
	return nil
}

// passTaskRoles checks the roles that tasks of the definition will have: those of the overrides, or else the definition's own.
func (s *Service) passTaskRoles(ctx context.Context, d *controlplane.TaskDefinition, overrides *types.TaskOverride) error {
	if overrides == nil {
		overrides = &types.TaskOverride{}
	}
	if err := checkRoles(overrides.ExecutionRoleArn, overrides.TaskRoleArn); err != nil {
		return err
	}
	task, execution := controlplane.TaskRoles(d.Account, d.Shape(), *overrides)
	return s.passRoles(ctx, taskService, &execution, &task)
}

// assumeRoles makes sure that a task can have its roles.
func (s *Service) assumeRoles(t *controlplane.Task, d *controlplane.TaskDefinition) error {
	task, execution := t.Roles(d)
	for _, role := range []string{task, execution} {
		if role == "" {
			continue
		}
		if _, err := s.Roles.TaskIdentity(t.Account, role, t.ARN()); err != nil {
			return err
		}
	}
	return nil
}
