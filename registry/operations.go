package registry

import "github.com/seed-2f228079/neargate/api"

// Operations are what is implemented of ECR.
func (r *Registry) Operations() []api.Operation {
	return []api.Operation{
		api.Read(r.batchCheckLayerAvailability),
		api.Write(r.batchDeleteImage, api.Route("DELETE /repositories/{repositoryName}/images")),
		api.Read(r.batchGetImage),
		api.Write(r.completeLayerUpload),
		api.Write(r.createRepository, api.Route("POST /repositories")),
		api.Write(r.createRepositoryCreationTemplate),
		api.Write(r.deleteLifecyclePolicy),
		api.Write(r.deleteRegistryPolicy),
		api.Write(r.deleteRepository, api.Route("DELETE /repositories/{repositoryName}")),
		api.Write(r.deleteRepositoryCreationTemplate),
		api.Write(r.deregisterPullTimeUpdateExclusion),
		api.Read(r.describeImageReplicationStatus),
		api.Read(r.describeImages, api.Route("GET /repositories/{repositoryName}/image-details")),
		api.Read(r.describeRegistry),
		api.Read(r.describeRepositories, api.Route("GET /repositories")),
		api.Read(r.describeRepositoryCreationTemplates),
		api.Read(r.getAccountSetting),
		api.Read(r.getAuthorizationToken, api.Route("POST /registry/authorization-token")),
		api.Read(r.getDownloadURLForLayer),
		api.Read(r.getLifecyclePolicy),
		api.Read(r.getLifecyclePolicyPreview),
		api.Read(r.getRegistryPolicy),
		api.Write(r.initiateLayerUpload),
		api.Read(r.listImageReferrers),
		api.Read(r.listImages, api.Route("GET /repositories/{repositoryName}/images")),
		api.Read(r.listPullTimeUpdateExclusions),
		api.Read(r.listTagsForResource),
		api.Write(r.putAccountSetting),
		api.Write(r.putImageOperation),
		api.Write(r.putImageTagMutability, api.Route("PUT /repositories/{repositoryName}/tag-mutability")),
		api.Write(r.putLifecyclePolicy),
		api.Write(r.putRegistryPolicy),
		api.Write(r.putReplicationConfiguration),
		api.Write(r.registerPullTimeUpdateExclusion),
		api.Write(r.startLifecyclePolicyPreview),
		api.Write(r.tagResource),
		api.Write(r.untagResource),
		api.Write(r.updateImageStorageClass),
		api.Write(r.updateRepositoryCreationTemplate),
		api.Write(r.uploadLayerPart),
	}
}
