package iam

import (
	"context"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Inline policies stand in the record of whom they belong to.

func (s *Service) putInline(ctx context.Context, k kind, of, name, document *string) error {
	if _, err := policy.Parse(policy.Identity, aws.ToString(document)); err != nil {
		return malformed(err)
	}
	return s.change(ctx, k, of, func(_ *state.Tx, e *Entity) error {
		if e.Policies == nil {
			e.Policies = map[string]string{}
		}
		e.Policies[aws.ToString(name)] = aws.ToString(document)
		size := 0
		for _, d := range e.Policies {
			size += policy.Size(d)
		}
		if most := maxInlineSize[k]; size > most {
			return awserr.New("LimitExceeded", "Maximum policy size of %d bytes exceeded for %s %s", most, k, e.Name)
		}
		return nil
	})
}

func noSuchInline(k kind, name *string) error {
	return awserr.New("NoSuchEntity", "The %s policy with name %s cannot be found.", k, aws.ToString(name))
}

func (s *Service) deleteInline(ctx context.Context, k kind, of, name *string) error {
	return s.change(ctx, k, of, func(_ *state.Tx, e *Entity) error {
		if _, ok := e.Policies[aws.ToString(name)]; !ok {
			return noSuchInline(k, name)
		}
		delete(e.Policies, *name)
		return nil
	})
}

// inline is the document as it is answered, and the name of whom it belongs to.
func (s *Service) inline(ctx context.Context, k kind, of, name *string) (document, owner *string, err error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, nil, err
	}
	e, err := entity(v, account, k, aws.ToString(of))
	if err != nil {
		return nil, nil, err
	}
	d, ok := e.Policies[aws.ToString(name)]
	if !ok {
		return nil, nil, noSuchInline(k, name)
	}
	return new(urlEncode(d)), &e.Name, nil
}

func (s *Service) inlineNames(ctx context.Context, k kind, of *string, in any, most *int32) (names []string, marker *string, more bool, err error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, nil, false, err
	}
	e, err := entity(v, account, k, aws.ToString(of))
	if err != nil {
		return nil, nil, false, err
	}
	names, marker, more, err = page(ctx, s, in, most, sorted(slices.Sorted(maps.Keys(e.Policies))), self)
	return slices.Concat([]string{}, names), marker, more, err
}

// putUserPolicy implements iam:PutUserPolicy.
func (s *Service) putUserPolicy(ctx context.Context, in *iam.PutUserPolicyInput) (*iam.PutUserPolicyOutput, error) {
	return answer(&iam.PutUserPolicyOutput{}, s.putInline(ctx, user, in.UserName, in.PolicyName, in.PolicyDocument))
}

// putGroupPolicy implements iam:PutGroupPolicy.
func (s *Service) putGroupPolicy(ctx context.Context, in *iam.PutGroupPolicyInput) (*iam.PutGroupPolicyOutput, error) {
	return answer(&iam.PutGroupPolicyOutput{}, s.putInline(ctx, group, in.GroupName, in.PolicyName, in.PolicyDocument))
}

// putRolePolicy implements iam:PutRolePolicy.
func (s *Service) putRolePolicy(ctx context.Context, in *iam.PutRolePolicyInput) (*iam.PutRolePolicyOutput, error) {
	return answer(&iam.PutRolePolicyOutput{}, s.putInline(ctx, role, in.RoleName, in.PolicyName, in.PolicyDocument))
}

// deleteUserPolicy implements iam:DeleteUserPolicy.
func (s *Service) deleteUserPolicy(ctx context.Context, in *iam.DeleteUserPolicyInput) (*iam.DeleteUserPolicyOutput, error) {
	return answer(&iam.DeleteUserPolicyOutput{}, s.deleteInline(ctx, user, in.UserName, in.PolicyName))
}

// deleteGroupPolicy implements iam:DeleteGroupPolicy.
func (s *Service) deleteGroupPolicy(ctx context.Context, in *iam.DeleteGroupPolicyInput) (*iam.DeleteGroupPolicyOutput, error) {
	return answer(&iam.DeleteGroupPolicyOutput{}, s.deleteInline(ctx, group, in.GroupName, in.PolicyName))
}

// deleteRolePolicy implements iam:DeleteRolePolicy.
func (s *Service) deleteRolePolicy(ctx context.Context, in *iam.DeleteRolePolicyInput) (*iam.DeleteRolePolicyOutput, error) {
	return answer(&iam.DeleteRolePolicyOutput{}, s.deleteInline(ctx, role, in.RoleName, in.PolicyName))
}

// getUserPolicy implements iam:GetUserPolicy.
func (s *Service) getUserPolicy(ctx context.Context, in *iam.GetUserPolicyInput) (*iam.GetUserPolicyOutput, error) {
	d, of, err := s.inline(ctx, user, in.UserName, in.PolicyName)
	return answer(&iam.GetUserPolicyOutput{PolicyDocument: d, PolicyName: in.PolicyName, UserName: of}, err)
}

// getGroupPolicy implements iam:GetGroupPolicy.
func (s *Service) getGroupPolicy(ctx context.Context, in *iam.GetGroupPolicyInput) (*iam.GetGroupPolicyOutput, error) {
	d, of, err := s.inline(ctx, group, in.GroupName, in.PolicyName)
	return answer(&iam.GetGroupPolicyOutput{PolicyDocument: d, PolicyName: in.PolicyName, GroupName: of}, err)
}

// getRolePolicy implements iam:GetRolePolicy.
func (s *Service) getRolePolicy(ctx context.Context, in *iam.GetRolePolicyInput) (*iam.GetRolePolicyOutput, error) {
	d, of, err := s.inline(ctx, role, in.RoleName, in.PolicyName)
	return answer(&iam.GetRolePolicyOutput{PolicyDocument: d, PolicyName: in.PolicyName, RoleName: of}, err)
}

// listUserPolicies implements iam:ListUserPolicies.
func (s *Service) listUserPolicies(ctx context.Context, in *iam.ListUserPoliciesInput) (*iam.ListUserPoliciesOutput, error) {
	names, marker, more, err := s.inlineNames(ctx, user, in.UserName, in, in.MaxItems)
	return answer(&iam.ListUserPoliciesOutput{PolicyNames: names, Marker: marker, IsTruncated: more}, err)
}

// listGroupPolicies implements iam:ListGroupPolicies.
func (s *Service) listGroupPolicies(ctx context.Context, in *iam.ListGroupPoliciesInput) (*iam.ListGroupPoliciesOutput, error) {
	names, marker, more, err := s.inlineNames(ctx, group, in.GroupName, in, in.MaxItems)
	return answer(&iam.ListGroupPoliciesOutput{PolicyNames: names, Marker: marker, IsTruncated: more}, err)
}

// listRolePolicies implements iam:ListRolePolicies.
func (s *Service) listRolePolicies(ctx context.Context, in *iam.ListRolePoliciesInput) (*iam.ListRolePoliciesOutput, error) {
	names, marker, more, err := s.inlineNames(ctx, role, in.RoleName, in, in.MaxItems)
	return answer(&iam.ListRolePoliciesOutput{PolicyNames: names, Marker: marker, IsTruncated: more}, err)
}
