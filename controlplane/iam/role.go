package iam

import (
	"cmp"
	"context"
	"iter"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

func roleShape(e *Entity) types.Role {
	return types.Role{Arn: new(e.ARN()), CreateDate: new(e.Created.AsTime()), Path: &e.Path, RoleId: &e.Id, RoleName: &e.Name,
		AssumeRolePolicyDocument: new(urlEncode(e.Trust)), Description: optional(e.Description), MaxSessionDuration: &e.MaxSessionSeconds}
}

// setTrust checks a trust policy and takes it over. pinTrust follows in the transaction.
func (e *Entity) setTrust(document string) error {
	if _, err := policy.Parse(policy.Trust, document); err != nil {
		return malformed(err)
	}
	if policy.Size(document) > maxTrustSize {
		return exceeded("ACLSizePerRole", maxTrustSize)
	}
	e.Trust = document
	return nil
}

// pinTrust finds the users and roles that the trust policy names, which must exist, and keeps their ids.
func (e *Entity) pinTrust(r state.Reader) error {
	p, err := policy.Parse(policy.Trust, e.Trust)
	if err != nil {
		return malformed(err)
	}
	e.TrustIds = map[string]string{}
	for _, a := range p.Principals() {
		who, ok := byARN(r, a)
		if !ok {
			return malformed(&policy.Error{Message: `Invalid principal in policy: "AWS":"` + a + `"`})
		}
		e.TrustIds[a] = who.Id
	}
	return nil
}

// createRole implements iam:CreateRole.
func (s *Service) createRole(ctx context.Context, in *iam.CreateRoleInput) (*iam.CreateRoleOutput, error) {
	e := &Entity{Kind: string(role), Name: aws.ToString(in.RoleName), Description: aws.ToString(in.Description),
		MaxSessionSeconds: cmp.Or(aws.ToInt32(in.MaxSessionDuration), defaultSession)}
	if err := e.setTrust(aws.ToString(in.AssumeRolePolicyDocument)); err != nil {
		return nil, err
	}
	tags, err := s.create(ctx, e, in.Path, in.PermissionsBoundary, in.Tags)
	if err != nil {
		return nil, err
	}
	r := roleShape(e)
	r.PermissionsBoundary, r.Tags = e.boundaryShape(), tagList(tags)
	return &iam.CreateRoleOutput{Role: &r}, nil
}

// getRole implements iam:GetRole.
func (s *Service) getRole(ctx context.Context, in *iam.GetRoleInput) (*iam.GetRoleOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	e, err := entity(v, account, role, aws.ToString(in.RoleName))
	if err != nil {
		return nil, err
	}
	r := roleShape(e)
	r.PermissionsBoundary, r.Tags = e.boundaryShape(), tagList(controlplane.TagsOf(v, scopeOf(account), e.ARN()))
	return &iam.GetRoleOutput{Role: &r}, nil
}

// updateRole implements iam:UpdateRole.
func (s *Service) updateRole(ctx context.Context, in *iam.UpdateRoleInput) (*iam.UpdateRoleOutput, error) {
	return answer(&iam.UpdateRoleOutput{}, s.change(ctx, role, in.RoleName, func(_ *state.Tx, e *Entity) error {
		if in.Description != nil {
			e.Description = *in.Description
		}
		if in.MaxSessionDuration != nil {
			e.MaxSessionSeconds = *in.MaxSessionDuration
		}
		return nil
	}))
}

// updateRoleDescription implements iam:UpdateRoleDescription.
func (s *Service) updateRoleDescription(ctx context.Context, in *iam.UpdateRoleDescriptionInput) (*iam.UpdateRoleDescriptionOutput, error) {
	out := &iam.UpdateRoleDescriptionOutput{}
	return answer(out, s.change(ctx, role, in.RoleName, func(_ *state.Tx, e *Entity) error {
		e.Description = aws.ToString(in.Description)
		out.Role = new(roleShape(e))
		return nil
	}))
}

// updateAssumeRolePolicy implements iam:UpdateAssumeRolePolicy.
func (s *Service) updateAssumeRolePolicy(ctx context.Context, in *iam.UpdateAssumeRolePolicyInput) (*iam.UpdateAssumeRolePolicyOutput, error) {
	return answer(&iam.UpdateAssumeRolePolicyOutput{}, s.change(ctx, role, in.RoleName, func(tx *state.Tx, e *Entity) error {
		if err := e.setTrust(aws.ToString(in.PolicyDocument)); err != nil {
			return err
		}
		return e.pinTrust(tx)
	}))
}

// deleteRole implements iam:DeleteRole. Sessions of the role end with it.
func (s *Service) deleteRole(ctx context.Context, in *iam.DeleteRoleInput) (*iam.DeleteRoleOutput, error) {
	return answer(&iam.DeleteRoleOutput{}, s.remove(ctx, role, in.RoleName, func(tx *state.Tx, e *Entity) error {
		for range ProfilesByRole.Scan(tx, state.K(e.Account, e.Id)) {
			return conflict("remove roles from instance profile")
		}
		return nil
	}))
}

// listRoles implements iam:ListRoles.
func (s *Service) listRoles(ctx context.Context, in *iam.ListRolesInput) (*iam.ListRolesOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	roles, marker, more, err := page(ctx, s, in, in.MaxItems, func(after state.Key) iter.Seq[*Entity] {
		return listed(v, account, role, in.PathPrefix, after)
	}, Entities.Key)
	if err != nil {
		return nil, err
	}
	return &iam.ListRolesOutput{Roles: list(roles, roleShape), Marker: marker, IsTruncated: more}, nil
}
