package ecs

import (
	"context"
	"iter"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// setting is what can be chosen under a name, and what holds when nobody has.
type setting struct {
	name   types.SettingName
	value  string
	choice []string // empty: AWS's to choose
}

var (
	onOff = []string{"enabled", "disabled", "on", "off"}
	// Identifiers have the long form here and no other.
	longForm = []string{"enabled", "on"}
)

// settings are ECS's, by name. Of those that have a choice only the ARN formats and, as the root user's, the
// mode of log drivers and the tasks' IPv6 addresses matter to this platform; the others are kept and shown: there
// are no network interfaces to trunk, no FIPS endpoints, no Container Insights yet, and no maintenance that retires tasks.
var settings = []setting{
	{types.SettingNameAwsvpcTrunking, "disabled", onOff},
	{types.SettingNameContainerInsights, "disabled", append([]string{"enhanced"}, onOff...)},
	{types.SettingNameContainerInstanceLongArnFormat, "enabled", longForm},
	{types.SettingNameDefaultLogDriverMode, "non-blocking", []string{"blocking", "non-blocking"}},
	{controlplane.SettingDualStackIPv6, "enabled", onOff},
	{types.SettingNameFargateEventWindows, "disabled", onOff},
	{types.SettingNameFargateFipsMode, "disabled", onOff},
	{types.SettingNameFargateTaskRetirementWaitPeriod, "7", []string{"0", "7", "14"}},
	{types.SettingNameGuardDutyActivate, "off", nil},
	{types.SettingNameServiceLongArnFormat, "enabled", longForm},
	{types.SettingNameTagResourceAuthorization, "on", onOff},
	{types.SettingNameTaskLongArnFormat, "enabled", longForm},
}

func settingNamed(name types.SettingName) (setting, error) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
	if i < 0 {
		return setting{}, invalid("Invalid setting name: %s.", name)
	}
	return settings[i], nil
}

func rootOf(account string) string { return arn.New("iam", "", account, "root").String() }

// settingPrincipal is whose settings a request is about: its own, unless the root user names somebody.
func settingPrincipal(ctx context.Context, ref *string) (string, error) {
	caller := api.CallFrom(ctx).Identity
	own := caller.ARN
	if caller.Session != nil && caller.Session.Role != "" {
		own = caller.Session.Role // all sessions of a role have its settings
	}
	principal := aws.ToString(ref)
	if principal == "" || principal == own || principal == caller.ARN {
		return own, nil
	}
	a, err := arn.Parse(principal)
	switch {
	case err != nil || a.Service != "iam" || a.Account != caller.Account:
		return "", invalid("Invalid principalArn: %s is no principal of account %s.", principal, caller.Account)
	case !caller.Root:
		return "", awserr.New("AccessDeniedException", "Only the root user can manage the account settings of another principal.")
	}
	return principal, nil
}

// putAccountSetting implements ecs:PutAccountSetting.
func (s *Service) putAccountSetting(ctx context.Context, in *ecs.PutAccountSettingInput) (*ecs.PutAccountSettingOutput, error) {
	principal, err := settingPrincipal(ctx, in.PrincipalArn)
	if err != nil {
		return nil, err
	}
	out := &ecs.PutAccountSettingOutput{}
	out.Setting, err = s.choose(ctx, principal, in.Name, aws.ToString(in.Value))
	return answer(out, err)
}

// putAccountSettingDefault implements ecs:PutAccountSettingDefault: it is the root user's setting.
func (s *Service) putAccountSettingDefault(ctx context.Context, in *ecs.PutAccountSettingDefaultInput) (*ecs.PutAccountSettingDefaultOutput, error) {
	out := &ecs.PutAccountSettingDefaultOutput{}
	var err error
	out.Setting, err = s.choose(ctx, rootOf(api.CallFrom(ctx).Account), in.Name, aws.ToString(in.Value))
	return answer(out, err)
}

