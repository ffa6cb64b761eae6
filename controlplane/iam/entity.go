package iam

import (
	"context"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Users, groups and roles have most of their operations in common; what is common is here, by kind.

// entity finds one by name.
func entity(r state.Reader, account string, k kind, name string) (*Entity, error) {
	if e, ok := Entities.Get(r, entityKey(account, k, name)); ok {
		return e, nil
	}
	return nil, noSuch(k, name)
}

var (
	quotas = map[kind]struct {
		name string
		most int
	}{user: {"UsersPerAccount", maxUsers}, group: {"GroupsPerAccount", maxGroups}, role: {"RolesPerAccount", maxRoles}}
	idPrefixes = map[kind]string{user: prefixUser, group: prefixGroup, role: prefixRole}
)

// create puts a new entity, whose kind, name and what is its kind's own are set.
func (s *Service) create(ctx context.Context, e *Entity, path, boundary *string, given []types.Tag) (map[string]string, error) {
	tags, err := tagSet(given)
	if err != nil {
		return nil, err
	}
	k := kind(e.Kind)
	e.Path, e.Id, e.Created = pathOf(path), uniqueID(s.Rand, idPrefixes[k]), timestamppb.New(api.CallFrom(ctx).Time)
	return tags, s.update(ctx, func(tx *state.Tx, account string) error {
		e.Account = account
		if _, ok := Entities.Get(tx, Entities.Key(e)); ok {
			return exists(titles[k], e.Name)
		}
		if q := quotas[k]; count(Entities.Scan(tx, state.K(account, string(k)))) >= q.most {
			return exceeded(q.name, q.most)
		}
		if err := e.bound(tx, boundary); err != nil {
			return err
		}
		if k == role {
			if err := e.pinTrust(tx); err != nil {
				return err
			}
		}
		Entities.Put(tx, e)
		controlplane.PutTags(tx, scopeOf(account), e.ARN(), tags)
		return nil
	})
}

// change applies fn to a copy of an entity and puts it.
func (s *Service) change(ctx context.Context, k kind, name *string, fn func(tx *state.Tx, e *Entity) error) error {
	return s.update(ctx, func(tx *state.Tx, account string) error {
		old, err := entity(tx, account, k, aws.ToString(name))
		if err != nil {
			return err
		}
		e := proto.CloneOf(old)
		if err := fn(tx, e); err != nil {
			return err
		}
		Entities.Put(tx, e)
		return nil
	})
}

// rename moves an entity to another name or path. What refers to it does so by its id, but for its tags.
func (s *Service) rename(ctx context.Context, k kind, name, newName, newPath *string) error {
	return s.update(ctx, func(tx *state.Tx, account string) error {
		old, err := entity(tx, account, k, aws.ToString(name))
		if err != nil {
			return err
		}
		e := proto.CloneOf(old)
		if newName != nil {
			e.Name = *newName
		}
		if newPath != nil {
			e.Path = *newPath
		}
		if Entities.Key(e) != Entities.Key(old) {
			if _, ok := Entities.Get(tx, Entities.Key(e)); ok {
				return exists(titles[k], e.Name)
			}
			Entities.Delete(tx, Entities.Key(old))
		}
		tags := controlplane.TagsOf(tx, scopeOf(account), old.ARN())
		controlplane.PutTags(tx, scopeOf(account), old.ARN(), nil)
		Entities.Put(tx, e)
		controlplane.PutTags(tx, scopeOf(account), e.ARN(), tags)
		return nil
	})
}

// remove deletes an entity that nothing hangs on.
func (s *Service) remove(ctx context.Context, k kind, name *string, check func(tx *state.Tx, e *Entity) error) error {
	return s.update(ctx, func(tx *state.Tx, account string) error {
		e, err := entity(tx, account, k, aws.ToString(name))
		if err != nil {
			return err
		}
		switch err := check(tx, e); {
		case err != nil:
			return err
		case len(e.Attached) > 0:
			return conflict("detach all policies")
		case len(e.Policies) > 0:
			return conflict("delete policies")
		}
		Entities.Delete(tx, Entities.Key(e))
		controlplane.PutTags(tx, scopeOf(account), e.ARN(), nil)
		return nil
	})
}

// listed yields the entities of a kind below a path, after a key.
func listed(r state.Reader, account string, k kind, path *string, after state.Key) iter.Seq[*Entity] {
	return filter(Entities.ScanFrom(r, state.K(account, string(k)), after), func(e *Entity) bool {
		return strings.HasPrefix(e.Path, aws.ToString(path))
	})
}

func filter[T any](seq iter.Seq[T], keep func(T) bool) iter.Seq[T] {
	return func(yield func(T) bool) {
		for v := range seq {
			if keep(v) && !yield(v) {
				return
			}
		}
	}
}

func count[T any](seq iter.Seq[T]) int {
	n := 0
	for range seq {
		n++
	}
	return n
}

// page is a page of a listing by Marker and MaxItems.
func page[K ~string, T any](ctx context.Context, s *Service, in any, most *int32, scan func(after K) iter.Seq[T], key func(T) K) (items []T, marker *string, truncated bool, err error) {
	items, marker, err = api.Page(ctx, s.Pages, in, api.PageSize(most, 100, 1000), scan, key)
	return items, marker, marker != nil, err
}

// sorted pages through a sorted list of names.
func sorted(list []string) func(after string) iter.Seq[string] {
	return func(after string) iter.Seq[string] {
		return func(yield func(string) bool) {
			for _, v := range list {
				if v > after && !yield(v) {
					return
				}
			}
		}
	}
}

func self(s string) string { return s }

func pathOf(p *string) string {
	if aws.ToString(p) == "" {
		return "/"
	}
	return *p
}

// optional is a member that is absent when nothing was given.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// list makes a list of the SDK's values, which is there even if it is empty.
func list[T, O any](items []T, render func(T) O) []O {
	out := make([]O, len(items))
	for i, v := range items {
		out[i] = render(v)
	}
	return out
}
