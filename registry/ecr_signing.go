package registry

import (
	"context"
	"fmt"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

func signingNotFound(account string) error {
	return awserr.New("SigningConfigurationNotFoundException", "The signing configuration does not exist in the registry with id '%s'", account)
}

// putSigningConfiguration implements ecr:PutSigningConfiguration. It concerns what is pushed from now on.
func (r *Registry) putSigningConfiguration(ctx context.Context, in *ecr.PutSigningConfigurationInput) (*ecr.PutSigningConfigurationOutput, error) {
	c := api.CallFrom(ctx)
	if err := r.checkSigning(in.SigningConfiguration.Rules); err != nil {
		return nil, err
	}
	err := r.changeRegistry(ctx, c.Account, c.Region, func(s *RegistrySettings) error {
		s.SigningJson = controlplane.EncodeShape(*in.SigningConfiguration)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutSigningConfigurationOutput{SigningConfiguration: in.SigningConfiguration}, nil
}

const (
	profilePattern       = `arn:aws(-[a-z]+)*:signer:[a-z0-9-]+:[0-9]{12}:\/signing-profiles\/[a-zA-Z0-9_]{2,}`
	signingFilterPattern = `(?:[a-z0-9*]+(?:[._-][a-z0-9*]+)*/)*[a-z0-9*]+(?:[._-][a-z0-9*]+)*`

	maxSigningFilters = 100
)

var (
	profileRE       = regexp.MustCompile(`^` + profilePattern + `$`)
	signingFilterRE = regexp.MustCompile(`^` + signingFilterPattern + `$`)
)

// checkSigning holds rules against the members' constraints, which the model tables do not have of operations this new, and refuses profiles that cannot sign.
func (r *Registry) checkSigning(rules []types.SigningRule) error {
	if len(rules) > maxSigningRules {
		return invalidParameter("rules", fmt.Sprintf("there are %d at most, not %d", maxSigningRules, len(rules)))
	}
	for _, rule := range rules {
		profile := value(rule.SigningProfileArn)
		if len(profile) > 200 || !profileRE.MatchString(profile) {
			return invalidParameter("signingProfileArn", "must satisfy regular expression '"+profilePattern+"' and have 200 characters at most")
		}
		if rule.RepositoryFilters != nil && len(rule.RepositoryFilters) == 0 || len(rule.RepositoryFilters) > maxSigningFilters {
			return invalidParameter("repositoryFilters", fmt.Sprintf("a rule has 1 to %d of them, or none is named", maxSigningFilters))
		}
		for _, f := range rule.RepositoryFilters {
			switch {
			case len(value(f.Filter)) > 256 || !signingFilterRE.MatchString(value(f.Filter)):
				return invalidParameter("filter", "must satisfy regular expression '"+signingFilterPattern+"' and have 256 characters at most")
			case f.FilterType != types.SigningRepositoryFilterTypeWildcardMatch:
				return invalidParameter("filterType", "must be WILDCARD_MATCH")
			}
		}
		if _, err := r.signer(profile); err != nil {
			return invalidParameter("signingProfileArn", profile+": "+err.Error())
		}
	}
	return nil
}

// getSigningConfiguration implements ecr:GetSigningConfiguration.
func (r *Registry) getSigningConfiguration(ctx context.Context, _ *ecr.GetSigningConfigurationInput) (*ecr.GetSigningConfigurationOutput, error) {
	c := api.CallFrom(ctx)
	configuration := registryRecord(r.Store.View(), c.Account, c.Region).signing()
	if configuration == nil {
		return nil, signingNotFound(c.Account)
	}
	return &ecr.GetSigningConfigurationOutput{RegistryId: new(c.Account), SigningConfiguration: configuration}, nil
}

// deleteSigningConfiguration implements ecr:DeleteSigningConfiguration. Signatures stay.
func (r *Registry) deleteSigningConfiguration(ctx context.Context, _ *ecr.DeleteSigningConfigurationInput) (*ecr.DeleteSigningConfigurationOutput, error) {
	c := api.CallFrom(ctx)
	var was *types.SigningConfiguration
	err := r.changeRegistry(ctx, c.Account, c.Region, func(s *RegistrySettings) error {
		if was = s.signing(); was == nil {
			return signingNotFound(c.Account)
		}
		s.SigningJson = ""
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeleteSigningConfigurationOutput{RegistryId: new(c.Account), SigningConfiguration: was}, nil
}

// describeImageSigningStatus implements ecr:DescribeImageSigningStatus.
func (r *Registry) describeImageSigningStatus(ctx context.Context, in *ecr.DescribeImageSigningStatusInput) (*ecr.DescribeImageSigningStatusOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	m, err := r.identified(repo, in.ImageId)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribeImageSigningStatusOutput{
		ImageId: new(imageID(m.Digest, value(in.ImageId.ImageTag))), RegistryId: new(repo.Account), RepositoryName: new(repo.Name), SigningStatuses: []types.ImageSigningStatus{},
	}
	for s := range ImageSignings.Scan(r.Store.View(), Manifests.Key(m)) {
		one := types.ImageSigningStatus{SigningProfileArn: new(s.Profile), Status: types.SigningStatus(s.Status)}
		if s.FailureCode != "" {
			one.FailureCode, one.FailureReason = new(s.FailureCode), new(s.FailureReason)
		}
		out.SigningStatuses = append(out.SigningStatuses, one)
	}
	return out, nil
}

// maySign is asked of whoever calls: images are signed with the rights of those who push them.
func (r *Registry) maySign(ctx context.Context, c *api.Call) func(profile string) error {
	return func(profile string) error {
		if r.Authorizer == nil {
			return nil
		}
		call := *c
		call.Service, call.Operation = "signer", "SignPayload"
		return r.Authorizer.Authorize(ctx, &call, api.Access{Action: signPayload, Resources: []string{profile}})
	}
}
