package secretsmanager

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// on is the IAM resource of an operation on the secret that id finds in its input, and the key with which policies name it.
func on[I any](f *Family, id func(*I) *string) api.Option {
	resource := api.Resource(func(c *api.Call, in *I) string {
		text, scope := aws.ToString(id(in)), controlplane.Scope{Account: c.Account, Region: c.Region}
		if s, err := find(f.Store.View(), scope, text); err == nil {
			return s.ARN()
		}
		if arn.Is(text) {
			return text
		}
		return unnamed(c, text)
	})
	key := api.Key("secretsmanager:SecretId", func(_ *api.Call, in *I) []string { return given(id(in)) })
	return func(o *api.Operation) { resource(o); key(o) }
}

// unnamed is the ARN of a secret that has no suffix yet, or whose suffix nobody knows: policies write NAME-?????? for it.
func unnamed(c *api.Call, name string) string {
	return secretARN(controlplane.Scope{Account: c.Account, Region: c.Region}, name+"-??????")
}

func given(v *string) []string {
	if v == nil {
		return nil
	}
	return []string{*v}
}

// Operations is the family's table.
func (f *Family) Operations() []api.Operation {
	return []api.Operation{
		api.Read(f.batchGetSecretValue),
		api.Write(f.createSecret, api.Route("POST /secrets"),
			api.Resource(func(c *api.Call, in *sm.CreateSecretInput) string { return unnamed(c, aws.ToString(in.Name)) }),
			api.Key("secretsmanager:Name", func(_ *api.Call, in *sm.CreateSecretInput) []string { return given(in.Name) })),
		api.Write(f.deleteSecret, on(f, func(in *sm.DeleteSecretInput) *string { return in.SecretId })),
		api.Read(f.describeSecret, on(f, func(in *sm.DescribeSecretInput) *string { return in.SecretId })),
		api.Read(f.getRandomPassword),
		api.Read(f.getSecretValue, on(f, func(in *sm.GetSecretValueInput) *string { return in.SecretId }),
			api.Key("secretsmanager:VersionId", func(_ *api.Call, in *sm.GetSecretValueInput) []string { return given(in.VersionId) }),
			api.Key("secretsmanager:VersionStage", func(_ *api.Call, in *sm.GetSecretValueInput) []string {
				if in.VersionStage == nil && in.VersionId == nil {
					return []string{current}
				}
				return given(in.VersionStage)
			})),
		api.Read(f.listSecretVersionIds, on(f, func(in *sm.ListSecretVersionIdsInput) *string { return in.SecretId })),
		api.Read(f.listSecrets, api.Route("GET /secrets")),
		api.Write(f.putSecretValue, on(f, func(in *sm.PutSecretValueInput) *string { return in.SecretId })),
		api.Write(f.restoreSecret, on(f, func(in *sm.RestoreSecretInput) *string { return in.SecretId })),
		api.Write(f.tagResource, on(f, func(in *sm.TagResourceInput) *string { return in.SecretId })),
		api.Write(f.untagResource, on(f, func(in *sm.UntagResourceInput) *string { return in.SecretId })),
		api.Write(f.updateSecret, on(f, func(in *sm.UpdateSecretInput) *string { return in.SecretId })),
		api.Write(f.updateSecretVersionStage, on(f, func(in *sm.UpdateSecretVersionStageInput) *string { return in.SecretId })),
	}
}
