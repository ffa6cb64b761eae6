package iam

import (
	"reflect"
	"strings"

	"github.com/seed-2f228079/neargate/api"
)

// Operations is the family's table, in alphabetical order. What resource each is on follows from its input: see resources.
func (s *Service) Operations() []api.Operation {
	table := []api.Operation{
		api.Write(s.addRoleToInstanceProfile),
		api.Write(s.addUserToGroup),
		api.Write(s.attachGroupPolicy),
		api.Write(s.attachRolePolicy),
		api.Write(s.attachUserPolicy),
		api.Write(s.createAccessKey, api.Route("POST /users/{userName}/access-keys")),
		api.Write(s.createGroup, api.Route("POST /groups")),
		api.Write(s.createInstanceProfile),
		api.Write(s.createPolicy, api.Route("POST /policies")),
		api.Write(s.createPolicyVersion),
		api.Write(s.createRole, api.Route("POST /roles")),
		api.Write(s.createUser, api.Route("POST /users")),
		api.Write(s.deleteAccessKey, api.Route("DELETE /users/{userName}/access-keys/{accessKeyId}")),
		api.Write(s.deleteGroup, api.Route("DELETE /groups/{groupName}")),
		api.Write(s.deleteGroupPolicy),
		api.Write(s.deleteInstanceProfile),
		api.Write(s.deletePolicy),
		api.Write(s.deletePolicyVersion),
		api.Write(s.deleteRole, api.Route("DELETE /roles/{roleName}")),
		api.Write(s.deleteRolePermissionsBoundary),
		api.Write(s.deleteRolePolicy),
		api.Write(s.deleteUser, api.Route("DELETE /users/{userName}")),
		api.Write(s.deleteUserPermissionsBoundary),
		api.Write(s.deleteUserPolicy),
		api.Write(s.detachGroupPolicy),
		api.Write(s.detachRolePolicy),
		api.Write(s.detachUserPolicy),
		api.Read(s.getAccessKeyLastUsed),
		api.Read(s.getAccountAuthorizationDetails),
		api.Read(s.getAccountSummary),
		api.Read(s.getGroup, api.Route("GET /groups/{groupName}")),
		api.Read(s.getGroupPolicy),
		api.Read(s.getInstanceProfile),
		api.Read(s.getPolicy),
		api.Read(s.getPolicyVersion),
		api.Read(s.getRole, api.Route("GET /roles/{roleName}")),
		api.Read(s.getRolePolicy),
		api.Read(s.getUser, api.Route("GET /users/{userName}")),
		api.Read(s.getUserPolicy),
		api.Read(s.listAccessKeys, api.Route("GET /users/{userName}/access-keys")),
		api.Read(s.listAttachedGroupPolicies),
		api.Read(s.listAttachedRolePolicies),
		api.Read(s.listAttachedUserPolicies),
		api.Read(s.listEntitiesForPolicy),
		api.Read(s.listGroupPolicies),
		api.Read(s.listGroups, api.Route("GET /groups")),
		api.Read(s.listGroupsForUser),
		api.Read(s.listInstanceProfiles),
		api.Read(s.listInstanceProfilesForRole),
		api.Read(s.listPolicies, api.Route("GET /policies")),
		api.Read(s.listPolicyTags),
		api.Read(s.listPolicyVersions),
		api.Read(s.listRolePolicies),
		api.Read(s.listRoles, api.Route("GET /roles")),
		api.Read(s.listRoleTags),
		api.Read(s.listUserPolicies),
		api.Read(s.listUsers, api.Route("GET /users")),
		api.Read(s.listUserTags),
		api.Write(s.putGroupPolicy),
		api.Write(s.putRolePermissionsBoundary),
		api.Write(s.putRolePolicy),
		api.Write(s.putUserPermissionsBoundary),
		api.Write(s.putUserPolicy),
		api.Write(s.removeRoleFromInstanceProfile),
		api.Write(s.removeUserFromGroup),
		api.Write(s.setDefaultPolicyVersion),
		api.Read(s.simulateCustomPolicy),
		api.Read(s.simulatePrincipalPolicy),
		api.Write(s.tagPolicy),
		api.Write(s.tagRole),
		api.Write(s.tagUser),
		api.Write(s.untagPolicy),
		api.Write(s.untagRole),
		api.Write(s.untagUser),
		api.Write(s.updateAccessKey),
		api.Write(s.updateAssumeRolePolicy),
		api.Write(s.updateGroup),
		api.Write(s.updateRole),
		api.Write(s.updateRoleDescription),
		api.Write(s.updateUser),
	}
	for i := range table {
		s.resources(&table[i])
	}
	return table
}

