package registry

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// rootPrefix stands for every repository that no longer prefix fits.
const rootPrefix = "ROOT"

// template finds the creation template for a repository to be made for a reason: of those that apply for it, the one with the
// longest prefix. nil: there is none.
func template(v state.Reader, account, region, name string, reason types.RCTAppliedFor) *CreationTemplate {
	for prefix := range prefixes(name) {
		if t, ok := CreationTemplates.Get(v, state.K(account, region, prefix)); ok && slices.Contains(t.AppliedFor, string(reason)) {
			return t
		}
	}
	return nil
}

// prefixes yields what a repository's name may be known under, the longest first: "a/b" and "a" of "a/b/c", then ROOT.
func prefixes(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := strings.LastIndexByte(name, '/'); i >= 0; i = strings.LastIndexByte(name, '/') {
			if name = name[:i]; !yield(name) {
				return
			}
		}
		yield(rootPrefix)
	}
}

// makeRepository commits a repository as the template has it; nil is ECR's defaults.
func (r *Registry) makeRepository(tx *state.Tx, account, region, name string, t *CreationTemplate) (*Repository, error) {
	repo := r.newRepository(account, region, name)
	if t != nil {
		repo.TagMutability, repo.MutabilityExclusions = t.TagMutability, t.MutabilityExclusions
		repo.EncryptionType, repo.KmsKey = t.EncryptionType, t.KmsKey
	}
	if err := r.createIn(tx, repo, t.GetTags()); err != nil {
		return nil, err
	}
	if t.GetLifecyclePolicy() != "" {
		LifecyclePolicies.Put(tx, repo.lifecyclePolicy(t.LifecyclePolicy))
	}
	if t.GetRepositoryPolicy() != "" {
		p, err := parsePolicy(policy.Own, repo.Region, t.RepositoryPolicy)
		if err != nil {
			return nil, err
		}
		ids, err := r.pin(tx, policy.Own, p) // users and roles as they are now
		if err != nil {
			return nil, err
		}
		RepositoryPolicies.Put(tx, repo.policy(t.RepositoryPolicy, ids))
	}
	return repo, nil
}

// ensure gives the repository, made for a reason if it is not there.
func (r *Registry) ensure(ctx context.Context, account, region, name string, reason types.RCTAppliedFor) (repo *Repository, err error) {
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		if repo, err = repository(tx, account, region, name); err == nil {
			return nil
		}
		repo, err = r.makeRepository(tx, account, region, name, template(tx, account, region, name, reason))
		return err
	})
	return repo, err
}

// createIn commits a new repository with its tags.
func (r *Registry) createIn(tx *state.Tx, repo *Repository, tags map[string]string) error {
	if _, exists := Repositories.Get(tx, Repositories.Key(repo)); exists {
		return awserr.New("RepositoryAlreadyExistsException", "The repository with name '%s' already exists in the registry with id '%s'", repo.Name, repo.Account)
	}
	if err := r.roomForRepository(repo.Account, repo.Region); err != nil {
		return err
	}
	Repositories.Put(tx, repo)
	controlplane.PutTags(tx, repo.scope(), repo.arn(), tags)
	return nil
}
