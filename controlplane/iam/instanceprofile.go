package iam

import (
	"context"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// An instance profile holds at most one role. Nothing here gives its credentials to a host; the records are what scripts expect.

func profile(r state.Reader, account string, name *string) (*InstanceProfile, error) {
	if p, ok := Profiles.Get(r, state.K(account, strings.ToLower(aws.ToString(name)))); ok {
		return p, nil
	}
	return nil, awserr.New("NoSuchEntity", "Instance Profile %s cannot be found.", aws.ToString(name))
}

func profileShape(r state.Reader) func(*InstanceProfile) types.InstanceProfile {
	return func(p *InstanceProfile) types.InstanceProfile {
		out := types.InstanceProfile{Arn: new(p.ARN()), CreateDate: new(p.Created.AsTime()), InstanceProfileId: &p.Id, InstanceProfileName: &p.Name,
			Path: &p.Path, Roles: []types.Role{}}
		if e, ok := byID(r, p.Account, p.RoleId); ok && p.RoleId != "" {
			out.Roles = append(out.Roles, roleShape(e))
		}
		return out
	}
}

// createInstanceProfile implements iam:CreateInstanceProfile.
func (s *Service) createInstanceProfile(ctx context.Context, in *iam.CreateInstanceProfileInput) (*iam.CreateInstanceProfileOutput, error) {
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	c := api.CallFrom(ctx)
	p := &InstanceProfile{Account: c.Account, Name: aws.ToString(in.InstanceProfileName), Path: pathOf(in.Path), Id: uniqueID(s.Rand, prefixProfile), Created: timestamppb.New(c.Time)}
	out := &iam.CreateInstanceProfileOutput{}
	return answer(out, s.update(ctx, func(tx *state.Tx, account string) error {
		if _, ok := Profiles.Get(tx, Profiles.Key(p)); ok {
			return awserr.New("EntityAlreadyExists", "Instance Profile %s already exists.", p.Name)
		}
		if count(Profiles.Scan(tx, state.K(account))) >= maxProfiles {
			return exceeded("InstanceProfilesPerAccount", maxProfiles)
		}
		Profiles.Put(tx, p)
		controlplane.PutTags(tx, scopeOf(account), p.ARN(), tags)
		shape := profileShape(tx)(p)
		shape.Tags = tagList(tags)
		out.InstanceProfile = &shape
		return nil
	}))
}

// getInstanceProfile implements iam:GetInstanceProfile.
func (s *Service) getInstanceProfile(ctx context.Context, in *iam.GetInstanceProfileInput) (*iam.GetInstanceProfileOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	p, err := profile(v, account, in.InstanceProfileName)
	if err != nil {
		return nil, err
	}
	shape := profileShape(v)(p)
	shape.Tags = tagList(controlplane.TagsOf(v, scopeOf(account), p.ARN()))
	return &iam.GetInstanceProfileOutput{InstanceProfile: &shape}, nil
}

// deleteInstanceProfile implements iam:DeleteInstanceProfile.
func (s *Service) deleteInstanceProfile(ctx context.Context, in *iam.DeleteInstanceProfileInput) (*iam.DeleteInstanceProfileOutput, error) {
	return answer(&iam.DeleteInstanceProfileOutput{}, s.update(ctx, func(tx *state.Tx, account string) error {
		p, err := profile(tx, account, in.InstanceProfileName)
		if err != nil {
			return err
		}
		if p.RoleId != "" {
			return conflict("remove roles from instance profile")
		}
		Profiles.Delete(tx, Profiles.Key(p))
		controlplane.PutTags(tx, scopeOf(account), p.ARN(), nil)
		return nil
	}))
}

// addRoleToInstanceProfile implements iam:AddRoleToInstanceProfile.
func (s *Service) addRoleToInstanceProfile(ctx context.Context, in *iam.AddRoleToInstanceProfileInput) (*iam.AddRoleToInstanceProfileOutput, error) {
	return answer(&iam.AddRoleToInstanceProfileOutput{}, s.changeProfile(ctx, in.InstanceProfileName, in.RoleName, func(p *InstanceProfile, e *Entity) error {
		if p.RoleId != "" {
			return exceeded("InstanceSessionsPerInstanceProfile", 1)
		}
		p.RoleId = e.Id
		return nil
	}))
}

// removeRoleFromInstanceProfile implements iam:RemoveRoleFromInstanceProfile.
func (s *Service) removeRoleFromInstanceProfile(ctx context.Context, in *iam.RemoveRoleFromInstanceProfileInput) (*iam.RemoveRoleFromInstanceProfileOutput, error) {
	return answer(&iam.RemoveRoleFromInstanceProfileOutput{}, s.changeProfile(ctx, in.InstanceProfileName, in.RoleName, func(p *InstanceProfile, e *Entity) error {
		if p.RoleId != e.Id {
			return noSuch(role, e.Name)
		}
		p.RoleId = ""
		return nil
	}))
}

func (s *Service) changeProfile(ctx context.Context, name, roleName *string, fn func(*InstanceProfile, *Entity) error) error {
	return s.update(ctx, func(tx *state.Tx, account string) error {
		old, err := profile(tx, account, name)
		if err != nil {
			return err
		}
		e, err := entity(tx, account, role, aws.ToString(roleName))
		if err != nil {
			return err
		}
		p := proto.CloneOf(old)
		if err := fn(p, e); err != nil {
			return err
		}
		Profiles.Put(tx, p)
		return nil
	})
}

// listInstanceProfiles implements iam:ListInstanceProfiles.
func (s *Service) listInstanceProfiles(ctx context.Context, in *iam.ListInstanceProfilesInput) (*iam.ListInstanceProfilesOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	profiles, marker, more, err := page(ctx, s, in, in.MaxItems, func(after state.Key) iter.Seq[*InstanceProfile] {
		return filter(Profiles.ScanFrom(v, state.K(account), after), func(p *InstanceProfile) bool { return strings.HasPrefix(p.Path, aws.ToString(in.PathPrefix)) })
	}, Profiles.Key)
	if err != nil {
		return nil, err
	}
	return &iam.ListInstanceProfilesOutput{InstanceProfiles: list(profiles, profileShape(v)), Marker: marker, IsTruncated: more}, nil
}

// listInstanceProfilesForRole implements iam:ListInstanceProfilesForRole.
func (s *Service) listInstanceProfilesForRole(ctx context.Context, in *iam.ListInstanceProfilesForRoleInput) (*iam.ListInstanceProfilesForRoleOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	e, err := entity(v, account, role, aws.ToString(in.RoleName))
	if err != nil {
		return nil, err
	}
	of := state.K(account, e.Id)
	profiles, marker, more, err := page(ctx, s, in, in.MaxItems, func(after state.Key) iter.Seq[*InstanceProfile] {
		return ProfilesByRole.ScanFrom(v, of, of, after)
	}, Profiles.Key)
	if err != nil {
		return nil, err
	}
	return &iam.ListInstanceProfilesForRoleOutput{InstanceProfiles: list(profiles, profileShape(v)), Marker: marker, IsTruncated: more}, nil
}
