package ecs

import (
	"context"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// What AWS takes at most: a task definition as JSON (its "Task definition size" quota), and a task's overrides, their JSON's own characters included.
const (
	maxTaskDefinition = 64 << 10
	maxOverrides      = 8192
)

// registerTaskDefinition implements ecs:RegisterTaskDefinition.
func (s *Service) registerTaskDefinition(ctx context.Context, in *ecs.RegisterTaskDefinitionInput) (*ecs.RegisterTaskDefinitionOutput, error) {
	def, err := normalize(in)
	if err != nil {
		return nil, err
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	demand, err := controlplane.DemandOf(def, types.TaskOverride{})
	if err != nil {
		return nil, client("%s", capital(err))
	}
	if err := s.passRoles(ctx, taskService, in.ExecutionRoleArn, in.TaskRoleArn); err != nil {
		return nil, err
	}
	text := controlplane.EncodeShape(def)
	if len(text) > maxTaskDefinition {
		return nil, client("Actual length: '%d'. Max allowed length is '%d' bytes.", len(text), maxTaskDefinition)
	}
	call := api.CallFrom(ctx)
	out := &ecs.RegisterTaskDefinitionOutput{}
	return answer(out, s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		family := aws.ToString(in.Family)
		f, ok := controlplane.Families.Get(tx, scope.Key(family))
		if ok {
			f = proto.CloneOf(f)
		} else {
			f = &controlplane.Family{Account: scope.Account, Region: scope.Region, Name: family}
		}
		f.LastRevision++
		controlplane.Families.Put(tx, f)
		d := &controlplane.TaskDefinition{
			Account: scope.Account, Region: scope.Region, Family: family, Revision: f.LastRevision, Status: active,
			DefinitionJson: []byte(text), Demand: demand,
			Registered: timestamppb.New(call.Time), RegisteredBy: call.ARN,
		}
		controlplane.TaskDefinitions.Put(tx, d)
		controlplane.PutTags(tx, scope, d.ARN(), tags)
		out.TaskDefinition, out.Tags = shapeAs(d, def), tagList(tags)
		return nil
	}))
}

// describeTaskDefinition implements ecs:DescribeTaskDefinition.
func (s *Service) describeTaskDefinition(ctx context.Context, in *ecs.DescribeTaskDefinitionInput) (*ecs.DescribeTaskDefinitionOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	d, ok, err := taskDefinition(v, scope, aws.ToString(in.TaskDefinition))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, client("Unable to describe task definition.")
	}
	out := &ecs.DescribeTaskDefinitionOutput{TaskDefinition: taskDefinitionShape(d), Tags: []types.Tag{}}
	for _, field := range in.Include {
		if field == types.TaskDefinitionFieldTags {
			out.Tags = tagList(controlplane.TagsOf(v, scope, d.ARN()))
		}
	}
	return out, nil
}

