package iam

import (
	"context"
	"iter"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// userShape is a user as lists show it; its own operations add boundary and tags.
func userShape(e *Entity) types.User {
	return types.User{Arn: new(e.ARN()), CreateDate: new(e.Created.AsTime()), Path: &e.Path, UserId: &e.Id, UserName: &e.Name}
}

func (e *Entity) boundaryShape() *types.AttachedPermissionsBoundary {
	if e.Boundary == "" {
		return nil
	}
	return &types.AttachedPermissionsBoundary{PermissionsBoundaryArn: &e.Boundary, PermissionsBoundaryType: types.PermissionsBoundaryAttachmentTypePolicy}
}

// createUser implements iam:CreateUser.
func (s *Service) createUser(ctx context.Context, in *iam.CreateUserInput) (*iam.CreateUserOutput, error) {
	e := &Entity{Kind: string(user), Name: aws.ToString(in.UserName)}
	tags, err := s.create(ctx, e, in.Path, in.PermissionsBoundary, in.Tags)
	if err != nil {
		return nil, err
	}
	u := userShape(e)
	u.PermissionsBoundary, u.Tags = e.boundaryShape(), tagList(tags)
	return &iam.CreateUserOutput{User: &u}, nil
}

// getUser implements iam:GetUser; without a name, of the caller.
func (s *Service) getUser(ctx context.Context, in *iam.GetUserInput) (*iam.GetUserOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	c := api.CallFrom(ctx)
	if in.UserName == nil && c.Root {
		return &iam.GetUserOutput{User: &types.User{Arn: &c.ARN, UserId: &c.UserID, Path: new("/")}}, nil
	}
	e, err := callersUser(ctx, v, account, in.UserName)
	if err != nil {
		return nil, err
	}
	u := userShape(e)
	u.PermissionsBoundary, u.Tags = e.boundaryShape(), tagList(controlplane.TagsOf(v, scopeOf(account), e.ARN()))
	return &iam.GetUserOutput{User: &u}, nil
}

// callersUser is the named user, or the one who calls.
func callersUser(ctx context.Context, r state.Reader, account string, name *string) (*Entity, error) {
	if name != nil {
		return entity(r, account, user, *name)
	}
	c := api.CallFrom(ctx)
	if e, ok := byID(r, account, c.UserID); ok && e.Kind == string(user) {
		return e, nil
	}
	return nil, validation("Must specify userName when calling with non-User credentials")
}

// updateUser implements iam:UpdateUser.
func (s *Service) updateUser(ctx context.Context, in *iam.UpdateUserInput) (*iam.UpdateUserOutput, error) {
	return answer(&iam.UpdateUserOutput{}, s.rename(ctx, user, in.UserName, in.NewUserName, in.NewPath))
}

// deleteUser implements iam:DeleteUser.
func (s *Service) deleteUser(ctx context.Context, in *iam.DeleteUserInput) (*iam.DeleteUserOutput, error) {
	return answer(&iam.DeleteUserOutput{}, s.remove(ctx, user, in.UserName, func(tx *state.Tx, e *Entity) error {
		if len(e.Groups) > 0 {
			return conflict("remove users from group")
		}
		for range AccessKeysByUser.Scan(tx, state.K(e.Account, e.Id)) {
			return conflict("delete access keys")
		}
		return nil
	}))
}

// listUsers implements iam:ListUsers.
func (s *Service) listUsers(ctx context.Context, in *iam.ListUsersInput) (*iam.ListUsersOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	users, marker, more, err := page(ctx, s, in, in.MaxItems, func(after state.Key) iter.Seq[*Entity] {
		return listed(v, account, user, in.PathPrefix, after)
	}, Entities.Key)
	if err != nil {
		return nil, err
	}
	return &iam.ListUsersOutput{Users: list(users, userShape), Marker: marker, IsTruncated: more}, nil
}

// listGroupsForUser implements iam:ListGroupsForUser.
func (s *Service) listGroupsForUser(ctx context.Context, in *iam.ListGroupsForUserInput) (*iam.ListGroupsForUserOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	e, err := entity(v, account, user, aws.ToString(in.UserName))
	if err != nil {
		return nil, err
	}
	ids, marker, more, err := page(ctx, s, in, in.MaxItems, sorted(slices.Sorted(slices.Values(e.Groups))), self)
	if err != nil {
		return nil, err
	}
	groups := []types.Group{}
	for _, id := range ids {
		if g, ok := byID(v, account, id); ok {
			groups = append(groups, groupShape(g))
		}
	}
	return &iam.ListGroupsForUserOutput{Groups: groups, Marker: marker, IsTruncated: more}, nil
}
