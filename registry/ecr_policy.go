package registry

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

func repositoryPolicyNotFound(repo *Repository) error {
	return awserr.New("RepositoryPolicyNotFoundException", "Repository policy does not exist for the repository with name '%s' in the registry with id '%s'", repo.Name, repo.Account)
}

// setRepositoryPolicy implements ecr:SetRepositoryPolicy.
func (r *Registry) setRepositoryPolicy(ctx context.Context, in *ecr.SetRepositoryPolicyInput) (*ecr.SetRepositoryPolicyOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	p, err := parsePolicy(policy.Own, repo.Region, value(in.PolicyText))
	if err != nil {
		return nil, err
	}
	c := api.CallFrom(ctx)
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		now, err := repo.still(tx)
		if err != nil {
			return err
		}
		ids, err := r.pin(tx, policy.Own, p)
		if err != nil {
			return err
		}
		if !in.Force && r.locksOut(c, now, p.Pin(ids)) {
			return awserr.New("InvalidParameterException", "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'The policy would keep %s from setting another one. Use force to set it nevertheless.'", c.ARN)
		}
		RepositoryPolicies.Put(tx, now.policy(*in.PolicyText, ids))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.SetRepositoryPolicyOutput{PolicyText: in.PolicyText, RegistryId: new(repo.Account), RepositoryName: new(repo.Name)}, nil
}

func (r *Repository) policy(text string, ids map[string]string) *RepositoryPolicy {
	return &RepositoryPolicy{Account: r.Account, Region: r.Region, Repository: r.Id, Text: text, Principals: ids}
}

// locksOut says whether with this policy the caller could not set another one: it denies that, or, to one of another account, does
// not allow it.
func (r *Registry) locksOut(c *api.Call, repo *Repository, p *policy.Policy) bool {
	if r.Weigh == nil {
		return false
	}
	said := r.Weigh(c, repo.action("SetRepositoryPolicy"), repo.arn(), p)
	return said == policy.Deny || said == policy.None && repo.Account != c.Account
}

// getRepositoryPolicy implements ecr:GetRepositoryPolicy.
func (r *Registry) getRepositoryPolicy(ctx context.Context, in *ecr.GetRepositoryPolicyInput) (*ecr.GetRepositoryPolicyOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	p, ok := RepositoryPolicies.Get(r.Store.View(), repo.in())
	if !ok {
		return nil, repositoryPolicyNotFound(repo)
	}
	return &ecr.GetRepositoryPolicyOutput{PolicyText: new(p.Text), RegistryId: new(repo.Account), RepositoryName: new(repo.Name)}, nil
}

// deleteRepositoryPolicy implements ecr:DeleteRepositoryPolicy.
func (r *Registry) deleteRepositoryPolicy(ctx context.Context, in *ecr.DeleteRepositoryPolicyInput) (*ecr.DeleteRepositoryPolicyOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	var text string
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		now, err := repo.still(tx)
		if err != nil {
			return err
		}
		p, ok := RepositoryPolicies.Get(tx, now.in())
		if !ok {
			return repositoryPolicyNotFound(now)
		}
		text = p.Text
		RepositoryPolicies.Delete(tx, now.in())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeleteRepositoryPolicyOutput{PolicyText: &text, RegistryId: new(repo.Account), RepositoryName: new(repo.Name)}, nil
}