func (s *Service) choose(ctx context.Context, principal string, name types.SettingName, value string) (*types.Setting, error) {
	known, err := settingNamed(name)
	switch {
	case err != nil:
		return nil, err
	case len(known.choice) == 0:
		return nil, invalid("The setting %s is managed by AWS and can not be changed.", name)
	case !slices.Contains(known.choice, value):
		return nil, invalid("Invalid value '%s' of the setting %s: it should be one of %v.", value, name, known.choice)
	}
	var shown *types.Setting
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		kept := &controlplane.AccountSetting{Account: scope.Account, Region: scope.Region, Principal: principal, Name: string(name), Value: value}
		controlplane.AccountSettings.Put(tx, kept)
		shown = settingShape(known, principal, value)
		return nil
	})
	return shown, err
}

// deleteAccountSetting implements ecs:DeleteAccountSetting. What was not chosen is no error.
func (s *Service) deleteAccountSetting(ctx context.Context, in *ecs.DeleteAccountSettingInput) (*ecs.DeleteAccountSettingOutput, error) {
	principal, err := settingPrincipal(ctx, in.PrincipalArn)
	if err != nil {
		return nil, err
	}
	known, err := settingNamed(in.Name)
	if err != nil {
		return nil, err
	}
	out := &ecs.DeleteAccountSettingOutput{}
	return answer(out, s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		key := scope.Key(principal, string(in.Name))
		old, ok := controlplane.AccountSettings.Get(tx, key)
		if ok {
			controlplane.AccountSettings.Delete(tx, key)
		}
		out.Setting = settingShape(known, principal, old.GetValue())
		return nil
	}))
}

// listAccountSettings implements ecs:ListAccountSettings: what the principal chose or, asked for what is effective, what holds for it.
func (s *Service) listAccountSettings(ctx context.Context, in *ecs.ListAccountSettingsInput) (*ecs.ListAccountSettingsOutput, error) {
	var asked *int32
	if in.MaxResults != 0 { // the SDK's type does not tell 0 from nothing
		asked = &in.MaxResults
	}
	size, err := pageSize(asked, 10, 10)
	if err != nil {
		return nil, err
	}
	principal, err := settingPrincipal(ctx, in.PrincipalArn)
	if err != nil {
		return nil, err
	}
	if in.Value != nil && in.Name == "" {
		return nil, invalid("name is required when value is given.")
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	all := func(yield func(types.Setting) bool) {
		for _, known := range settings {
			shown := chosen(v, scope, principal, known, in.EffectiveSettings)
			if shown == nil || in.Name != "" && in.Name != known.name || in.Value != nil && *in.Value != *shown.Value {
				continue
			}
			if !yield(*shown) {
				return
			}
		}
	}
	key := func(s types.Setting) state.Key { return state.K(string(s.Name)) }
	page, next, err := api.Page(ctx, s.Pages, in, size,
		func(last state.Key) iter.Seq[types.Setting] { return after(all, last, key) }, key)
	if err != nil {
		return nil, err
	}
	return &ecs.ListAccountSettingsOutput{Settings: append([]types.Setting{}, page...), NextToken: next}, nil
}

// chosen is a principal's own choice or, if effective is asked for, else the root user's, else the default; nil: there is none to show.
func chosen(r state.Reader, scope controlplane.Scope, principal string, known setting, effective bool) *types.Setting {
	for _, who := range []string{principal, rootOf(scope.Account)} {
		if kept, ok := controlplane.AccountSettings.Get(r, scope.Key(who, string(known.name))); ok {
			return settingShape(known, who, kept.Value)
		}
		if !effective {
			return nil
		}
	}
	return settingShape(known, rootOf(scope.Account), known.value)
}

func settingShape(known setting, principal, value string) *types.Setting {
	kind := types.SettingTypeUser
	if len(known.choice) == 0 {
		kind = types.SettingTypeAwsManaged
	}
	return &types.Setting{Name: known.name, Value: optional(value), PrincipalArn: &principal, Type: kind}
}
