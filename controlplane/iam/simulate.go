package iam

import (
	"context"
	"iter"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// simulation is what both operations decide: the policies of an entity, further ones, and what the request says of the rest.
type simulation struct {
	policies policy.Policies
	who      policy.Principal
	at       policy.Target
	actions  []string
	arns     []string
	keys     map[string][]string
}

func parseAll(texts []string) (list []*policy.Policy, err error) {
	for _, t := range texts {
		if policy.Size(t) > maxInlineSize[role] { // none that is larger could be attached, and matching costs in its size
			return nil, invalid("The policy has more than %d characters.", maxInlineSize[role])
		}
		p, err := policy.Parse(policy.Identity, t)
		if err != nil {
			return nil, invalid("The policy is not valid: %v", err)
		}
		list = append(list, p)
	}
	return list, nil
}

func newSimulation(actions, arns, boundaries []string, resource, owner *string, context []types.ContextEntry) (*simulation, error) {
	s := &simulation{actions: actions, arns: arns, keys: map[string][]string{}}
	if len(s.arns) == 0 {
		s.arns = []string{"*"}
	}
	for _, a := range actions {
		if vendor, name, ok := strings.Cut(a, ":"); !ok || vendor == "" || name == "" || strings.ContainsAny(a, "*?") {
			return nil, invalid("Invalid Action Name: %s", a)
		}
	}
	var err error
	if boundaries != nil {
		s.policies.Bounded = true
		if s.policies.Boundary, err = parseAll(boundaries); err != nil {
			return nil, err
		}
	}
	if resource != nil {
		if s.at.Policy, err = policy.Parse(policy.Resource, *resource); err != nil {
			return nil, invalid("The resource policy is not valid: %v", err)
		}
	}
	if owner != nil {
		a, err := arn.Parse(*owner)
		if err != nil {
			return nil, invalid("ARN %s is not valid.", *owner)
		}
		s.at.Account = a.Account
	}
	for _, e := range context {
		s.keys[strings.ToLower(aws.ToString(e.ContextKeyName))] = e.ContextKeyValues
	}
	return s, nil
}

// result decides one action on one resource.
func (s *simulation) result(action, resource string) types.EvaluationResult {
	r := &policy.Request{Action: action, Resource: resource, Principal: s.who, Key: func(key string) ([]string, bool) {
		v, ok := s.keys[key]
		return v, ok
	}}
	out := types.EvaluationResult{EvalActionName: &action, EvalResourceName: &resource, MatchedStatements: []types.Statement{}, MissingContextValues: []string{},
		EvalDecision: types.PolicyEvaluationDecisionTypeImplicitDeny}
	d := s.policies.Decide(r, s.at)
	switch {
	case d.Allowed:
		out.EvalDecision = types.PolicyEvaluationDecisionTypeAllowed
	case d.Explicit:
		out.EvalDecision = types.PolicyEvaluationDecisionTypeExplicitDeny
	}
	if s.policies.Bounded {
		out.PermissionsBoundaryDecisionDetail = &types.PermissionsBoundaryDecisionDetail{
			AllowedByPermissionsBoundary: policy.Evaluate(s.policies.Boundary, r) == policy.Allow}
	}
	return out
}

// results are pages of all actions on all resources, in the order of the request.
func (s *Service) results(ctx context.Context, sim *simulation, in any, most *int32) ([]types.EvaluationResult, *string, bool, error) {
	total := len(sim.actions) * len(sim.arns)
	scan := func(after string) iter.Seq[int] {
		return func(yield func(int) bool) {
			first := 0
			if n, err := strconv.Atoi(after); err == nil {
				first = n + 1
			}
			for i := first; i < total && yield(i); i++ {
			}
		}
	}
	numbers, marker, more, err := page(ctx, s, in, most, scan, strconv.Itoa)
	return list(numbers, func(i int) types.EvaluationResult {
		return sim.result(sim.actions[i/len(sim.arns)], sim.arns[i%len(sim.arns)])
	}), marker, more, err
}

// simulateCustomPolicy implements iam:SimulateCustomPolicy. Matched statements and missing context values are not listed.
func (s *Service) simulateCustomPolicy(ctx context.Context, in *iam.SimulateCustomPolicyInput) (*iam.SimulateCustomPolicyOutput, error) {
	sim, err := newSimulation(in.ActionNames, in.ResourceArns, in.PermissionsBoundaryPolicyInputList, in.ResourcePolicy, in.ResourceOwner, in.ContextEntries)
	if err != nil {
		return nil, err
	}
	if sim.policies.Identity, err = parseAll(in.PolicyInputList); err != nil {
		return nil, err
	}
	if in.ResourcePolicy != nil && in.CallerArn == nil {
		return nil, invalid("CallerArn is required when ResourcePolicy is given.")
	}
	if in.CallerArn != nil {
		a, err := arn.Parse(*in.CallerArn)
		if err != nil || a.Type() != string(user) {
			return nil, invalid("ARN %s is not that of a user.", *in.CallerArn)
		}
		sim.who = policy.Principal{Account: a.Account, ARN: *in.CallerArn}
	} else {
		sim.who.Account = api.CallFrom(ctx).Account
	}
	results, marker, more, err := s.results(ctx, sim, in, in.MaxItems)
	return answer(&iam.SimulateCustomPolicyOutput{EvaluationResults: results, Marker: marker, IsTruncated: more}, err)
}

// simulatePrincipalPolicy implements iam:SimulatePrincipalPolicy.
func (s *Service) simulatePrincipalPolicy(ctx context.Context, in *iam.SimulatePrincipalPolicyInput) (*iam.SimulatePrincipalPolicyOutput, error) {
	sim, err := newSimulation(in.ActionNames, in.ResourceArns, in.PermissionsBoundaryPolicyInputList, in.ResourcePolicy, in.ResourceOwner, in.ContextEntries)
	if err != nil {
		return nil, err
	}
	if in.CallerArn != nil && *in.CallerArn != aws.ToString(in.PolicySourceArn) {
		return nil, invalid("A CallerArn other than the PolicySourceArn is not supported.")
	}
	more, err := parseAll(in.PolicyInputList)
	if err != nil {
		return nil, err
	}
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	a, err := arn.Parse(aws.ToString(in.PolicySourceArn))
	if err != nil || a.Service != "iam" || quotas[kind(a.Type())].name == "" {
		return nil, invalid("Invalid Entity Arn: %s does not clearly define entity type and name.", aws.ToString(in.PolicySourceArn))
	}
	e, ok := Entities.Get(v, entityKey(account, kind(a.Type()), nameInARN(a.Resource)))
	if !ok || e.ARN() != *in.PolicySourceArn {
		return nil, noSuch(kind(a.Type()), nameInARN(a.Resource))
	}
	own := s.policiesOf(v, e, nil)
	sim.policies.Identity = append(own.Identity, more...)
	if !sim.policies.Bounded {
		sim.policies.Bounded, sim.policies.Boundary = own.Bounded, own.Boundary
	}
	sim.who = policy.Principal{Account: account, ARN: e.ARN(), ID: e.Id}
	if e.Kind == string(role) {
		sim.who.ARN, sim.who.Role = "", e.ARN()
	}
	results, marker, truncated, err := s.results(ctx, sim, in, in.MaxItems)
	return answer(&iam.SimulatePrincipalPolicyOutput{EvaluationResults: results, Marker: marker, IsTruncated: truncated}, err)
}
