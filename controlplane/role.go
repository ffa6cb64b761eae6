package controlplane

import (
	"cmp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/internal/arn"
)

// RoleARN is the role that a task definition, or a task's overrides, name by its ARN or its name; empty: none. A name stands for a role of the
// account, without a path unless it has one itself.
func RoleARN(account, given string) string {
	if given == "" || arn.Is(given) {
		return given
	}
	return arn.New("iam", "", account, "role/"+strings.TrimPrefix(given, "/")).String()
}

// TaskRoles are the ARNs of the roles that a task of the definition has: those of its overrides, or else the definition's own. Its containers
// act as the first, the platform on its behalf as the second; empty: there is none.
func TaskRoles(account string, def types.TaskDefinition, over types.TaskOverride) (task, execution string) {
	return RoleARN(account, cmp.Or(aws.ToString(over.TaskRoleArn), aws.ToString(def.TaskRoleArn))),
		RoleARN(account, cmp.Or(aws.ToString(over.ExecutionRoleArn), aws.ToString(def.ExecutionRoleArn)))
}

// Roles are the ARNs of the roles that the task has; d is its definition.
func (t *Task) Roles(d *TaskDefinition) (task, execution string) {
	return TaskRoles(t.Account, d.Shape(), DecodeShape[types.TaskOverride](t.OverridesJson))
}
