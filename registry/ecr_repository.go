package registry

import (
	"context"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// maxFilterWildcards is how many * a filter of tags that mutability leaves out may have.
const maxFilterWildcards = 2

const (
	pageFallback = 100
	pageMost     = 1000
)

// registryOf is the account that an operation on a repository works on. Where that is another than the caller's, the call was held
// against both accounts' policies before (api/auth); without an Authorizer nobody did that.
func (r *Registry) registryOf(ctx context.Context, registryID *string) (account, region string, err error) {
	c := api.CallFrom(ctx)
	registryID = registryOfAlias(c.Region, registryID)
	if registryID == nil || r.Authorizer == nil {
		return ownRegistry(ctx, registryID)
	}
	return *registryID, c.Region, nil
}

// ownRegistry is registryOf for operations that are on no repository: no policy speaks of their registry, so it is the caller's own.
func ownRegistry(ctx context.Context, registryID *string) (account, region string, err error) {
	c := api.CallFrom(ctx)
	if registryID != nil && *registryID != c.Account {
		return "", "", awserr.New("AccessDeniedException", "User: %s is not authorized to perform: ecr:%s on the registry with id '%s' because no resource-based policy allows the ecr:%s action",
			c.ARN, c.Operation, *registryID, c.Operation)
	}
	return c.Account, c.Region, nil
}

// repositoryOf finds the repository that an operation names.
func (r *Registry) repositoryOf(ctx context.Context, registryID, name *string) (*Repository, error) {
	account, region, err := r.registryOf(ctx, registryID)
	if err != nil {
		return nil, err
	}
	n := value(name)
	if err := checkRepositoryName(n); err != nil {
		return nil, err
	}
	return repository(r.Store.View(), account, region, n)
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// shape renders a repository for the caller. Its URI can be pushed to as it is.
func (r *Registry) shape(ctx context.Context, repo *Repository) types.Repository {
	out := types.Repository{
		CreatedAt:                  new(repo.Created.AsTime()),
		EncryptionConfiguration:    &types.EncryptionConfiguration{EncryptionType: types.EncryptionType(repo.EncryptionType)},
		ImageScanningConfiguration: &types.ImageScanningConfiguration{ScanOnPush: repo.ScanOnPush},
		ImageTagMutability:         types.ImageTagMutability(repo.TagMutability),
		RegistryId:                 new(repo.Account),
		RepositoryArn:              new(repo.arn()),
		RepositoryName:             new(repo.Name),
		RepositoryUri:              new(r.uri(api.CallFrom(ctx).Account, repo)),
	}
	if repo.KmsKey != "" {
		out.EncryptionConfiguration.KmsKey = new(repo.KmsKey)
	}
	out.ImageTagMutabilityExclusionFilters = repo.exclusionFilters()
	return out
}

func (r *Repository) exclusionFilters() []types.ImageTagMutabilityExclusionFilter {
	var out []types.ImageTagMutabilityExclusionFilter
	for _, f := range r.MutabilityExclusions {
		out = append(out, types.ImageTagMutabilityExclusionFilter{Filter: new(f), FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard})
	}
	return out
}

// setMutability checks and stores a mutability setting.
func (r *Repository) setMutability(m types.ImageTagMutability, filters []types.ImageTagMutabilityExclusionFilter) error {
	withExclusion := m == types.ImageTagMutabilityImmutableWithExclusion || m == types.ImageTagMutabilityMutableWithExclusion
	if withExclusion != (len(filters) > 0) {
		return awserr.New("InvalidParameterException", "Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint: 'exclusion filters are given exactly when imageTagMutability is IMMUTABLE_WITH_EXCLUSION or MUTABLE_WITH_EXCLUSION'")
	}
	r.TagMutability, r.MutabilityExclusions = string(m), nil
	for _, f := range filters {
		if n := strings.Count(value(f.Filter), "*"); n > maxFilterWildcards {
			return awserr.New("InvalidParameterException", "Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint: 'a filter has at most %d wildcards, %q has %d'", maxFilterWildcards, *f.Filter, n)
		}
		r.MutabilityExclusions = append(r.MutabilityExclusions, value(f.Filter))
	}
	return nil
}

func (r *Registry) createRepository(ctx context.Context, in *ecr.CreateRepositoryInput) (*ecr.CreateRepositoryOutput, error) {
	account, region, err := r.registryOf(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	if err := checkRepositoryName(value(in.RepositoryName)); err != nil {
		return nil, err
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	repo := r.newRepository(account, region, *in.RepositoryName)
	if in.ImageTagMutability != "" || in.ImageTagMutabilityExclusionFilters != nil {
		if err := repo.setMutability(in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters); err != nil {
			return nil, err
		}
	}
	if c := in.ImageScanningConfiguration; c != nil {
		repo.ScanOnPush = c.ScanOnPush
	}
	if c := in.EncryptionConfiguration; c != nil {
		repo.EncryptionType, repo.KmsKey = string(c.EncryptionType), value(c.KmsKey)
	}
	if err := r.create(ctx, repo, tags); err != nil {
		return nil, err
	}
	return &ecr.CreateRepositoryOutput{Repository: new(r.shape(ctx, repo))}, nil
}

func (r *Registry) deleteRepository(ctx context.Context, in *ecr.DeleteRepositoryInput) (*ecr.DeleteRepositoryOutput, error) {
	account, region, err := r.registryOf(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	repo, err := r.remove(ctx, account, region, value(in.RepositoryName), in.Force)
	if err != nil {
		return nil, err
	}
	return &ecr.DeleteRepositoryOutput{Repository: new(r.shape(ctx, repo))}, nil
}

func (r *Registry) describeRepositories(ctx context.Context, in *ecr.DescribeRepositoriesInput) (*ecr.DescribeRepositoriesOutput, error) {
	account, region, err := r.registryOf(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	v := r.Store.View()
	out := &ecr.DescribeRepositoriesOutput{Repositories: []types.Repository{}}
	if len(in.RepositoryNames) > 0 {
		if in.NextToken != nil || in.MaxResults != nil {
			return nil, awserr.New("InvalidParameterException", "Invalid parameter: 'nextToken' and 'maxResults' cannot be used with 'repositoryNames'")
		}
		for _, name := range in.RepositoryNames {
			repo, err := repository(v, account, region, name)
			if err != nil {
				return nil, err
			}
			out.Repositories = append(out.Repositories, r.shape(ctx, repo))
		}
		return out, nil
	}
	prefix := state.K(account, region)
	page, next, err := api.Page(ctx, r.pages, in, api.PageSize(in.MaxResults, pageFallback, pageMost), func(after state.Key) iter.Seq[*Repository] {
		return Repositories.ScanFrom(v, prefix, max(after, prefix))
	}, Repositories.Key)
	if err != nil {
		return nil, err
	}
	for _, repo := range page {
		out.Repositories = append(out.Repositories, r.shape(ctx, repo))
	}
	out.NextToken = next
	return out, nil
}

func (r *Registry) putImageTagMutability(ctx context.Context, in *ecr.PutImageTagMutabilityInput) (*ecr.PutImageTagMutabilityOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		now, err := repo.still(tx)
		if err != nil {
			return err
		}
		repo = proto.CloneOf(now)
		if err := repo.setMutability(in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters); err != nil {
			return err
		}
		Repositories.Put(tx, repo)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutImageTagMutabilityOutput{
		ImageTagMutability: in.ImageTagMutability, ImageTagMutabilityExclusionFilters: repo.exclusionFilters(),
		RegistryId: new(repo.Account), RepositoryName: new(repo.Name),
	}, nil
}
