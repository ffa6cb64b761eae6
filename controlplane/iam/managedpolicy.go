package iam

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// managed finds a managed policy by its ARN: a customer's, or one of AWS's.
func managed(r state.Reader, text string) (*ManagedPolicy, bool) {
	if p, ok := awsManaged[text]; ok {
		return p, true
	}
	a, err := arn.Parse(text)
	if err != nil || !strings.Contains(a.Resource, "/") {
		return nil, false
	}
	p, ok := Managed.Get(r, state.K(a.Account, strings.ToLower(nameInARN(text))))
	return p, ok && p.ARN() == text
}

// readable is a managed policy that the account may look at.
func readable(r state.Reader, account string, text *string) (*ManagedPolicy, error) {
	if err := policyARN(text); err != nil {
		return nil, err
	}
	p, ok := managed(r, *text)
	if !ok || p.Account != account && p.Account != "aws" {
		return nil, noSuchPolicy(*text)
	}
	return p, nil
}

// writable is a copy of one that the account may change.
func writable(r state.Reader, account string, text *string) (*ManagedPolicy, error) {
	p, err := readable(r, account, text)
	if err != nil {
		return nil, err
	}
	if p.Account != account {
		return nil, awserr.WithStatus(403, "AccessDenied", "Policy is outside your own account.")
	}
	return proto.CloneOf(p), nil
}

func checkManaged(document *string) error {
	p, err := policy.Parse(policy.Identity, aws.ToString(document))
	switch {
	case err != nil:
		return malformed(err)
	case p.Version != policy.Version2012:
		return malformed(&policy.Error{Message: "Policy document must be version 2012-10-17 or greater."})
	case policy.Size(*document) > maxManagedSize:
		return exceeded("PolicySize", maxManagedSize)
	}
	return nil
}

// policyShape is a policy with how often the account uses it.
func policyShape(r state.Reader, account string, p *ManagedPolicy) types.Policy {
	key := state.K(account, p.ARN())
	return types.Policy{Arn: new(p.ARN()), PolicyName: &p.Name, PolicyId: &p.Id, Path: &p.Path, DefaultVersionId: versionID(p.DefaultVersion),
		AttachmentCount:               new(int32(count(EntitiesByPolicy.Scan(r, key)))),
		PermissionsBoundaryUsageCount: new(int32(count(EntitiesByBoundary.Scan(r, key)))),
		IsAttachable:                  true, CreateDate: new(p.Created.AsTime()), UpdateDate: new(p.Updated.AsTime())}
}

// versionShape is a version without its document.
func (p *ManagedPolicy) versionShape(v *PolicyVersion) types.PolicyVersion {
	return types.PolicyVersion{VersionId: versionID(v.Number), IsDefaultVersion: v.Number == p.DefaultVersion, CreateDate: new(v.Created.AsTime())}
}

