package registry

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// repository finds a repository by name.
func repository(r state.Reader, account, region, name string) (*Repository, error) {
	repo, ok := Repositories.Get(r, state.K(account, region, name))
	if !ok {
		return nil, repositoryNotFound(account, name)
	}
	return repo, nil
}

// still reads the repository again inside a transaction: it must not have been deleted, nor created anew, meanwhile.
func (r *Repository) still(tx *state.Tx) (*Repository, error) {
	now, err := repository(tx, r.Account, r.Region, r.Name)
	if err != nil {
		return nil, err
	}
	if now.Id != r.Id {
		return nil, repositoryNotFound(r.Account, r.Name)
	}
	return now, nil
}

// newRepository is a repository with ECR's defaults.
func (r *Registry) newRepository(account, region, name string) *Repository {
	return &Repository{
		Account: account, Region: region, Name: name, Id: id.Hex(r.Rand, 16),
		TagMutability: "MUTABLE", EncryptionType: "AES256", Created: timestamppb.New(r.Clock.Now()),
	}
}

// create commits a new repository with its tags.
func (r *Registry) create(ctx context.Context, repo *Repository, tags map[string]string) error {
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		return r.createIn(tx, repo, tags)
	})
	return err
}

// remove deletes the repository; what it contains becomes invisible with it, and Collect deletes it later.
func (r *Registry) remove(ctx context.Context, account, region, name string, force bool) (*Repository, error) {
	var removed *Repository
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		repo, err := repository(tx, account, region, name)
		if err != nil {
			return err
		}
		if !force {
			for range Manifests.Scan(tx, repo.in()) {
				return awserr.New("RepositoryNotEmptyException", "The repository with name '%s' in registry with id '%s' cannot be deleted because it still contains images", name, account)
			}
		}
		Repositories.Delete(tx, Repositories.Key(repo))
		controlplane.PutTags(tx, repo.scope(), repo.arn(), nil)
		LifecyclePolicies.Delete(tx, repo.in())
		LifecyclePreviews.Delete(tx, repo.in())
		RepositoryPolicies.Delete(tx, repo.in())
		RemovedRepositories.Put(tx, &RemovedRepository{Account: account, Region: region, Id: repo.Id})
		removed = repo
		return nil
	})
	return removed, err
}

func (r *Repository) scope() controlplane.Scope {
	if r.Region == publicRegion { // as its ARN has it
		return controlplane.Scope{Account: r.Account}
	}
	return controlplane.Scope{Account: r.Account, Region: r.Region}
}

func (r *Repository) arn() string {
	if r.Region == publicRegion {
		return publicARN(r.Account, r.Name)
	}
	return arn.New("ecr", r.Region, r.Account, "repository/"+r.Name).String()
}

// action is an operation's on the repository, as policies know it.
func (r *Repository) action(operation string) string {
	if r.Region == publicRegion {
		return publicService + ":" + operation
	}
	return "ecr:" + operation
}

// immutable says whether a tag, once set, may not move.
func (r *Repository) immutable(tag string) bool {
	excluded := false
	for _, f := range r.MutabilityExclusions {
		excluded = excluded || matchesWildcard(f, tag)
	}
	switch r.TagMutability {
	case "IMMUTABLE":
		return true
	case "IMMUTABLE_WITH_EXCLUSION":
		return !excluded
	case "MUTABLE_WITH_EXCLUSION":
		return excluded
	}
	return false
}
