package iam

import (
	"strings"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// The tables, written by the operations alone. Nobody watches them: authorization reads the local replica.
var (
	Entities   = state.NewTable("iam.entity", func(e *Entity) state.Key { return entityKey(e.Account, kind(e.Kind), e.Name) })
	AccessKeys = state.NewTable("iam.accesskey", func(k *AccessKey) state.Key { return state.K(k.Account, k.Id) })
	Managed    = state.NewTable("iam.policy", func(p *ManagedPolicy) state.Key { return state.K(p.Account, strings.ToLower(p.Name)) })
	Profiles   = state.NewTable("iam.instanceprofile", func(p *InstanceProfile) state.Key { return state.K(p.Account, strings.ToLower(p.Name)) })
)

// Schema is every table of the family.
var Schema = state.Schema{Entities, AccessKeys, Managed, Profiles}

// The indexes.
var (
	// EntitiesByID: account, unique id.
	EntitiesByID = state.NewIndex(Entities, "id", func(e *Entity) []state.Key { return []state.Key{state.K(e.Account, e.Id)} })
	// EntitiesByPolicy: account, ARN of a managed policy.
	EntitiesByPolicy = state.NewIndex(Entities, "policy", func(e *Entity) []state.Key {
		var keys []state.Key
		for _, a := range e.Attached {
			keys = append(keys, state.K(e.Account, a))
		}
		return keys
	})
	// EntitiesByBoundary: account, ARN of a managed policy.
	EntitiesByBoundary = state.NewIndex(Entities, "boundary", func(e *Entity) []state.Key {
		if e.Boundary == "" {
			return nil
		}
		return []state.Key{state.K(e.Account, e.Boundary)}
	})
	// UsersByGroup: account, the group's id.
	UsersByGroup = state.NewIndex(Entities, "group", func(e *Entity) []state.Key {
		var keys []state.Key
		for _, g := range e.Groups {
			keys = append(keys, state.K(e.Account, g))
		}
		return keys
	})
	// AccessKeysByID: id. A signature names a key and no account.
	AccessKeysByID = state.NewIndex(AccessKeys, "id", func(k *AccessKey) []state.Key { return []state.Key{state.K(k.Id)} })
	// AccessKeysByUser: account, the user's id.
	AccessKeysByUser = state.NewIndex(AccessKeys, "user", func(k *AccessKey) []state.Key { return []state.Key{state.K(k.Account, k.UserId)} })
	// ProfilesByRole: account, the role's id.
	ProfilesByRole = state.NewIndex(Profiles, "role", func(p *InstanceProfile) []state.Key {
		if p.RoleId == "" {
			return nil
		}
		return []state.Key{state.K(p.Account, p.RoleId)}
	})
)

// kind of an entity, as ARNs and records have it.
type kind string

const (
	user  kind = "user"
	group kind = "group"
	role  kind = "role"
)

func entityKey(account string, k kind, name string) state.Key {
	return state.K(account, string(k), strings.ToLower(name))
}

func iamARN(account, resource string) string { return arn.New("iam", "", account, resource).String() }

// ARN names the user, group or role.
func (e *Entity) ARN() string { return iamARN(e.Account, e.Kind+e.Path+e.Name) }

// ARN names the policy.
func (p *ManagedPolicy) ARN() string { return iamARN(p.Account, "policy"+p.Path+p.Name) }

// ARN names the instance profile.
func (p *InstanceProfile) ARN() string { return iamARN(p.Account, "instance-profile"+p.Path+p.Name) }

// defaultDocument is the text that is in force.
func (p *ManagedPolicy) defaultDocument() string {
	if v := p.version(p.DefaultVersion); v != nil {
		return v.Document
	}
	return ""
}

func (p *ManagedPolicy) version(n uint32) *PolicyVersion {
	for _, v := range p.Versions {
		if v.Number == n {
			return v
		}
	}
	return nil
}

// byID finds an entity by its unique id.
func byID(r state.Reader, account, id string) (*Entity, bool) {
	for e := range EntitiesByID.Scan(r, state.K(account, id)) {
		return e, true
	}
	return nil, false
}

// byARN finds the user or role that an ARN names, in whatever account.
func byARN(r state.Reader, text string) (*Entity, bool) {
	a, err := arn.Parse(text)
	if err != nil || a.Service != "iam" || a.Type() != string(user) && a.Type() != string(role) {
		return nil, false
	}
	e, ok := Entities.Get(r, entityKey(a.Account, kind(a.Type()), a.Resource[strings.LastIndexByte(a.Resource, '/')+1:]))
	return e, ok && e.ARN() == text
}
