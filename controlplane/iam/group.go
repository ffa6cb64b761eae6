package iam

import (
	"context"
	"iter"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

func groupShape(e *Entity) types.Group {
	return types.Group{Arn: new(e.ARN()), CreateDate: new(e.Created.AsTime()), Path: &e.Path, GroupId: &e.Id, GroupName: &e.Name}
}

// createGroup implements iam:CreateGroup.
func (s *Service) createGroup(ctx context.Context, in *iam.CreateGroupInput) (*iam.CreateGroupOutput, error) {
	e := &Entity{Kind: string(group), Name: aws.ToString(in.GroupName)}
	if _, err := s.create(ctx, e, in.Path, nil, nil); err != nil {
		return nil, err
	}
	return &iam.CreateGroupOutput{Group: new(groupShape(e))}, nil
}

// getGroup implements iam:GetGroup: the group and, in pages, its users.
func (s *Service) getGroup(ctx context.Context, in *iam.GetGroupInput) (*iam.GetGroupOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	e, err := entity(v, account, group, aws.ToString(in.GroupName))
	if err != nil {
		return nil, err
	}
	users, marker, more, err := page(ctx, s, in, in.MaxItems, func(after state.Key) iter.Seq[*Entity] {
		return UsersByGroup.ScanFrom(v, state.K(account, e.Id), state.K(account, e.Id), after)
	}, Entities.Key)
	if err != nil {
		return nil, err
	}
	return &iam.GetGroupOutput{Group: new(groupShape(e)), Users: list(users, userShape), Marker: marker, IsTruncated: more}, nil
}

// updateGroup implements iam:UpdateGroup.
func (s *Service) updateGroup(ctx context.Context, in *iam.UpdateGroupInput) (*iam.UpdateGroupOutput, error) {
	return answer(&iam.UpdateGroupOutput{}, s.rename(ctx, group, in.GroupName, in.NewGroupName, in.NewPath))
}

// deleteGroup implements iam:DeleteGroup.
func (s *Service) deleteGroup(ctx context.Context, in *iam.DeleteGroupInput) (*iam.DeleteGroupOutput, error) {
	return answer(&iam.DeleteGroupOutput{}, s.remove(ctx, group, in.GroupName, func(tx *state.Tx, e *Entity) error {
		for range UsersByGroup.Scan(tx, state.K(e.Account, e.Id)) {
			return conflict("remove users from group")
		}
		return nil
	}))
}

// listGroups implements iam:ListGroups.
func (s *Service) listGroups(ctx context.Context, in *iam.ListGroupsInput) (*iam.ListGroupsOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	groups, marker, more, err := page(ctx, s, in, in.MaxItems, func(after state.Key) iter.Seq[*Entity] {
		return listed(v, account, group, in.PathPrefix, after)
	}, Entities.Key)
	if err != nil {
		return nil, err
	}
	return &iam.ListGroupsOutput{Groups: list(groups, groupShape), Marker: marker, IsTruncated: more}, nil
}

// addUserToGroup implements iam:AddUserToGroup.
func (s *Service) addUserToGroup(ctx context.Context, in *iam.AddUserToGroupInput) (*iam.AddUserToGroupOutput, error) {
	return answer(&iam.AddUserToGroupOutput{}, s.change(ctx, user, in.UserName, func(tx *state.Tx, e *Entity) error {
		g, err := entity(tx, e.Account, group, aws.ToString(in.GroupName))
		switch {
		case err != nil:
			return err
		case slices.Contains(e.Groups, g.Id):
			return nil
		case len(e.Groups) >= maxGroupsOfUser:
			return exceeded("GroupsPerUser", maxGroupsOfUser)
		}
		e.Groups = append(e.Groups, g.Id)
		return nil
	}))
}

// removeUserFromGroup implements iam:RemoveUserFromGroup.
func (s *Service) removeUserFromGroup(ctx context.Context, in *iam.RemoveUserFromGroupInput) (*iam.RemoveUserFromGroupOutput, error) {
	return answer(&iam.RemoveUserFromGroupOutput{}, s.change(ctx, user, in.UserName, func(tx *state.Tx, e *Entity) error {
		g, err := entity(tx, e.Account, group, aws.ToString(in.GroupName))
		if err != nil {
			return err
		}
		e.Groups = slices.DeleteFunc(e.Groups, func(id string) bool { return id == g.Id })
		return nil
	}))
}
