package registry

import (
	"context"
	"iter"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// PublicOperations are what is implemented of ECR Public.
func (r *Registry) PublicOperations() []api.Operation {
	table := []api.Operation{
		api.Read(public[ecrpublic.BatchCheckLayerAvailabilityInput, ecrpublic.BatchCheckLayerAvailabilityOutput](r.batchCheckLayerAvailability)),
		api.Write(public[ecrpublic.BatchDeleteImageInput, ecrpublic.BatchDeleteImageOutput](r.batchDeleteImage)),
		api.Write(public[ecrpublic.CompleteLayerUploadInput, ecrpublic.CompleteLayerUploadOutput](r.completeLayerUpload)),
		api.Write(r.createPublicRepository, api.Route("POST /public-repositories")),
		api.Write(public[ecrpublic.DeleteRepositoryInput, ecrpublic.DeleteRepositoryOutput](r.deleteRepository), api.Route("DELETE /public-repositories/{repositoryName}")),
		api.Write(public[ecrpublic.DeleteRepositoryPolicyInput, ecrpublic.DeleteRepositoryPolicyOutput](r.deleteRepositoryPolicy)),
		api.Read(r.describeImageTags),
		api.Read(public[ecrpublic.DescribeImagesInput, ecrpublic.DescribeImagesOutput](r.describeImages)),
		api.Read(r.describeRegistries),
		api.Read(public[ecrpublic.DescribeRepositoriesInput, ecrpublic.DescribeRepositoriesOutput](r.describeRepositories), api.Route("GET /public-repositories"),
			api.Resources(func(c *api.Call, in *ecrpublic.DescribeRepositoriesInput) (out []string) {
				for _, n := range in.RepositoryNames {
					out = append(out, publicARN(c.Account, n))
				}
				if out == nil {
					out = []string{publicARN(c.Account, "*")}
				}
				return out
			})),
		api.Read(r.getPublicAuthorizationToken),
		api.Read(r.getRegistryCatalogData),
		api.Read(r.getRepositoryCatalogData),
		api.Read(public[ecrpublic.GetRepositoryPolicyInput, ecrpublic.GetRepositoryPolicyOutput](r.getRepositoryPolicy)),
		api.Write(public[ecrpublic.InitiateLayerUploadInput, ecrpublic.InitiateLayerUploadOutput](r.initiateLayerUpload)),
		api.Read(public[ecrpublic.ListTagsForResourceInput, ecrpublic.ListTagsForResourceOutput](r.listTagsForResource)),
		api.Write(public[ecrpublic.PutImageInput, ecrpublic.PutImageOutput](r.putImageOperation)),
		api.Write(r.putRegistryCatalogData),
		api.Write(r.putRepositoryCatalogData),
		api.Write(public[ecrpublic.SetRepositoryPolicyInput, ecrpublic.SetRepositoryPolicyOutput](r.setRepositoryPolicy)),
		api.Write(public[ecrpublic.TagResourceInput, ecrpublic.TagResourceOutput](r.tagResource)),
		api.Write(public[ecrpublic.UntagResourceInput, ecrpublic.UntagResourceOutput](r.untagResource)),
		api.Write(public[ecrpublic.UploadLayerPartInput, ecrpublic.UploadLayerPartOutput](r.uploadLayerPart)),
	}
	for i := range table {
		onRepository(&table[i], func(c *api.Call, registry *string, name string) string {
			if registry = registryOfAlias(publicRegion, registry); registry != nil {
				return publicARN(*registry, name)
			}
			return publicARN(c.Account, name)
		})
	}
	return table
}

// catalogOf checks what is to be said of a repository.
func catalogOf(in *types.RepositoryCatalogDataInput) (*types.RepositoryCatalogData, error) {
	if len(in.LogoImageBlob) > 0 {
		return nil, awserr.New("UnsupportedCommandException", "Logos are not kept here: leave out 'logoImageBlob'.")
	}
	return &types.RepositoryCatalogData{
		AboutText: in.AboutText, Architectures: in.Architectures, Description: in.Description, MarketplaceCertified: new(false), OperatingSystems: in.OperatingSystems, UsageText: in.UsageText,
	}, nil
}

// createPublicRepository implements ecr-public:CreateRepository.
func (r *Registry) createPublicRepository(ctx context.Context, in *ecrpublic.CreateRepositoryInput) (*ecrpublic.CreateRepositoryOutput, error) {
	name := value(in.RepositoryName)
	if err := checkRepositoryName(name); err != nil {
		return nil, err
	}
	pairs := make([]controlplane.Tag, 0, len(in.Tags))
	for _, t := range in.Tags {
		pairs = append(pairs, controlplane.Tag{Key: value(t.Key), Value: value(t.Value)})
	}
	tags, err := controlplane.TagSet(pairs, tagCodes)
	if err != nil {
		return nil, err
	}
	repo := r.newRepository(api.CallFrom(ctx).Account, publicRegion, name)
	catalog := &types.RepositoryCatalogData{MarketplaceCertified: new(false)}
	if in.CatalogData != nil {
		if catalog, err = catalogOf(in.CatalogData); err != nil {
			return nil, err
		}
		repo.CatalogJson = controlplane.EncodeShape(*catalog)
	}
	if err := r.create(ctx, repo, tags); err != nil {
		return nil, err
	}
	return &ecrpublic.CreateRepositoryOutput{CatalogData: catalog, Repository: &types.Repository{
		CreatedAt: new(repo.Created.AsTime()), RegistryId: new(repo.Account), RepositoryArn: new(repo.arn()), RepositoryName: new(repo.Name), RepositoryUri: new(r.uri(repo.Account, repo)),
	}}, nil
}

// getRepositoryCatalogData implements ecr-public:GetRepositoryCatalogData.
func (r *Registry) getRepositoryCatalogData(ctx context.Context, in *ecrpublic.GetRepositoryCatalogDataInput) (*ecrpublic.GetRepositoryCatalogDataOutput, error) {
	repo, err := r.repositoryOf(inPublic(ctx), in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if repo.CatalogJson == "" {
		return nil, awserr.New("RepositoryCatalogDataNotFoundException", "Repository catalog data does not exist for the repository with name '%s' in the registry with id '%s'", repo.Name, repo.Account)
	}
	return &ecrpublic.GetRepositoryCatalogDataOutput{CatalogData: new(controlplane.DecodeShape[types.RepositoryCatalogData](repo.CatalogJson))}, nil
}

// putRepositoryCatalogData implements ecr-public:PutRepositoryCatalogData: it replaces all of it.
func (r *Registry) putRepositoryCatalogData(ctx context.Context, in *ecrpublic.PutRepositoryCatalogDataInput) (*ecrpublic.PutRepositoryCatalogDataOutput, error) {
	repo, err := r.repositoryOf(inPublic(ctx), in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	catalog, err := catalogOf(in.CatalogData)
	if err != nil {
		return nil, err
	}
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		now, err := repo.still(tx)
		if err != nil {
			return err
		}
		now = proto.CloneOf(now)
		now.CatalogJson = controlplane.EncodeShape(*catalog)
		Repositories.Put(tx, now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecrpublic.PutRepositoryCatalogDataOutput{CatalogData: catalog}, nil
}

// getRegistryCatalogData implements ecr-public:GetRegistryCatalogData.
func (r *Registry) getRegistryCatalogData(ctx context.Context, _ *ecrpublic.GetRegistryCatalogDataInput) (*ecrpublic.GetRegistryCatalogDataOutput, error) {
	name := registryRecord(r.Store.View(), api.CallFrom(ctx).Account, publicRegion).DisplayName
	return &ecrpublic.GetRegistryCatalogDataOutput{RegistryCatalogData: &types.RegistryCatalogData{DisplayName: &name}}, nil
}

// putRegistryCatalogData implements ecr-public:PutRegistryCatalogData.
func (r *Registry) putRegistryCatalogData(ctx context.Context, in *ecrpublic.PutRegistryCatalogDataInput) (*ecrpublic.PutRegistryCatalogDataOutput, error) {
	name := value(in.DisplayName)
	err := r.changeRegistry(ctx, api.CallFrom(ctx).Account, publicRegion, func(s *RegistrySettings) error {
		s.DisplayName = name
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecrpublic.PutRegistryCatalogDataOutput{RegistryCatalogData: &types.RegistryCatalogData{DisplayName: &name}}, nil
}

// describeRegistries implements ecr-public:DescribeRegistries: an account has one.
func (r *Registry) describeRegistries(ctx context.Context, in *ecrpublic.DescribeRegistriesInput) (*ecrpublic.DescribeRegistriesOutput, error) {
	account := api.CallFrom(ctx).Account
	page, next, err := api.Page(ctx, r.pages, in, api.PageSize(in.MaxResults, pageFallback, pageMost), func(after string) iter.Seq[string] {
		return func(yield func(string) bool) {
			if account > after {
				yield(account)
			}
		}
	}, func(account string) string { return account })
	if err != nil {
		return nil, err
	}
	out := &ecrpublic.DescribeRegistriesOutput{Registries: []types.Registry{}, NextToken: next}
	for _, account := range page {
		out.Registries = append(out.Registries, types.Registry{
			Aliases:     []types.RegistryAlias{{DefaultRegistryAlias: true, Name: new(aliasOf(account)), PrimaryRegistryAlias: true, Status: types.RegistryAliasStatusActive}},
			RegistryArn: new("arn:aws:" + publicService + "::" + account + ":registry/" + account), RegistryId: new(account),
			RegistryUri: new(r.publicName() + "/" + aliasOf(account)), Verified: new(false),
		})
	}
	return out, nil
}

// getPublicAuthorizationToken implements ecr-public:GetAuthorizationToken.
func (r *Registry) getPublicAuthorizationToken(ctx context.Context, _ *ecrpublic.GetAuthorizationTokenInput) (*ecrpublic.GetAuthorizationTokenOutput, error) {
	own, err := r.getAuthorizationToken(inPublic(ctx), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return nil, err
	}
	return &ecrpublic.GetAuthorizationTokenOutput{AuthorizationData: &types.AuthorizationData{
		AuthorizationToken: own.AuthorizationData[0].AuthorizationToken, ExpiresAt: own.AuthorizationData[0].ExpiresAt,
	}}, nil
}

// describeImageTags implements ecr-public:DescribeImageTags.
func (r *Registry) describeImageTags(ctx context.Context, in *ecrpublic.DescribeImageTagsInput) (*ecrpublic.DescribeImageTagsOutput, error) {
	repo, err := r.repositoryOf(inPublic(ctx), in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	v := r.Store.View()
	page, next, err := api.Page(ctx, r.pages, in, api.PageSize(in.MaxResults, pageFallback, pageMost), func(after state.Key) iter.Seq[*Tag] {
		return Tags.ScanFrom(v, repo.in(), max(after, repo.in()))
	}, Tags.Key)
	if err != nil {
		return nil, err
	}
	out := &ecrpublic.DescribeImageTagsOutput{ImageTagDetails: []types.ImageTagDetail{}, NextToken: next}
	for _, t := range page {
		one := types.ImageTagDetail{ImageTag: new(t.Name), CreatedAt: new(t.Moved.AsTime())}
		if m, ok := Manifests.Get(v, repo.in(t.Digest)); ok {
			one.ImageDetail = &types.ReferencedImageDetail{
				ImageDigest: new(m.Digest), ImageManifestMediaType: new(m.MediaType), ImagePushedAt: new(m.Pushed.AsTime()), ImageSizeInBytes: new(int64(m.ImageSize)),
			}
			if m.ArtifactType != "" {
				one.ImageDetail.ArtifactMediaType = new(m.ArtifactType)
			}
		}
		out.ImageTagDetails = append(out.ImageTagDetails, one)
	}
	return out, nil
}
