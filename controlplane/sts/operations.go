// Package sts answers who a caller is. Roles and temporary credentials come with IAM; nothing is kept here.
package sts

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/seed-2f228079/neargate/api"
)

// Operations is the family's table.
func Operations() []api.Operation {
	return []api.Operation{
		api.Read(getCallerIdentity, api.Route("GET /caller-identity")),
	}
}

// getCallerIdentity implements sts:GetCallerIdentity.
func getCallerIdentity(ctx context.Context, _ *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	c := api.CallFrom(ctx)
	return &sts.GetCallerIdentityOutput{Account: &c.Account, Arn: &c.ARN, UserId: &c.UserID}, nil
}