// resources says, by the members of its input, what an operation is on: "Actions, resources, and condition keys for AWS
// Identity and Access Management" of the Service Authorization Reference is that regular.
func (s *Service) resources(o *api.Operation) {
	member := func(name string) func(in any) (string, bool) {
		f, ok := o.In.FieldByName(name)
		if !ok || f.Type != reflect.TypeFor[*string]() {
			return nil
		}
		return func(in any) (string, bool) {
			p := reflect.ValueOf(in).Elem().FieldByIndex(f.Index).Interface().(*string)
			if p == nil {
				return "", false
			}
			return *p, true
		}
	}
	one := func(f func(c *api.Call, in any) string) {
		o.Resources = func(c *api.Call, in any) []string { return []string{f(c, in)} }
	}
	path := member("Path")
	for _, m := range []struct {
		name string
		kind kind
	}{{"InstanceProfileName", "instance-profile"}, {"GroupName", group}, {"RoleName", role}, {"UserName", user}} {
		if get := member(m.name); get != nil && o.Resources == nil {
			one(func(c *api.Call, in any) string {
				name, ok := get(in)
				if !ok {
					return callerARN(c)
				}
				if path != nil { // it is about to be made
					p, _ := path(in)
					return iamARN(c.Account, string(m.kind)+pathOf(&p)+name)
				}
				return s.named(c.Account, m.kind, name)
			})
		}
	}
	arn, name := member("PolicyArn"), member("PolicyName")
	switch {
	case o.Resources != nil:
	case arn != nil:
		one(func(_ *api.Call, in any) string {
			a, _ := arn(in)
			return a
		})
	case o.Name == "CreatePolicy":
		one(func(c *api.Call, in any) string {
			n, _ := name(in)
			p, _ := path(in)
			return iamARN(c.Account, "policy"+pathOf(&p)+n)
		})
	case o.Name == "SimulatePrincipalPolicy":
		source := member("PolicySourceArn")
		one(func(_ *api.Call, in any) string {
			a, _ := source(in)
			return a
		})
	default: // ListUsers is on arn:aws:iam::000000000000:user/, or what PathPrefix says
		prefix := member("PathPrefix")
		if what, ok := listings[o.Name]; ok {
			one(func(c *api.Call, in any) string {
				p, _ := prefix(in)
				return iamARN(c.Account, what+pathOf(&p))
			})
		}
	}
	key := func(name string, get func(c *api.Call, in any) (string, bool)) {
		if o.Keys == nil {
			o.Keys = map[string]func(*api.Call, any) []string{}
		}
		o.Keys[name] = func(c *api.Call, in any) []string {
			if v, ok := get(c, in); ok {
				return []string{v}
			}
			return nil
		}
	}
	if arn != nil && (strings.HasPrefix(o.Name, "Attach") || strings.HasPrefix(o.Name, "Detach")) {
		key("iam:policyarn", func(_ *api.Call, in any) (string, bool) { return arn(in) })
	}
	// The boundary that the request sets, or else the one that its user or role has.
	boundary, k, of := member("PermissionsBoundary"), role, member("RoleName")
	if of == nil {
		k, of = user, member("UserName")
	}
	switch {
	case boundary != nil:
		key("iam:permissionsboundary", func(_ *api.Call, in any) (string, bool) { return boundary(in) })
	case of != nil && o.Mode == api.ModeWrite:
		key("iam:permissionsboundary", func(c *api.Call, in any) (string, bool) {
			n, _ := of(in)
			e, ok := Entities.Get(s.Store.View(), entityKey(c.Account, k, n))
			return e.GetBoundary(), ok && e.Boundary != ""
		})
	}
}

var listings = map[string]string{"ListUsers": "user", "ListGroups": "group", "ListRoles": "role", "ListInstanceProfiles": "instance-profile", "ListPolicies": "policy"}

// named is the ARN of what has this name; of what is not there, the one it would have without a path.
func (s *Service) named(account string, k kind, name string) string {
	v := s.Store.View()
	if k == "instance-profile" {
		if p, err := profile(v, account, &name); err == nil {
			return p.ARN()
		}
	} else if e, err := entity(v, account, k, name); err == nil {
		return e.ARN()
	}
	return iamARN(account, string(k)+"/"+name)
}

// callerARN is the resource of operations that mean their caller when they name nobody.
func callerARN(c *api.Call) string {
	if c.Session != nil && c.Session.Role != "" {
		return c.Session.Role
	}
	return c.ARN
}
