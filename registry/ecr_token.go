package registry

import (
	"context"
	"encoding/base64"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api"
)

// getAuthorizationToken makes what `docker login --username AWS` takes as its password. Like ECR's it is valid for 12 hours
// and for everything its caller may do; unlike ECR's it also says the region, for hosts that do not.
func (r *Registry) getAuthorizationToken(ctx context.Context, in *ecr.GetAuthorizationTokenInput) (*ecr.GetAuthorizationTokenOutput, error) {
	c := api.CallFrom(ctx)
	out := &ecr.GetAuthorizationTokenOutput{}
	ids := in.RegistryIds // deprecated: a token is good for every registry its caller may use, so it is the same for each
	if len(ids) == 0 {
		ids = []string{c.Account}
	}
	expires := r.Clock.Now().Add(tokenLifetime)
	password := r.sealToken(token{Who: c.Identity, Region: c.Region, Expires: expires})
	for _, id := range ids {
		out.AuthorizationData = append(out.AuthorizationData, types.AuthorizationData{
			AuthorizationToken: new(base64.StdEncoding.EncodeToString([]byte(tokenUser + ":" + password))),
			ExpiresAt:          new(expires),
			ProxyEndpoint:      new(r.url(c.Account, id, c.Region)),
		})
	}
	return out, nil
}

// url is the registry's public address for a caller.
func (r *Registry) url(caller, account, region string) string {
	if r.TLS {
		return "https://" + r.nameFor(caller, account, region)
	}
	return "http://" + r.nameFor(caller, account, region)
}
