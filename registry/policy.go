package registry

import (
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Repositories and registries have resource policies. A repository's says who may what with it; a registry's is about all of its
// repositories, also those that are not there yet. Both are kept here; api/auth holds each call against them.

const (
	registryPolicyScope = "REGISTRY_POLICY_SCOPE"

	replicateImage   = "ecr:ReplicateImage" // what a registry asks of another one; no operation
	createRepository = "ecr:CreateRepository"
)

// scopeV1 are the actions that registry policies are about in an account with REGISTRY_POLICY_SCOPE V1; in V2 it is all.
var scopeV1 = []string{replicateImage, "ecr:BatchImportUpstreamImage", createRepository}

// Recovery says of an action that it is one by which root takes back a policy that denies everything.
func Recovery(action string) bool {
	switch strings.Replace(strings.ToLower(action), publicService+":", "ecr:", 1) {
	case "ecr:setrepositorypolicy", "ecr:getrepositorypolicy", "ecr:deleterepositorypolicy":
		return true
	}
	return false
}

// parsePolicy compiles a policy that is of a repository (policy.Own) or a registry (policy.Shared). ECR says only that it is not
// valid; why is ours.
func parsePolicy(kind policy.Kind, region, text string) (*policy.Policy, error) {
	p, err := policy.Parse(kind, text)
	if err != nil {
		return nil, invalidPolicy(kind, err.Error())
	}
	vendor := "ecr"
	if region == publicRegion {
		vendor = publicService
	}
	vendors := p.Vendors()
	if len(vendors) == 0 {
		return nil, invalidPolicy(kind, "There is no statement.")
	}
	for _, v := range vendors {
		if v != vendor && v != "*" {
			return nil, invalidPolicy(kind, "Actions of "+v+" have no place in it.")
		}
	}
	return p, nil
}

func invalidPolicy(kind policy.Kind, why string) error {
	of := "repository"
	if kind == policy.Shared {
		of = "registry"
	}
	return awserr.New("InvalidParameterException", "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid %s policy provided: %s'", of, why)
}

// pin finds the users and roles that a policy names. As on AWS they must exist, and who is made later under the name of one that
// was deleted is not meant.
func (r *Registry) pin(v state.Reader, kind policy.Kind, p *policy.Policy) (map[string]string, error) {
	if r.Principals == nil {
		return nil, nil
	}
	ids := map[string]string{}
	for _, name := range p.Principals() {
		id, ok := r.Principals(v, name)
		if !ok {
			return nil, invalidPolicy(kind, `Invalid principal in policy: "AWS":"`+name+`"`)
		}
		ids[name] = id
	}
	return ids, nil
}

// ResourcePolicy is what the policies of the repository with this ARN, and of its registry, say about an action together; nil: there
// are none. It answers from memory.
func (r *Registry) ResourcePolicy(action, name string) *policy.Policy {
	a, err := arn.Parse(name)
	if err != nil || a.Service != "ecr" && a.Service != publicService || a.Type() != "repository" {
		return nil
	}
	if a.Service == publicService {
		a.Region = publicRegion
	}
	v := r.Store.View()
	var shared *policy.Policy
	if s, ok := Registries.Get(v, state.K(a.Account, a.Region)); ok {
		shared = r.registryPolicy(s, action)
	}
	// What brings a repository about is not its own policy's business.
	if strings.EqualFold(action, replicateImage) || strings.EqualFold(action, createRepository) {
		return shared
	}
	repo, err := repository(v, a.Account, a.Region, a.Rest())
	if err != nil {
		return shared
	}
	rec, ok := RepositoryPolicies.Get(v, repo.in())
	if !ok {
		return shared
	}
	return policy.Join(shared, r.policies.compiled(RepositoryPolicies.Key(rec), rec, func() *policy.Policy { return r.stored(policy.Own, rec.Region, rec.Text, rec.Principals, name) }))
}

func (r *Registry) registryPolicy(s *RegistrySettings, action string) *policy.Policy {
	if s.PolicyText == "" || s.setting(registryPolicyScope) == "V1" && !slices.ContainsFunc(scopeV1, func(in string) bool { return strings.EqualFold(in, action) }) {
		return nil
	}
	return r.policies.compiled(Registries.Key(s), s, func() *policy.Policy {
		return r.stored(policy.Shared, s.Region, s.PolicyText, s.PolicyPrincipals, "registry "+s.Account+" "+s.Region)
	})
}

// denyAll stands for a policy that cannot be read any more: it may have denied anything.
var denyAll = func() *policy.Policy {
	p, err := policy.Parse(policy.Own, `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Principal":"*","Action":"*"}}`)
	if err != nil {
		panic(err)
	}
	return p
}()

// stored compiles a policy that was checked when it was put. Policies of registries from before they were held against anything may not
// stand that check; they allow nothing more than they did then, which is nothing, and deny everything.
func (r *Registry) stored(kind policy.Kind, region, text string, ids map[string]string, of string) *policy.Policy {
	p, err := parsePolicy(kind, region, text)
	if err != nil {
		r.Log.Error("a policy cannot be read; it denies everything", "of", of, "error", err)
		return denyAll
	}
	return p.Pin(ids)
}

// maxCompiled bounds the cache. What is forgotten is compiled again.
const maxCompiled = 4_000

// policyCache holds compiled policies. One is good for just this version of its record: records never change in place, so the same
// pointer is the same revision.
type policyCache struct {
	mu       sync.RWMutex
	policies map[state.Key]compiledPolicy
}

type compiledPolicy struct {
	record proto.Message
	policy *policy.Policy
}

func (c *policyCache) compiled(key state.Key, record proto.Message, compile func() *policy.Policy) *policy.Policy {
	c.mu.RLock()
	got := c.policies[key]
	c.mu.RUnlock()
	if got.record == record {
		return got.policy
	}
	got = compiledPolicy{record, compile()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.policies == nil || len(c.policies) >= maxCompiled {
		c.policies = map[state.Key]compiledPolicy{}
	}
	c.policies[key] = got
	return got.policy
}
