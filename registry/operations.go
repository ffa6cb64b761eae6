package registry

import (
	"reflect"

	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// Operations are what is implemented of ECR.
func (r *Registry) Operations() []api.Operation {
	table := []api.Operation{
		api.Read(r.batchCheckLayerAvailability),
		api.Write(r.batchDeleteImage, api.Route("DELETE /repositories/{repositoryName}/images")),
		api.Read(r.batchGetImage),
		api.Read(r.batchGetRepositoryScanningConfiguration, api.Resources(func(c *api.Call, in *ecr.BatchGetRepositoryScanningConfigurationInput) []string {
			var out []string
			for _, n := range in.RepositoryNames {
				out = append(out, repositoryARN(c, nil, n))
			}
			return out
		})),
		api.Write(r.completeLayerUpload),
		api.Write(r.createPullThroughCacheRule),
		api.Write(r.createRepository, api.Route("POST /repositories")),
		api.Write(r.createRepositoryCreationTemplate),
		api.Write(r.deleteLifecyclePolicy),
		api.Write(r.deletePullThroughCacheRule),
		api.Write(r.deleteRegistryPolicy),
		api.Write(r.deleteRepository, api.Route("DELETE /repositories/{repositoryName}")),
		api.Write(r.deleteRepositoryCreationTemplate),
		api.Write(r.deleteRepositoryPolicy, api.Route("DELETE /repositories/{repositoryName}/policy")),
		api.Write(r.deleteSigningConfiguration),
		api.Write(r.deregisterPullTimeUpdateExclusion),
		api.Read(r.describeImageReplicationStatus),
		api.Read(r.describeImageScanFindings, api.Route("GET /repositories/{repositoryName}/scan-findings")),
		api.Read(r.describeImageSigningStatus),
		api.Read(r.describeImages, api.Route("GET /repositories/{repositoryName}/image-details")),
		api.Read(r.describePullThroughCacheRules),
		api.Read(r.describeRegistry),
		api.Read(r.describeReplicationBackfillResults),
		api.Read(r.describeRepositories, api.Route("GET /repositories"), api.Resources(func(c *api.Call, in *ecr.DescribeRepositoriesInput) []string {
			names := in.RepositoryNames
			if len(names) == 0 {
				names = []string{"*"}
			}
			var out []string
			for _, n := range names {
				out = append(out, repositoryARN(c, in.RegistryId, n))
			}
			return out
		})),
		api.Read(r.describeRepositoryCreationTemplates),
		api.Read(r.getAccountSetting),
		api.Read(r.getAuthorizationToken, api.Route("POST /registry/authorization-token")),
		api.Read(r.getDownloadURLForLayer),
		api.Read(r.getLifecyclePolicy),
		api.Read(r.getLifecyclePolicyPreview),
		api.Read(r.getRegistryPolicy),
		api.Read(r.getRegistryScanningConfiguration),
		api.Read(r.getRepositoryPolicy, api.Route("GET /repositories/{repositoryName}/policy")),
		api.Read(r.getSigningConfiguration),
		api.Write(r.initiateLayerUpload),
		api.Read(r.listImageReferrers),
		api.Read(r.listImages, api.Route("GET /repositories/{repositoryName}/images")),
		api.Read(r.listPullTimeUpdateExclusions),
		api.Read(r.listReplicationBackfills),
		api.Read(r.listTagsForResource),
		api.Write(r.putAccountSetting),
		api.Write(r.putImageOperation),
		api.Write(r.putImageScanningConfiguration),
		api.Write(r.putImageTagMutability, api.Route("PUT /repositories/{repositoryName}/tag-mutability")),
		api.Write(r.putLifecyclePolicy),
		api.Write(r.putRegistryPolicy),
		api.Write(r.putRegistryScanningConfiguration),
		api.Write(r.putReplicationConfiguration),
		api.Write(r.putSigningConfiguration),
		api.Write(r.registerPullTimeUpdateExclusion),
		api.Write(r.setRepositoryPolicy, api.Route("PUT /repositories/{repositoryName}/policy")),
		api.Write(r.startImageScan),
		api.Write(r.startLifecyclePolicyPreview),
		api.Write(r.startReplicationBackfill),
		api.Write(r.stopReplicationBackfill),
		api.Write(r.tagResource),
		api.Write(r.untagResource),
		api.Write(r.updateImageStorageClass),
		api.Write(r.updatePullThroughCacheRule),
		api.Write(r.updateRepositoryCreationTemplate),
		api.Write(r.uploadLayerPart),
		api.Read(r.validatePullThroughCacheRule),
	}
	for i := range table {
		onRepository(&table[i], repositoryARN)
	}
	return table
}

func repositoryARN(c *api.Call, registry *string, name string) string {
	account := c.Account
	if registry != nil {
		account = *registry
	}
	return arn.New("ecr", c.Region, account, "repository/"+name).String()
}

// onRepository says of operations whose input names a repository, by name or ARN, that they are on that one. The others are on
// the registry, which policies know as "*".
func onRepository(o *api.Operation, name func(c *api.Call, registry *string, repository string) string) {
	repository, named := o.In.FieldByName("RepositoryName")
	registry, elsewhere := o.In.FieldByName("RegistryId")
	resource, tagged := o.In.FieldByName("ResourceArn")
	member := func(in any, f reflect.StructField) *string {
		return reflect.ValueOf(in).Elem().FieldByIndex(f.Index).Interface().(*string)
	}
	switch {
	case o.Resources != nil:
	case named:
		o.Resources = func(c *api.Call, in any) []string {
			var of *string
			if elsewhere {
				of = member(in, registry)
			}
			return []string{name(c, of, value(member(in, repository)))}
		}
	case tagged:
		o.Resources = func(_ *api.Call, in any) []string { return []string{value(member(in, resource))} }
	}
}
