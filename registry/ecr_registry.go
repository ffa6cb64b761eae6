package registry

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// maxDestinations is how many different destinations a replication configuration may have, over all its rules.
const maxDestinations = 25

// putReplicationConfiguration implements ecr:PutReplicationConfiguration. It concerns what is pushed from now on.
func (r *Registry) putReplicationConfiguration(ctx context.Context, in *ecr.PutReplicationConfigurationInput) (*ecr.PutReplicationConfigurationOutput, error) {
	c := api.CallFrom(ctx)
	type place struct{ account, region string }
	places := map[place]bool{}
	for _, rule := range in.ReplicationConfiguration.Rules {
		for _, d := range rule.Destinations {
			p := place{value(d.RegistryId), value(d.Region)}
			switch {
			case r.remotes[p.region] != nil && r.remotes[p.region].of(p.account, c.Account) == nil:
				return nil, invalidParameter("replicationConfiguration", fmt.Sprintf("this cluster has no key for the registry %s in %s that images of account %s may use", p.account, p.region, c.Account))
			case p.account == c.Account && p.region == c.Region:
				return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: 'a registry cannot be its own destination (%s in %s)'", p.account, p.region)
			}
			places[p] = true
		}
	}
	if len(places) > maxDestinations {
		return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: 'at most %d destinations, not %d'", maxDestinations, len(places))
	}
	err := r.changeRegistry(ctx, c.Account, c.Region, func(s *RegistrySettings) error {
		s.ReplicationJson = controlplane.EncodeShape(*in.ReplicationConfiguration)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutReplicationConfigurationOutput{ReplicationConfiguration: in.ReplicationConfiguration}, nil
}

// describeRegistry implements ecr:DescribeRegistry.
func (r *Registry) describeRegistry(ctx context.Context, _ *ecr.DescribeRegistryInput) (*ecr.DescribeRegistryOutput, error) {
	c := api.CallFrom(ctx)
	configuration := &types.ReplicationConfiguration{}
	if text := registryRecord(r.Store.View(), c.Account, c.Region).ReplicationJson; text != "" {
		*configuration = controlplane.DecodeShape[types.ReplicationConfiguration](text)
	}
	if configuration.Rules == nil {
		configuration.Rules = []types.ReplicationRule{}
	}
	return &ecr.DescribeRegistryOutput{RegistryId: new(c.Account), ReplicationConfiguration: configuration}, nil
}

// describeImageReplicationStatus implements ecr:DescribeImageReplicationStatus.
func (r *Registry) describeImageReplicationStatus(ctx context.Context, in *ecr.DescribeImageReplicationStatusInput) (*ecr.DescribeImageReplicationStatusOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	m, err := r.identified(repo, in.ImageId)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribeImageReplicationStatusOutput{ImageId: in.ImageId, ReplicationStatuses: []types.ImageReplicationStatus{}, RepositoryName: in.RepositoryName}
	for e := range Replications.Scan(r.Store.View(), Manifests.Key(m)) {
		s := types.ImageReplicationStatus{Region: new(e.ToRegion), RegistryId: new(e.ToAccount), Status: types.ReplicationStatus(e.Status)}
		if e.FailureCode != "" {
			s.FailureCode = new(e.FailureCode)
		}
		out.ReplicationStatuses = append(out.ReplicationStatuses, s)
	}
	return out, nil
}

func registryPolicyNotFound(account string) error {
	return awserr.New("RegistryPolicyNotFoundException", "Registry policy does not exist in the registry with id '%s'", account)
}

// putRegistryPolicy implements ecr:PutRegistryPolicy.
func (r *Registry) putRegistryPolicy(ctx context.Context, in *ecr.PutRegistryPolicyInput) (*ecr.PutRegistryPolicyOutput, error) {
	p, err := parsePolicy(policy.Shared, api.CallFrom(ctx).Region, value(in.PolicyText))
	if err != nil {
		return nil, err
	}
	c := api.CallFrom(ctx)
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		s := proto.CloneOf(registryRecord(tx, c.Account, c.Region))
		if s.PolicyPrincipals, err = r.pin(tx, policy.Shared, p); err != nil {
			return err
		}
		s.PolicyText = *in.PolicyText
		Registries.Put(tx, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutRegistryPolicyOutput{PolicyText: in.PolicyText, RegistryId: new(c.Account)}, nil
}

// getRegistryPolicy implements ecr:GetRegistryPolicy.
func (r *Registry) getRegistryPolicy(ctx context.Context, _ *ecr.GetRegistryPolicyInput) (*ecr.GetRegistryPolicyOutput, error) {
	c := api.CallFrom(ctx)
	text := registryRecord(r.Store.View(), c.Account, c.Region).PolicyText
	if text == "" {
		return nil, registryPolicyNotFound(c.Account)
	}
	return &ecr.GetRegistryPolicyOutput{PolicyText: &text, RegistryId: new(c.Account)}, nil
}

// deleteRegistryPolicy implements ecr:DeleteRegistryPolicy.
func (r *Registry) deleteRegistryPolicy(ctx context.Context, _ *ecr.DeleteRegistryPolicyInput) (*ecr.DeleteRegistryPolicyOutput, error) {
	c := api.CallFrom(ctx)
	var text string
	err := r.changeRegistry(ctx, c.Account, c.Region, func(s *RegistrySettings) error {
		if text = s.PolicyText; text == "" {
			return registryPolicyNotFound(c.Account)
		}
		s.PolicyText, s.PolicyPrincipals = "", nil
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeleteRegistryPolicyOutput{PolicyText: &text, RegistryId: new(c.Account)}, nil
}
