package iam

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// getAccountSummary implements iam:GetAccountSummary.
func (s *Service) getAccountSummary(ctx context.Context, _ *iam.GetAccountSummaryInput) (*iam.GetAccountSummaryOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	of := func(k kind) int32 { return int32(count(Entities.Scan(v, state.K(account, string(k))))) }
	versions, policies := int32(0), int32(0)
	for p := range Managed.Scan(v, state.K(account)) {
		policies++
		versions += int32(len(p.Versions))
	}
	return &iam.GetAccountSummaryOutput{SummaryMap: map[string]int32{
		"Users": of(user), "UsersQuota": maxUsers, "Groups": of(group), "GroupsQuota": maxGroups, "Roles": of(role), "RolesQuota": maxRoles,
		"Policies": policies, "PoliciesQuota": maxPolicies, "PolicyVersionsInUse": versions, "VersionsPerPolicyQuota": maxVersions,
		"InstanceProfiles": int32(count(Profiles.Scan(v, state.K(account)))), "InstanceProfilesQuota": maxProfiles,
		"GroupsPerUserQuota": maxGroupsOfUser, "AccessKeysPerUserQuota": maxKeysOfUser, "PolicySizeQuota": maxManagedSize,
		"AttachedPoliciesPerUserQuota": maxAttached, "AttachedPoliciesPerGroupQuota": maxAttached, "AttachedPoliciesPerRoleQuota": maxAttached,
		"UserPolicySizeQuota": int32(maxInlineSize[user]), "GroupPolicySizeQuota": int32(maxInlineSize[group]),
		"RolePolicySizeQuota": int32(maxInlineSize[role]), "AssumeRolePolicySizeQuota": maxTrustSize,
		"MFADevices": 0, "MFADevicesInUse": 0, "AccountMFAEnabled": 0, "AccountAccessKeysPresent": 1, "Providers": 0,
		"ServerCertificates": 0, "AccountSigningCertificatesPresent": 0,
	}}, nil
}

// detail is one thing of an account, by a key of its own among all of them.
type detail struct {
	key    string
	entity *Entity
	policy *ManagedPolicy
}

// getAccountAuthorizationDetails implements iam:GetAccountAuthorizationDetails.
func (s *Service) getAccountAuthorizationDetails(ctx context.Context, in *iam.GetAccountAuthorizationDetailsInput) (*iam.GetAccountAuthorizationDetailsOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	wanted := func(t types.EntityType) bool { return len(in.Filter) == 0 || slices.Contains(in.Filter, t) }
	scan := func(after string) iter.Seq[detail] {
		var all []detail
		for e := range Entities.Scan(v, state.K(account)) {
			if wanted(types.EntityType(titles[kind(e.Kind)])) {
				all = append(all, detail{key: e.ARN(), entity: e})
			}
		}
		if wanted(types.EntityTypeLocalManagedPolicy) {
			for p := range Managed.Scan(v, state.K(account)) {
				all = append(all, detail{key: p.ARN(), policy: p})
			}
		}
		if wanted(types.EntityTypeAWSManagedPolicy) {
			for a, p := range awsManaged {
				if count(EntitiesByPolicy.Scan(v, state.K(account, a))) > 0 || len(in.Filter) > 0 {
					all = append(all, detail{key: a, policy: p})
				}
			}
		}
		slices.SortFunc(all, func(a, b detail) int { return strings.Compare(a.key, b.key) })
		return filter(slices.Values(all), func(d detail) bool { return d.key > after })
	}
	found, marker, more, err := page(ctx, s, in, in.MaxItems, scan, func(d detail) string { return d.key })
	if err != nil {
		return nil, err
	}
	out := &iam.GetAccountAuthorizationDetailsOutput{Marker: marker, IsTruncated: more, UserDetailList: []types.UserDetail{},
		GroupDetailList: []types.GroupDetail{}, RoleDetailList: []types.RoleDetail{}, Policies: []types.ManagedPolicyDetail{}}
	for _, d := range found {
		describe(v, account, d, out)
	}
	return out, nil
}

func describe(v state.Reader, account string, d detail, out *iam.GetAccountAuthorizationDetailsOutput) {
	if p := d.policy; p != nil {
		shape := policyShape(v, account, p)
		out.Policies = append(out.Policies, types.ManagedPolicyDetail{Arn: shape.Arn, PolicyName: shape.PolicyName, PolicyId: shape.PolicyId, Path: shape.Path,
			Description: optional(p.Description), DefaultVersionId: shape.DefaultVersionId, AttachmentCount: shape.AttachmentCount,
			PermissionsBoundaryUsageCount: shape.PermissionsBoundaryUsageCount, IsAttachable: true, CreateDate: shape.CreateDate, UpdateDate: shape.UpdateDate,
			PolicyVersionList: list(p.Versions, func(v *PolicyVersion) types.PolicyVersion {
				one := p.versionShape(v)
				one.Document = new(urlEncode(v.Document))
				return one
			})})
		return
	}
	e := d.entity
	inline := list(slices.Sorted(maps.Keys(e.Policies)), func(name string) types.PolicyDetail {
		return types.PolicyDetail{PolicyName: &name, PolicyDocument: new(urlEncode(e.Policies[name]))}
	})
	attached := list(slices.Sorted(slices.Values(e.Attached)), attachedShape)
	tags := tagList(controlplane.TagsOf(v, scopeOf(account), e.ARN()))
	switch kind(e.Kind) {
	case user:
		groups := []string{}
		for _, id := range e.Groups {
			if g, ok := byID(v, account, id); ok {
				groups = append(groups, g.Name)
			}
		}
		u := userShape(e)
		out.UserDetailList = append(out.UserDetailList, types.UserDetail{Arn: u.Arn, CreateDate: u.CreateDate, Path: u.Path, UserId: u.UserId, UserName: u.UserName,
			GroupList: groups, UserPolicyList: inline, AttachedManagedPolicies: attached, PermissionsBoundary: e.boundaryShape(), Tags: tags})
	case group:
		g := groupShape(e)
		out.GroupDetailList = append(out.GroupDetailList, types.GroupDetail{Arn: g.Arn, CreateDate: g.CreateDate, Path: g.Path, GroupId: g.GroupId, GroupName: g.GroupName,
			GroupPolicyList: inline, AttachedManagedPolicies: attached})
	case role:
		r := roleShape(e)
		profiles := slices.Collect(ProfilesByRole.Scan(v, state.K(account, e.Id)))
		out.RoleDetailList = append(out.RoleDetailList, types.RoleDetail{Arn: r.Arn, CreateDate: r.CreateDate, Path: r.Path, RoleId: r.RoleId, RoleName: r.RoleName,
			AssumeRolePolicyDocument: r.AssumeRolePolicyDocument, RolePolicyList: inline, AttachedManagedPolicies: attached, PermissionsBoundary: e.boundaryShape(),
			InstanceProfileList: list(profiles, profileShape(v)), Tags: tags})
	}
}
