package sts

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Operations is the family's table. Two need no permission, as on AWS: every caller may ask who it is, and every user for a session
// of its own.
func (s *Service) Operations() []api.Operation {
	return []api.Operation{
		api.Read(s.assumeRole,
			api.Resource(func(_ *api.Call, in *sts.AssumeRoleInput) string { return aws.ToString(in.RoleArn) }),
			api.Key("sts:ExternalId", func(_ *api.Call, in *sts.AssumeRoleInput) []string { return given(in.ExternalId) }),
			api.Key("sts:RoleSessionName", func(_ *api.Call, in *sts.AssumeRoleInput) []string { return given(in.RoleSessionName) }),
			api.Key("sts:SourceIdentity", func(_ *api.Call, in *sts.AssumeRoleInput) []string { return given(in.SourceIdentity) }),
			api.Key("sts:TransitiveTagKeys", func(_ *api.Call, in *sts.AssumeRoleInput) []string { return in.TransitiveTagKeys })),
		api.Read(s.getAccessKeyInfo),
		api.Read(s.getCallerIdentity, api.Route("GET /caller-identity"), api.Open()),
		api.Read(s.getSessionToken, api.Open()),
	}
}

// given is a condition key's value, if there is one.
func given(v *string) []string {
	if v == nil {
		return nil
	}
	return []string{*v}
}

// getCallerIdentity implements sts:GetCallerIdentity.
func (s *Service) getCallerIdentity(ctx context.Context, _ *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	c := api.CallFrom(ctx)
	return &sts.GetCallerIdentityOutput{Account: &c.Account, Arn: &c.ARN, UserId: &c.UserID}, nil
}

// getAccessKeyInfo implements sts:GetAccessKeyInfo: the account stands in the id, so it is read for keys that exist no more as well.
func (s *Service) getAccessKeyInfo(_ context.Context, in *sts.GetAccessKeyInfoInput) (*sts.GetAccessKeyInfoOutput, error) {
	account, ok := s.AccountOfKey(aws.ToString(in.AccessKeyId))
	if !ok {
		return nil, awserr.WithStatus(400, "ValidationError", "The access key id %s is not one of IAM's.", aws.ToString(in.AccessKeyId))
	}
	return &sts.GetAccessKeyInfoOutput{Account: &account}, nil
}
