package sts

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/seed-2f228079/neargate/api"
)

func TestGetCallerIdentity(t *testing.T) {
	who := api.Identity{Account: "111111111111", ARN: "arn:aws:iam::111111111111:root", UserID: "111111111111"}
	out, err := new(Service).getCallerIdentity(api.WithCall(t.Context(), &api.Call{Identity: who}), &sts.GetCallerIdentityInput{})
	if err != nil || *out.Account != who.Account || *out.Arn != who.ARN || *out.UserId != who.UserID {
		t.Errorf("got %+v, %v; want %+v", out, err, who)
	}
}
