package iam

import (
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/seed-2f228079/neargate/api"
)

// What policies are held against, by the members of an operation's input: "Actions, resources, and condition keys for AWS Identity
// and Access Management" of the Service Authorization Reference is that regular.

// member reads the string member of that name of the operation's input; nil when it has none.
func member(o *api.Operation, name string) func(in any) *string {
	f, ok := o.In.FieldByName(name)
	if !ok || f.Type != reflect.TypeFor[*string]() {
		return nil
	}
	return func(in any) *string { return reflect.ValueOf(in).Elem().FieldByIndex(f.Index).Interface().(*string) }
}

// named are the members that name what an operation is on, the first that an input has.
var named = []struct {
	member string
	kind   kind
}{{"InstanceProfileName", "instance-profile"}, {"GroupName", group}, {"RoleName", role}, {"UserName", user}}

// listings are on arn:aws:iam::ACCOUNT:user/, or what PathPrefix says.
var listings = map[string]string{"ListUsers": "user", "ListGroups": "group", "ListRoles": "role", "ListInstanceProfiles": "instance-profile", "ListPolicies": "policy"}

func (s *Service) resources(o *api.Operation) {
	on := func(render func(c *api.Call, in any) string) {
		o.Resources = func(c *api.Call, in any) []string { return []string{render(c, in)} }
	}
	path := member(o, "Path")
	for _, m := range named {
		if name := member(o, m.member); name != nil {
			on(func(c *api.Call, in any) string {
				switch n := name(in); {
				case n == nil:
					return callerARN(c)
				case path != nil: // it is about to be made
					return iamARN(c.Account, string(m.kind)+pathOf(path(in))+*n)
				default:
					return s.arnOf(c.Account, m.kind, *n)
				}
			})
			return
		}
	}
	policy, source, prefix := member(o, "PolicyArn"), member(o, "PolicySourceArn"), member(o, "PathPrefix")
	switch what, listing := listings[o.Name]; {
	case policy != nil:
		on(func(_ *api.Call, in any) string { return aws.ToString(policy(in)) })
	case source != nil:
		on(func(_ *api.Call, in any) string { return aws.ToString(source(in)) })
	case o.Name == "CreatePolicy":
		name := member(o, "PolicyName")
		on(func(c *api.Call, in any) string {
			return iamARN(c.Account, "policy"+pathOf(path(in))+aws.ToString(name(in)))
		})
	case listing:
		on(func(c *api.Call, in any) string { return iamARN(c.Account, what+pathOf(prefix(in))) })
	}
}

// conditionKeys adds iam:PolicyARN and iam:PermissionsBoundary: the boundary that the request sets, or else the one that its user
// or role has.
func (s *Service) conditionKeys(o *api.Operation) {
	key := func(name string, get func(c *api.Call, in any) string) {
		if o.Keys == nil {
			o.Keys = map[string]func(*api.Call, any) []string{}
		}
		o.Keys[name] = func(c *api.Call, in any) []string {
			if v := get(c, in); v != "" {
				return []string{v}
			}
			return nil
		}
	}
	if arn := member(o, "PolicyArn"); arn != nil && (strings.HasPrefix(o.Name, "Attach") || strings.HasPrefix(o.Name, "Detach")) {
		key("iam:policyarn", func(_ *api.Call, in any) string { return aws.ToString(arn(in)) })
	}
	k, of := role, member(o, "RoleName")
	if of == nil {
		k, of = user, member(o, "UserName")
	}
	if boundary := member(o, "PermissionsBoundary"); boundary != nil {
		key("iam:permissionsboundary", func(_ *api.Call, in any) string { return aws.ToString(boundary(in)) })
	} else if of != nil && o.Mode == api.ModeWrite {
		key("iam:permissionsboundary", func(c *api.Call, in any) string {
			e, _ := Entities.Get(s.Store.View(), entityKey(c.Account, k, aws.ToString(of(in))))
			return e.GetBoundary()
		})
	}
}

// arnOf is the ARN of what has this name; of what is not there, the one it would have without a path.
func (s *Service) arnOf(account string, k kind, name string) string {
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
