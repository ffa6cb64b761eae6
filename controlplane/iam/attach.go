package iam

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// policyARN checks that text has the form of a managed policy's ARN.
func policyARN(text *string) error {
	a, err := arn.Parse(aws.ToString(text))
	if err != nil || a.Partition != "aws" || a.Service != "iam" || a.Region != "" || a.Type() != "policy" || a.Rest() == "" {
		return validation("ARN %s is not valid.", aws.ToString(text))
	}
	return nil
}

// attachable finds a managed policy that the account may use: one of its own or one of AWS's.
func attachable(r state.Reader, account, text string) bool {
	if _, ok := awsManaged[text]; ok {
		return true
	}
	p, ok := managed(r, text)
	return ok && p.Account == account
}

func (s *Service) attach(ctx context.Context, k kind, name, policy *string) error {
	if err := policyARN(policy); err != nil {
		return err
	}
	return s.change(ctx, k, name, func(tx *state.Tx, e *Entity) error {
		switch {
		case !attachable(tx, e.Account, *policy):
			return notAttachable(*policy)
		case slices.Contains(e.Attached, *policy):
			return nil
		case len(e.Attached) >= maxAttached:
			return exceeded("PoliciesPer"+titles[k], maxAttached)
		}
		e.Attached = append(e.Attached, *policy)
		return nil
	})
}

func (s *Service) detach(ctx context.Context, k kind, name, policy *string) error {
	if err := policyARN(policy); err != nil {
		return err
	}
	return s.change(ctx, k, name, func(_ *state.Tx, e *Entity) error {
		if !slices.Contains(e.Attached, *policy) {
			return noSuchPolicy(*policy)
		}
		e.Attached = slices.DeleteFunc(e.Attached, func(a string) bool { return a == *policy })
		return nil
	})
}

func (s *Service) attached(ctx context.Context, k kind, name, path *string, in any, most *int32) (out []types.AttachedPolicy, marker *string, more bool, err error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, nil, false, err
	}
	e, err := entity(v, account, k, aws.ToString(name))
	if err != nil {
		return nil, nil, false, err
	}
	var arns []string
	for _, a := range slices.Sorted(slices.Values(e.Attached)) {
		if strings.HasPrefix(pathInARN(a), aws.ToString(path)) {
			arns = append(arns, a)
		}
	}
	arns, marker, more, err = page(ctx, s, in, most, sorted(arns), self)
	return list(arns, attachedShape), marker, more, err
}

func attachedShape(a string) types.AttachedPolicy {
	return types.AttachedPolicy{PolicyArn: &a, PolicyName: new(nameInARN(a))}
}

func nameInARN(a string) string { return a[strings.LastIndexByte(a, '/')+1:] }

// pathInARN is "/team/" of "arn:aws:iam::000000000000:policy/team/name".
func pathInARN(a string) string {
	return a[strings.IndexByte(a, '/') : strings.LastIndexByte(a, '/')+1]
}

// bound sets the permissions boundary: a managed policy; nil leaves it as it is.
func (e *Entity) bound(r state.Reader, policy *string) error {
	if policy == nil {
		return nil
	}
	if err := policyARN(policy); err != nil {
		return err
	}
	if !attachable(r, e.Account, *policy) {
		return noSuchPolicy(*policy)
	}
	e.Boundary = *policy
	return nil
}

func (s *Service) putBoundary(ctx context.Context, k kind, name, policy *string) error {
	return s.change(ctx, k, name, func(tx *state.Tx, e *Entity) error { return e.bound(tx, policy) })
}

func (s *Service) deleteBoundary(ctx context.Context, k kind, name *string) error {
	return s.change(ctx, k, name, func(_ *state.Tx, e *Entity) error {
		e.Boundary = ""
		return nil
	})
}

// attachUserPolicy implements iam:AttachUserPolicy.
func (s *Service) attachUserPolicy(ctx context.Context, in *iam.AttachUserPolicyInput) (*iam.AttachUserPolicyOutput, error) {
	return answer(&iam.AttachUserPolicyOutput{}, s.attach(ctx, user, in.UserName, in.PolicyArn))
}

// attachGroupPolicy implements iam:AttachGroupPolicy.
func (s *Service) attachGroupPolicy(ctx context.Context, in *iam.AttachGroupPolicyInput) (*iam.AttachGroupPolicyOutput, error) {
	return answer(&iam.AttachGroupPolicyOutput{}, s.attach(ctx, group, in.GroupName, in.PolicyArn))
}