// listTaskDefinitions implements ecs:ListTaskDefinitions: by family, then by revision. familyPrefix names a whole family.
func (s *Service) listTaskDefinitions(ctx context.Context, in *ecs.ListTaskDefinitionsInput) (*ecs.ListTaskDefinitionsOutput, error) {
	size, err := pageSize(in.MaxResults, 100, 100)
	if err != nil {
		return nil, err
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	prefix := scope.Key()
	if f := aws.ToString(in.FamilyPrefix); f != "" {
		prefix = scope.Key(f)
	}
	status := string(in.Status)
	if status == "" {
		status = active
	}
	wanted := func(d *controlplane.TaskDefinition) bool { return d.Status == status }
	scan := func(after state.Key) iter.Seq[*controlplane.TaskDefinition] {
		return filter(controlplane.TaskDefinitions.ScanFrom(v, prefix, after), wanted)
	}
	key := controlplane.TaskDefinitions.Key
	if in.Sort == types.SortOrderDesc {
		scan = func(after state.Key) iter.Seq[*controlplane.TaskDefinition] {
			return backwards(filter(controlplane.TaskDefinitions.Scan(v, prefix), wanted), after, key)
		}
	}
	page, next, err := api.Page(ctx, s.Pages, in, size, scan, key)
	if err != nil {
		return nil, err
	}
	return &ecs.ListTaskDefinitionsOutput{TaskDefinitionArns: arns(page), NextToken: next}, nil
}

// listTaskDefinitionFamilies implements ecs:ListTaskDefinitionFamilies. A family is ACTIVE when it has an ACTIVE revision.
func (s *Service) listTaskDefinitionFamilies(ctx context.Context, in *ecs.ListTaskDefinitionFamiliesInput) (*ecs.ListTaskDefinitionFamiliesOutput, error) {
	size, err := pageSize(in.MaxResults, 100, 100)
	if err != nil {
		return nil, err
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	wanted := func(f *controlplane.Family) bool {
		if !strings.HasPrefix(f.Name, aws.ToString(in.FamilyPrefix)) {
			return false
		}
		any, live := false, false
		for d := range controlplane.TaskDefinitions.Scan(v, scope.Key(f.Name)) {
			any = any || d.Status != deleting
			live = live || d.Status == active
		}
		switch in.Status {
		case types.TaskDefinitionFamilyStatusActive:
			return live
		case types.TaskDefinitionFamilyStatusInactive:
			return any && !live
		}
		return any
	}
	page, next, err := api.Page(ctx, s.Pages, in, size,
		func(after state.Key) iter.Seq[*controlplane.Family] {
			return filter(controlplane.Families.ScanFrom(v, scope.Key(), after), wanted)
		}, controlplane.Families.Key)
	if err != nil {
		return nil, err
	}
	out := &ecs.ListTaskDefinitionFamiliesOutput{Families: []string{}, NextToken: next}
	for _, f := range page {
		out.Families = append(out.Families, f.Name)
	}
	return out, nil
}

// deregisterTaskDefinition implements ecs:DeregisterTaskDefinition. What runs from it runs on.
func (s *Service) deregisterTaskDefinition(ctx context.Context, in *ecs.DeregisterTaskDefinitionInput) (*ecs.DeregisterTaskDefinitionOutput, error) {
	ref := aws.ToString(in.TaskDefinition)
	if !strings.Contains(ref[strings.LastIndexByte(ref, '/')+1:], ":") {
		return nil, client("Missing revision. Specify the revision number of the task definition to deregister.")
	}
	out := &ecs.DeregisterTaskDefinitionOutput{}
	return answer(out, s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		d, ok, err := taskDefinition(tx, scope, ref)
		if err != nil {
			return err
		}
		if !ok {
			return client("The specified task definition does not exist. Specify a valid account, family, revision and try again.")
		}
		if d.Status == active {
			d = proto.CloneOf(d)
			d.Status, d.Deregistered = inactive, timestamppb.New(api.CallFrom(ctx).Time)
			controlplane.TaskDefinitions.Put(tx, d)
		}
		out.TaskDefinition = taskDefinitionShape(d)
		return nil
	}))
}

// deleteTaskDefinitions implements ecs:DeleteTaskDefinitions. One that a task or a deployment still uses stays
// DELETE_IN_PROGRESS until the clean-up finds it unused.
func (s *Service) deleteTaskDefinitions(ctx context.Context, in *ecs.DeleteTaskDefinitionsInput) (*ecs.DeleteTaskDefinitionsOutput, error) {
	if len(in.TaskDefinitions) == 0 || len(in.TaskDefinitions) > 10 {
		return nil, invalid("Task definitions must have between 1 and 10 elements.")
	}
	out := &ecs.DeleteTaskDefinitionsOutput{}
	return answer(out, s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		out.TaskDefinitions, out.Failures = []types.TaskDefinition{}, []types.Failure{}
		for _, ref := range in.TaskDefinitions {
			d, ok, err := taskDefinition(tx, scope, ref)
			fail := func(reason string) {
				if !arn.Is(ref) {
					ref = scope.TaskDefinitionARN(ref)
				}
				out.Failures = append(out.Failures, types.Failure{Arn: aws.String(ref), Reason: aws.String(reason)})
			}
			switch {
			case err != nil:
				return err
			case !ok || !strings.Contains(ref[strings.LastIndexByte(ref, '/')+1:], ":"):
				fail("The specified task definition does not exist. Specify a valid account, family, revision and try again.")
				continue
			case d.Status == active:
				fail("The specified task definition is still in ACTIVE status. Please deregister the target and try again.")
				continue
			}
			if d.Status != deleting {
				d = proto.CloneOf(d)
				d.Status, d.DeleteRequested = deleting, timestamppb.New(api.CallFrom(ctx).Time)
				controlplane.TaskDefinitions.Put(tx, d)
			}
			out.TaskDefinitions = append(out.TaskDefinitions, *taskDefinitionShape(d))
		}
		return nil
	}))
}

const deleting = "DELETE_IN_PROGRESS"

func taskDefinitionShape(d *controlplane.TaskDefinition) *types.TaskDefinition {
	return shapeAs(d, d.Shape())
}

// shapeAs is taskDefinitionShape of a record whose own shape is at hand.
func shapeAs(d *controlplane.TaskDefinition, def types.TaskDefinition) *types.TaskDefinition {
	def.TaskDefinitionArn = aws.String(d.ARN())
	def.Family = aws.String(d.Family)
	def.Revision = int32(d.Revision)
	def.Status = types.TaskDefinitionStatus(d.Status)
	def.RegisteredAt = timeOf(d.Registered)
	def.RegisteredBy = aws.String(d.RegisteredBy)
	def.DeregisteredAt = timeOf(d.Deregistered)
	def.DeleteRequestedAt = timeOf(d.DeleteRequested)
	return &def
}