// createPolicy implements iam:CreatePolicy.
func (s *Service) createPolicy(ctx context.Context, in *iam.CreatePolicyInput) (*iam.CreatePolicyOutput, error) {
	if err := checkManaged(in.PolicyDocument); err != nil {
		return nil, err
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	c := api.CallFrom(ctx)
	now := timestamppb.New(c.Time)
	p := &ManagedPolicy{Account: c.Account, Name: aws.ToString(in.PolicyName), Path: pathOf(in.Path), Id: uniqueID(s.Rand, prefixPolicy),
		Description: aws.ToString(in.Description), Created: now, Updated: now, DefaultVersion: 1, LastVersion: 1,
		Versions: []*PolicyVersion{{Number: 1, Document: aws.ToString(in.PolicyDocument), Created: now}}}
	out := &iam.CreatePolicyOutput{}
	return answer(out, s.update(ctx, func(tx *state.Tx, account string) error {
		if _, ok := Managed.Get(tx, Managed.Key(p)); ok {
			return awserr.New("EntityAlreadyExists", "A policy called %s already exists. Duplicate names are not allowed.", p.Name)
		}
		if count(Managed.Scan(tx, state.K(account))) >= maxPolicies {
			return exceeded("PoliciesPerAccount", maxPolicies)
		}
		Managed.Put(tx, p)
		controlplane.PutTags(tx, scopeOf(account), p.ARN(), tags)
		shape := policyShape(tx, account, p)
		shape.Description, shape.Tags = optional(p.Description), tagList(tags)
		out.Policy = &shape
		return nil
	}))
}

// getPolicy implements iam:GetPolicy.
func (s *Service) getPolicy(ctx context.Context, in *iam.GetPolicyInput) (*iam.GetPolicyOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	p, err := readable(v, account, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	shape := policyShape(v, account, p)
	shape.Description, shape.Tags = optional(p.Description), tagList(controlplane.TagsOf(v, scopeOf(account), p.ARN()))
	return &iam.GetPolicyOutput{Policy: &shape}, nil
}

// deletePolicy implements iam:DeletePolicy.
func (s *Service) deletePolicy(ctx context.Context, in *iam.DeletePolicyInput) (*iam.DeletePolicyOutput, error) {
	return answer(&iam.DeletePolicyOutput{}, s.update(ctx, func(tx *state.Tx, account string) error {
		p, err := writable(tx, account, in.PolicyArn)
		if err != nil {
			return err
		}
		key := state.K(account, p.ARN())
		switch {
		case count(EntitiesByPolicy.Scan(tx, key)) > 0:
			return awserr.New("DeleteConflict", "Cannot delete a policy attached to entities.")
		case count(EntitiesByBoundary.Scan(tx, key)) > 0:
			return awserr.New("DeleteConflict", "Cannot delete a policy used as a permissions boundary.")
		case len(p.Versions) > 1:
			return awserr.New("DeleteConflict", "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. "+
				"The default version is deleted with the policy.")
		}
		Managed.Delete(tx, Managed.Key(p))
		controlplane.PutTags(tx, scopeOf(account), p.ARN(), nil)
		return nil
	}))
}

// createPolicyVersion implements iam:CreatePolicyVersion.
func (s *Service) createPolicyVersion(ctx context.Context, in *iam.CreatePolicyVersionInput) (*iam.CreatePolicyVersionOutput, error) {
	if err := checkManaged(in.PolicyDocument); err != nil {
		return nil, err
	}
	now := timestamppb.New(api.CallFrom(ctx).Time)
	out := &iam.CreatePolicyVersionOutput{}
	return answer(out, s.changePolicy(ctx, in.PolicyArn, func(p *ManagedPolicy) error {
		if len(p.Versions) >= maxVersions {
			return awserr.New("LimitExceeded", "A managed policy can have up to %d versions. Before you create a new version, you must delete an existing version.", maxVersions)
		}
		p.LastVersion++
		v := &PolicyVersion{Number: p.LastVersion, Document: *in.PolicyDocument, Created: now}
		p.Versions = append(p.Versions, v)
		if in.SetAsDefault {
			p.DefaultVersion = v.Number
		}
		p.Updated = now
		out.PolicyVersion = new(p.versionShape(v))
		return nil
	}))
}

func (s *Service) changePolicy(ctx context.Context, text *string, fn func(*ManagedPolicy) error) error {
	return s.update(ctx, func(tx *state.Tx, account string) error {
		p, err := writable(tx, account, text)
		if err != nil {
			return err
		}
		if err := fn(p); err != nil {
			return err
		}
		Managed.Put(tx, p)
		return nil
	})
}

func (p *ManagedPolicy) find(version *string) (*PolicyVersion, error) {
	if v := p.version(parseVersion(aws.ToString(version))); v != nil {
		return v, nil
	}
	return nil, awserr.New("NoSuchEntity", "Policy %s version %s does not exist or is not attachable.", p.ARN(), aws.ToString(version))
}

// setDefaultPolicyVersion implements iam:SetDefaultPolicyVersion.
func (s *Service) setDefaultPolicyVersion(ctx context.Context, in *iam.SetDefaultPolicyVersionInput) (*iam.SetDefaultPolicyVersionOutput, error) {
	now := timestamppb.New(api.CallFrom(ctx).Time)
	return answer(&iam.SetDefaultPolicyVersionOutput{}, s.changePolicy(ctx, in.PolicyArn, func(p *ManagedPolicy) error {
		v, err := p.find(in.VersionId)
		if err != nil {
			return err
		}
		p.DefaultVersion, p.Updated = v.Number, now
		return nil
	}))
}

// deletePolicyVersion implements iam:DeletePolicyVersion.
func (s *Service) deletePolicyVersion(ctx context.Context, in *iam.DeletePolicyVersionInput) (*iam.DeletePolicyVersionOutput, error) {
	return answer(&iam.DeletePolicyVersionOutput{}, s.changePolicy(ctx, in.PolicyArn, func(p *ManagedPolicy) error {
		v, err := p.find(in.VersionId)
		if err != nil {
			return err
		}
		if v.Number == p.DefaultVersion {
			return awserr.New("DeleteConflict", "Cannot delete the default version of a policy.")
		}
		p.Versions = slices.DeleteFunc(p.Versions, func(o *PolicyVersion) bool { return o == v })
		return nil
	}))
}

// getPolicyVersion implements iam:GetPolicyVersion.
func (s *Service) getPolicyVersion(ctx context.Context, in *iam.GetPolicyVersionInput) (*iam.GetPolicyVersionOutput, error) {
	r, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	p, err := readable(r, account, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	v, err := p.find(in.VersionId)
	if err != nil {
		return nil, err
	}
	shape := p.versionShape(v)
	shape.Document = new(urlEncode(v.Document))
	return &iam.GetPolicyVersionOutput{PolicyVersion: &shape}, nil
}

// listPolicyVersions implements iam:ListPolicyVersions: the newest first.
func (s *Service) listPolicyVersions(ctx context.Context, in *iam.ListPolicyVersionsInput) (*iam.ListPolicyVersionsOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	p, err := readable(v, account, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	newest := slices.Clone(p.Versions)
	slices.Reverse(newest)
	scan := func(after string) iter.Seq[*PolicyVersion] {
		return filter(slices.Values(newest), func(v *PolicyVersion) bool { return after == "" || v.Number < parseVersion(after) })
	}
	versions, marker, more, err := page(ctx, s, in, in.MaxItems, scan, func(v *PolicyVersion) string { return *versionID(v.Number) })
	if err != nil {
		return nil, err
	}
	return &iam.ListPolicyVersionsOutput{Versions: list(versions, p.versionShape), Marker: marker, IsTruncated: more}, nil
}

// listPolicies implements iam:ListPolicies, in the order of ARNs: the account's, then AWS's.
func (s *Service) listPolicies(ctx context.Context, in *iam.ListPoliciesInput) (*iam.ListPoliciesOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	wanted := func(p *ManagedPolicy) bool {
		key := state.K(account, p.ARN())
		used, bounds := count(EntitiesByPolicy.Scan(v, key)), count(EntitiesByBoundary.Scan(v, key))
		switch in.PolicyUsageFilter {
		case types.PolicyUsageTypePermissionsPolicy:
			bounds = 0
		case types.PolicyUsageTypePermissionsBoundary:
			used = 0
		}
		filtered := in.OnlyAttached || in.PolicyUsageFilter != ""
		return strings.HasPrefix(p.Path, aws.ToString(in.PathPrefix)) && (!filtered || used+bounds > 0)
	}
	byARN := func(p *ManagedPolicy) string { return p.ARN() }
	scan := func(after string) iter.Seq[*ManagedPolicy] {
		var all []*ManagedPolicy
		if in.Scope != types.PolicyScopeTypeLocal {
			all = slices.Collect(maps.Values(awsManaged))
		}
		if in.Scope != types.PolicyScopeTypeAws {
			all = slices.AppendSeq(all, Managed.Scan(v, state.K(account)))
		}
		slices.SortFunc(all, func(a, b *ManagedPolicy) int { return strings.Compare(a.ARN(), b.ARN()) })
		return filter(slices.Values(all), func(p *ManagedPolicy) bool { return p.ARN() > after && wanted(p) })
	}
	found, marker, more, err := page(ctx, s, in, in.MaxItems, scan, byARN)
	if err != nil {
		return nil, err
	}
	return &iam.ListPoliciesOutput{Marker: marker, IsTruncated: more, Policies: list(found, func(p *ManagedPolicy) types.Policy { return policyShape(v, account, p) })}, nil
}

// listEntitiesForPolicy implements iam:ListEntitiesForPolicy.
func (s *Service) listEntitiesForPolicy(ctx context.Context, in *iam.ListEntitiesForPolicyInput) (*iam.ListEntitiesForPolicyOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	p, err := readable(v, account, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	key := state.K(account, p.ARN())
	found := map[state.Key]*Entity{}
	add := func(e *Entity) {
		if strings.HasPrefix(e.Path, aws.ToString(in.PathPrefix)) && (in.EntityFilter == "" || string(in.EntityFilter) == titles[kind(e.Kind)]) {
			found[Entities.Key(e)] = e
		}
	}
	if in.PolicyUsageFilter != types.PolicyUsageTypePermissionsBoundary {
		for e := range EntitiesByPolicy.Scan(v, key) {
			add(e)
		}
	}
	if in.PolicyUsageFilter != types.PolicyUsageTypePermissionsPolicy {
		for e := range EntitiesByBoundary.Scan(v, key) {
			add(e)
		}
	}
	keys := slices.Sorted(maps.Keys(found))
	entities, marker, more, err := page(ctx, s, in, in.MaxItems, func(after state.Key) iter.Seq[*Entity] {
		return func(yield func(*Entity) bool) {
			for _, k := range keys {
				if k > after && !yield(found[k]) {
					return
				}
			}
		}
	}, Entities.Key)
	if err != nil {
		return nil, err
	}
	out := &iam.ListEntitiesForPolicyOutput{Marker: marker, IsTruncated: more, PolicyGroups: []types.PolicyGroup{}, PolicyRoles: []types.PolicyRole{}, PolicyUsers: []types.PolicyUser{}}
	for _, e := range entities {
		switch kind(e.Kind) {
		case user:
			out.PolicyUsers = append(out.PolicyUsers, types.PolicyUser{UserId: &e.Id, UserName: &e.Name})
		case group:
			out.PolicyGroups = append(out.PolicyGroups, types.PolicyGroup{GroupId: &e.Id, GroupName: &e.Name})
		case role:
			out.PolicyRoles = append(out.PolicyRoles, types.PolicyRole{RoleId: &e.Id, RoleName: &e.Name})
		}
	}
	return out, nil
}
