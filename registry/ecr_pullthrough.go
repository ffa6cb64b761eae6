package registry

import (
	"context"
	"errors"
	"iter"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// maxPullThroughRules is how many pull through cache rules a registry has at most.
const maxPullThroughRules = 50

func ruleNotFound(account, prefix string) error {
	return awserr.New("PullThroughCacheRuleNotFoundException", "A pull through cache rule with prefix '%s' does not exist in the registry with id '%s'", prefix, account)
}

// wellKnown says which registry a host is. Any other can be an upstream here too.
var wellKnown = map[string]types.UpstreamRegistry{
	"public.ecr.aws": types.UpstreamRegistryEcrPublic, "registry-1.docker.io": types.UpstreamRegistryDockerHub, "ghcr.io": types.UpstreamRegistryGitHubContainerRegistry,
	"registry.gitlab.com": types.UpstreamRegistryGitLabContainerRegistry, "registry.k8s.io": types.UpstreamRegistryK8s, "quay.io": types.UpstreamRegistryQuay,
}

var upstreamRE = regexp.MustCompile(`^([a-zA-Z0-9][a-zA-Z0-9.-]*|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`)

// upstreamHost reads an upstreamRegistryUrl, which is a host, with or without a scheme before it.
func upstreamHost(s string) (string, error) {
	host := strings.TrimSuffix(s, "/")
	if u, err := url.Parse(host); err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Path == "" {
		host = u.Host
	}
	if !upstreamRE.MatchString(host) {
		return "", awserr.New("InvalidParameterException", "Invalid parameter at 'upstreamRegistryUrl' failed to satisfy constraint: 'must be the host of a registry, with its port where that is not 443, not %q'", s)
	}
	return host, nil
}

// noUpstreamSecrets refuses by name what would need a store of secrets or roles to assume.
func noUpstreamSecrets(credential, role *string) error {
	switch {
	case value(credential) != "":
		return awserr.WithStatus(501, "NotImplemented", "credentialArn is not implemented: there is no store of secrets. Upstreams are asked anonymously, but for the clusters of --remote-regions.")
	case value(role) != "":
		return awserr.WithStatus(501, "NotImplemented", "customRoleArn is not implemented: ECR upstreams are asked as what --remote-regions says of them.")
	}
	return nil
}

// createPullThroughCacheRule implements ecr:CreatePullThroughCacheRule.
func (r *Registry) createPullThroughCacheRule(ctx context.Context, in *ecr.CreatePullThroughCacheRuleInput) (*ecr.CreatePullThroughCacheRuleOutput, error) {
	account, region, err := ownRegistry(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	if err := noUpstreamSecrets(in.CredentialArn, in.CustomRoleArn); err != nil {
		return nil, err
	}
	host, err := upstreamHost(value(in.UpstreamRegistryUrl))
	if err != nil {
		return nil, err
	}
	kind := wellKnown[host]
	if in.UpstreamRegistry != "" {
		kind = in.UpstreamRegistry
	}
	now := timestamppb.New(r.Clock.Now())
	rule := &PullThroughRule{Account: account, Region: region, Prefix: normalPrefix(value(in.EcrRepositoryPrefix)), Upstream: host, Kind: string(kind),
		UpstreamPrefix: normalPrefix(value(in.UpstreamRepositoryPrefix)), Created: now, Updated: now}
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		n := 0
		for other := range PullThroughRules.Scan(tx, state.K(account, region)) {
			if n++; other.Prefix == rule.Prefix {
				return awserr.New("PullThroughCacheRuleAlreadyExistsException", "A pull through cache rule with prefix '%s' already exists in the registry with id '%s'", rule.Prefix, account)
			}
		}
		if n >= maxPullThroughRules {
			return awserr.New("LimitExceededException", "The registry with id '%s' has %d pull through cache rules already, which is the limit", account, n)
		}
		PullThroughRules.Put(tx, rule)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.CreatePullThroughCacheRuleOutput{
		CreatedAt: optionalTime(now), EcrRepositoryPrefix: &rule.Prefix, RegistryId: &account, UpstreamRegistry: kind, UpstreamRegistryUrl: &host, UpstreamRepositoryPrefix: in.UpstreamRepositoryPrefix,
	}, nil
}

// updatePullThroughCacheRule implements ecr:UpdatePullThroughCacheRule, which changes nothing but credentials: refused by name.
func (r *Registry) updatePullThroughCacheRule(ctx context.Context, in *ecr.UpdatePullThroughCacheRuleInput) (*ecr.UpdatePullThroughCacheRuleOutput, error) {
	account, region, err := ownRegistry(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	if err := noUpstreamSecrets(in.CredentialArn, in.CustomRoleArn); err != nil {
		return nil, err
	}
	var rule *PullThroughRule
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		old, err := pullThroughRule(tx, account, region, in.EcrRepositoryPrefix)
		if err != nil {
			return err
		}
		rule = proto.CloneOf(old)
		rule.Updated = timestamppb.New(r.Clock.Now())
		PullThroughRules.Put(tx, rule)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.UpdatePullThroughCacheRuleOutput{EcrRepositoryPrefix: &rule.Prefix, RegistryId: &account, UpdatedAt: optionalTime(rule.Updated), UpstreamRepositoryPrefix: rule.upstreamPrefix()}, nil
}

func pullThroughRule(v state.Reader, account, region string, prefix *string) (*PullThroughRule, error) {
	p := normalPrefix(value(prefix))
	rule, ok := PullThroughRules.Get(v, state.K(account, region, p))
	if !ok {
		return nil, ruleNotFound(account, p)
	}
	return rule, nil
}

func (p *PullThroughRule) upstreamPrefix() *string {
	if p.UpstreamPrefix == "" {
		return nil
	}
	return &p.UpstreamPrefix
}

// deletePullThroughCacheRule implements ecr:DeletePullThroughCacheRule. What is cached stays, and is no longer refreshed.
func (r *Registry) deletePullThroughCacheRule(ctx context.Context, in *ecr.DeletePullThroughCacheRuleInput) (*ecr.DeletePullThroughCacheRuleOutput, error) {
	account, region, err := ownRegistry(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	var rule *PullThroughRule
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		if rule, err = pullThroughRule(tx, account, region, in.EcrRepositoryPrefix); err != nil {
			return err
		}
		PullThroughRules.Delete(tx, PullThroughRules.Key(rule))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeletePullThroughCacheRuleOutput{
		CreatedAt: optionalTime(rule.Created), EcrRepositoryPrefix: &rule.Prefix, RegistryId: &account, UpstreamRegistryUrl: &rule.Upstream, UpstreamRepositoryPrefix: rule.upstreamPrefix(),
	}, nil
}

// describePullThroughCacheRules implements ecr:DescribePullThroughCacheRules.
func (r *Registry) describePullThroughCacheRules(ctx context.Context, in *ecr.DescribePullThroughCacheRulesInput) (*ecr.DescribePullThroughCacheRulesOutput, error) {
	account, region, err := ownRegistry(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	v := r.Store.View()
	var wanted []string
	for _, p := range in.EcrRepositoryPrefixes {
		rule, err := pullThroughRule(v, account, region, &p)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, rule.Prefix)
	}
	prefix := state.K(account, region)
	page, next, err := api.Page(ctx, r.pages, in, api.PageSize(in.MaxResults, pageFallback, pageMost), func(after state.Key) iter.Seq[*PullThroughRule] {
		return func(yield func(*PullThroughRule) bool) {
			for rule := range PullThroughRules.ScanFrom(v, prefix, max(after, prefix)) {
				if (wanted == nil || slices.Contains(wanted, rule.Prefix)) && !yield(rule) {
					return
				}
			}
		}
	}, PullThroughRules.Key)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribePullThroughCacheRulesOutput{NextToken: next, PullThroughCacheRules: []types.PullThroughCacheRule{}}
	for _, rule := range page {
		out.PullThroughCacheRules = append(out.PullThroughCacheRules, types.PullThroughCacheRule{
			CreatedAt: optionalTime(rule.Created), EcrRepositoryPrefix: new(rule.Prefix), RegistryId: new(account), UpdatedAt: optionalTime(rule.Updated),
			UpstreamRegistry: types.UpstreamRegistry(rule.Kind), UpstreamRegistryUrl: new(rule.Upstream), UpstreamRepositoryPrefix: rule.upstreamPrefix(),
		})
	}
	return out, nil
}

// validatePullThroughCacheRule implements ecr:ValidatePullThroughCacheRule: it asks the upstream.
func (r *Registry) validatePullThroughCacheRule(ctx context.Context, in *ecr.ValidatePullThroughCacheRuleInput) (*ecr.ValidatePullThroughCacheRuleOutput, error) {
	account, region, err := ownRegistry(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	rule, err := pullThroughRule(r.Store.View(), account, region, in.EcrRepositoryPrefix)
	if err != nil {
		return nil, err
	}
	out := &ecr.ValidatePullThroughCacheRuleOutput{EcrRepositoryPrefix: &rule.Prefix, RegistryId: &account, UpstreamRegistryUrl: &rule.Upstream, UpstreamRepositoryPrefix: rule.upstreamPrefix()}
	cred, err := r.upstreamCredentials(ctx, rule)
	if err == nil {
		err = r.upstreams.client.Ping(ctx, rule.Upstream, cred)
	}
	if errors.Is(err, context.Canceled) {
		return nil, err
	}
	if out.IsValid = err == nil; !out.IsValid {
		out.Failure = new(err.Error())
	}
	return out, nil
}