// attachRolePolicy implements iam:AttachRolePolicy.
func (s *Service) attachRolePolicy(ctx context.Context, in *iam.AttachRolePolicyInput) (*iam.AttachRolePolicyOutput, error) {
	return answer(&iam.AttachRolePolicyOutput{}, s.attach(ctx, role, in.RoleName, in.PolicyArn))
}

// detachUserPolicy implements iam:DetachUserPolicy.
func (s *Service) detachUserPolicy(ctx context.Context, in *iam.DetachUserPolicyInput) (*iam.DetachUserPolicyOutput, error) {
	return answer(&iam.DetachUserPolicyOutput{}, s.detach(ctx, user, in.UserName, in.PolicyArn))
}

// detachGroupPolicy implements iam:DetachGroupPolicy.
func (s *Service) detachGroupPolicy(ctx context.Context, in *iam.DetachGroupPolicyInput) (*iam.DetachGroupPolicyOutput, error) {
	return answer(&iam.DetachGroupPolicyOutput{}, s.detach(ctx, group, in.GroupName, in.PolicyArn))
}

// detachRolePolicy implements iam:DetachRolePolicy.
func (s *Service) detachRolePolicy(ctx context.Context, in *iam.DetachRolePolicyInput) (*iam.DetachRolePolicyOutput, error) {
	return answer(&iam.DetachRolePolicyOutput{}, s.detach(ctx, role, in.RoleName, in.PolicyArn))
}

// listAttachedUserPolicies implements iam:ListAttachedUserPolicies.
func (s *Service) listAttachedUserPolicies(ctx context.Context, in *iam.ListAttachedUserPoliciesInput) (*iam.ListAttachedUserPoliciesOutput, error) {
	p, marker, more, err := s.attached(ctx, user, in.UserName, in.PathPrefix, in, in.MaxItems)
	return answer(&iam.ListAttachedUserPoliciesOutput{AttachedPolicies: p, Marker: marker, IsTruncated: more}, err)
}

// listAttachedGroupPolicies implements iam:ListAttachedGroupPolicies.
func (s *Service) listAttachedGroupPolicies(ctx context.Context, in *iam.ListAttachedGroupPoliciesInput) (*iam.ListAttachedGroupPoliciesOutput, error) {
	p, marker, more, err := s.attached(ctx, group, in.GroupName, in.PathPrefix, in, in.MaxItems)
	return answer(&iam.ListAttachedGroupPoliciesOutput{AttachedPolicies: p, Marker: marker, IsTruncated: more}, err)
}

// listAttachedRolePolicies implements iam:ListAttachedRolePolicies.
func (s *Service) listAttachedRolePolicies(ctx context.Context, in *iam.ListAttachedRolePoliciesInput) (*iam.ListAttachedRolePoliciesOutput, error) {
	p, marker, more, err := s.attached(ctx, role, in.RoleName, in.PathPrefix, in, in.MaxItems)
	return answer(&iam.ListAttachedRolePoliciesOutput{AttachedPolicies: p, Marker: marker, IsTruncated: more}, err)
}

// putUserPermissionsBoundary implements iam:PutUserPermissionsBoundary.
func (s *Service) putUserPermissionsBoundary(ctx context.Context, in *iam.PutUserPermissionsBoundaryInput) (*iam.PutUserPermissionsBoundaryOutput, error) {
	return answer(&iam.PutUserPermissionsBoundaryOutput{}, s.putBoundary(ctx, user, in.UserName, in.PermissionsBoundary))
}

// putRolePermissionsBoundary implements iam:PutRolePermissionsBoundary.
func (s *Service) putRolePermissionsBoundary(ctx context.Context, in *iam.PutRolePermissionsBoundaryInput) (*iam.PutRolePermissionsBoundaryOutput, error) {
	return answer(&iam.PutRolePermissionsBoundaryOutput{}, s.putBoundary(ctx, role, in.RoleName, in.PermissionsBoundary))
}

// deleteUserPermissionsBoundary implements iam:DeleteUserPermissionsBoundary.
func (s *Service) deleteUserPermissionsBoundary(ctx context.Context, in *iam.DeleteUserPermissionsBoundaryInput) (*iam.DeleteUserPermissionsBoundaryOutput, error) {
	return answer(&iam.DeleteUserPermissionsBoundaryOutput{}, s.deleteBoundary(ctx, user, in.UserName))
}

// deleteRolePermissionsBoundary implements iam:DeleteRolePermissionsBoundary.
func (s *Service) deleteRolePermissionsBoundary(ctx context.Context, in *iam.DeleteRolePermissionsBoundaryInput) (*iam.DeleteRolePermissionsBoundaryOutput, error) {
	return answer(&iam.DeleteRolePermissionsBoundaryOutput{}, s.deleteBoundary(ctx, role, in.RoleName))
}
