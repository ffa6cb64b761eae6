package registry

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Account settings, of an account in a region. The first value is the default.
const blobMounting = "BLOB_MOUNTING"

var accountSettings = map[string][]string{
	"BASIC_SCAN_TYPE_VERSION": {"AWS_NATIVE"},
	blobMounting:              {"ENABLED", "DISABLED"},
	registryPolicyScope:       {"V2", "V1"},
}

// registryRecord is the settings of an account's registry; an empty record where nothing was ever set.
func registryRecord(v state.Reader, account, region string) *RegistrySettings {
	if r, ok := Registries.Get(v, state.K(account, region)); ok {
		return r
	}
	return &RegistrySettings{Account: account, Region: region}
}

// changeRegistry lets f change a copy of the registry's settings.
func (r *Registry) changeRegistry(ctx context.Context, account, region string, f func(*RegistrySettings) error) error {
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		s := proto.CloneOf(registryRecord(tx, account, region))
		if err := f(s); err != nil {
			return err
		}
		Registries.Put(tx, s)
		return nil
	})
	return err
}

// setting is an account setting's value.
func (s *RegistrySettings) setting(name string) string {
	if v := s.AccountSettings[name]; v != "" {
		return v
	}
	return accountSettings[name][0]
}

func checkSetting(name string) error {
	if accountSettings[name] == nil {
		return awserr.New("InvalidParameterException", "Invalid parameter at 'name' failed to satisfy constraint: 'must be one of %s'", strings.Join(slices.Sorted(maps.Keys(accountSettings)), ", "))
	}
	return nil
}

// getAccountSetting implements ecr:GetAccountSetting.
func (r *Registry) getAccountSetting(ctx context.Context, in *ecr.GetAccountSettingInput) (*ecr.GetAccountSettingOutput, error) {
	name := value(in.Name)
	if err := checkSetting(name); err != nil {
		return nil, err
	}
	c := api.CallFrom(ctx)
	return &ecr.GetAccountSettingOutput{Name: in.Name, Value: new(registryRecord(r.Store.View(), c.Account, c.Region).setting(name))}, nil
}

// putAccountSetting implements ecr:PutAccountSetting.
func (r *Registry) putAccountSetting(ctx context.Context, in *ecr.PutAccountSettingInput) (*ecr.PutAccountSettingOutput, error) {
	name := value(in.Name)
	if err := checkSetting(name); err != nil {
		return nil, err
	}
	if !slices.Contains(accountSettings[name], value(in.Value)) {
		return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'value' failed to satisfy constraint: '%s must be one of %s'", name, strings.Join(accountSettings[name], ", "))
	}
	c := api.CallFrom(ctx)
	err := r.changeRegistry(ctx, c.Account, c.Region, func(s *RegistrySettings) error {
		if s.AccountSettings == nil {
			s.AccountSettings = map[string]string{}
		}
		s.AccountSettings[name] = *in.Value
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutAccountSettingOutput{Name: in.Name, Value: in.Value}, nil
}

// maxPullTimeExclusions is how many principals may be excluded in an account and region.
const maxPullTimeExclusions = 100

// registerPullTimeUpdateExclusion implements ecr:RegisterPullTimeUpdateExclusion.
func (r *Registry) registerPullTimeUpdateExclusion(ctx context.Context, in *ecr.RegisterPullTimeUpdateExclusionInput) (*ecr.RegisterPullTimeUpdateExclusionOutput, error) {
	c, principal := api.CallFrom(ctx), value(in.PrincipalArn)
	now := r.Clock.Now()
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		n := 0
		for e := range PullTimeExclusions.Scan(tx, state.K(c.Account, c.Region)) {
			if n++; e.Principal == principal {
				return awserr.New("ExclusionAlreadyExistsException", "The pull time update exclusion with principal ARN '%s' already exists in the registry with id '%s'", principal, c.Account)
			}
		}
		if n >= maxPullTimeExclusions {
			return awserr.New("LimitExceededException", "The registry with id '%s' has %d pull time update exclusions already, which is the limit", c.Account, n)
		}
		PullTimeExclusions.Put(tx, &PullTimeExclusion{Account: c.Account, Region: c.Region, Principal: principal, Created: timestamppb.New(now)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.RegisterPullTimeUpdateExclusionOutput{CreatedAt: &now, PrincipalArn: in.PrincipalArn}, nil
}

// deregisterPullTimeUpdateExclusion implements ecr:DeregisterPullTimeUpdateExclusion.
func (r *Registry) deregisterPullTimeUpdateExclusion(ctx context.Context, in *ecr.DeregisterPullTimeUpdateExclusionInput) (*ecr.DeregisterPullTimeUpdateExclusionOutput, error) {
	c, principal := api.CallFrom(ctx), value(in.PrincipalArn)
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		key := state.K(c.Account, c.Region, principal)
		if _, ok := PullTimeExclusions.Get(tx, key); !ok {
			return awserr.New("ExclusionNotFoundException", "The pull time update exclusion with principal ARN '%s' does not exist in the registry with id '%s'", principal, c.Account)
		}
		PullTimeExclusions.Delete(tx, key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeregisterPullTimeUpdateExclusionOutput{PrincipalArn: in.PrincipalArn}, nil
}

// listPullTimeUpdateExclusions implements ecr:ListPullTimeUpdateExclusions.
func (r *Registry) listPullTimeUpdateExclusions(ctx context.Context, in *ecr.ListPullTimeUpdateExclusionsInput) (*ecr.ListPullTimeUpdateExclusionsOutput, error) {
	c := api.CallFrom(ctx)
	prefix := state.K(c.Account, c.Region)
	page, next, err := api.Page(ctx, r.pages, in, api.PageSize(in.MaxResults, 100, 100), func(after state.Key) iter.Seq[*PullTimeExclusion] {
		return PullTimeExclusions.ScanFrom(r.Store.View(), prefix, max(after, prefix))
	}, PullTimeExclusions.Key)
	if err != nil {
		return nil, err
	}
	out := &ecr.ListPullTimeUpdateExclusionsOutput{NextToken: next, PullTimeUpdateExclusions: []string{}}
	for _, e := range page {
		out.PullTimeUpdateExclusions = append(out.PullTimeUpdateExclusions, e.Principal)
	}
	return out, nil
}

// notePull remembers that an image was pulled, unless who pulled it is excluded from that.
func (r *Registry) notePull(v state.Reader, m *Manifest, by string) {
	if _, excluded := PullTimeExclusions.Get(v, state.K(m.Account, m.Region, by)); excluded {
		return
	}
	if role, ok := assumedRole(by); ok {
		for e := range PullTimeExclusions.Scan(v, state.K(m.Account, m.Region)) {
			account, name, _ := strings.Cut(strings.TrimPrefix(e.Principal, "arn:aws:iam::"), ":role/")
			if role == account+" "+name[strings.LastIndexByte(name, '/')+1:] {
				return
			}
		}
	}
	r.pulls.note(Manifests.Key(m), r.Clock.Now())
}

// assumedRole takes account and role's name from the ARN of a role's session, which does not have the role's path.
func assumedRole(arn string) (string, bool) {
	rest, ok := strings.CutPrefix(arn, "arn:aws:sts::")
	account, session, is := strings.Cut(rest, ":assumed-role/")
	role, _, _ := strings.Cut(session, "/")
	return account + " " + role, ok && is
}
