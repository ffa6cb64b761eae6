package ecs

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

const (
	rootARN = "arn:aws:iam::000000000000:root"
	userARN = "arn:aws:iam::000000000000:user/ada"
)

// listed are the settings of a page after the other, as name → value and principal.
func listed(t *testing.T, p *platform, ctx context.Context, in ecs.ListAccountSettingsInput) map[types.SettingName][2]string {
	t.Helper()
	all := map[types.SettingName][2]string{}
	for {
		out, err := p.listAccountSettings(ctx, &in)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range out.Settings {
			all[s.Name] = [2]string{*s.Value, *s.PrincipalArn}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return all
		}
	}
}

func TestAccountSettings(t *testing.T) {
	p := newPlatform(t)
	user := api.WithCall(t.Context(), &api.Call{Identity: api.Identity{Account: here.Account, ARN: userARN}, Region: here.Region, Service: "ecs", Operation: "test", Time: p.now})
	const insights, waiting = types.SettingNameContainerInsights, types.SettingNameFargateTaskRetirementWaitPeriod

	effective := listed(t, p, user, ecs.ListAccountSettingsInput{EffectiveSettings: true, MaxResults: 3})
	if len(effective) != len(types.SettingName("").Values())+1 || effective[insights] != [2]string{"disabled", rootARN} || effective[types.SettingNameTaskLongArnFormat][0] != "enabled" {
		t.Errorf("at first: %v", effective)
	}
	if own := listed(t, p, user, ecs.ListAccountSettingsInput{}); len(own) != 0 {
		t.Errorf("nobody has chosen anything, and yet: %v", own)
	}
	must(p, p.putAccountSettingDefault, &ecs.PutAccountSettingDefaultInput{Name: insights, Value: aws.String("enabled")})
	must(p, p.putAccountSetting, &ecs.PutAccountSettingInput{Name: waiting, Value: aws.String("14"), PrincipalArn: aws.String(userARN)})
	effective = listed(t, p, user, ecs.ListAccountSettingsInput{EffectiveSettings: true})
	if effective[insights] != [2]string{"enabled", rootARN} || effective[waiting] != [2]string{"14", userARN} {
		t.Errorf("for the user: %v", effective)
	}
	if all := listed(t, p, p.ctx(), ecs.ListAccountSettingsInput{EffectiveSettings: true}); all[waiting] != [2]string{"7", rootARN} {
		t.Errorf("for the root user: %v", all)
	}
	if own := listed(t, p, p.ctx(), ecs.ListAccountSettingsInput{}); len(own) != 1 || own[insights][0] != "enabled" {
		t.Errorf("the root user has chosen %v", own)
	}
	if own := listed(t, p, p.ctx(), ecs.ListAccountSettingsInput{Name: insights, Value: aws.String("disabled"), EffectiveSettings: true}); len(own) != 0 {
		t.Errorf("of another value: %v", own)
	}
	if out, err := p.deleteAccountSetting(user, &ecs.DeleteAccountSettingInput{Name: waiting}); err != nil || *out.Setting.Value != "14" {
		t.Errorf("delete: %+v, %v", out, err)
	}
	if all := listed(t, p, user, ecs.ListAccountSettingsInput{EffectiveSettings: true}); all[waiting] != [2]string{"7", rootARN} {
		t.Errorf("after its deletion: %v", all)
	}
	// Another account and another region know nothing of it.
	elsewhere := here
	elsewhere.Region = "eu-west-1"
	if own := listed(t, p, p.as(elsewhere), ecs.ListAccountSettingsInput{}); len(own) != 0 {
		t.Errorf("in another region: %v", own)
	}
	_, err := p.putAccountSetting(user, &ecs.PutAccountSettingInput{Name: waiting, Value: aws.String("0"), PrincipalArn: aws.String(rootARN)})
	if e, ok := err.(*awserr.Error); !ok || e.Code != "AccessDeniedException" {
		t.Errorf("a user changes the root user's setting: %v", err)
	}
}

// A role's sessions have its settings, whichever of them chose.
func TestAccountSettingsOfRoles(t *testing.T) {
	p := newPlatform(t)
	role := "arn:aws:iam::" + here.Account + ":role/deployer"
	session := func(name string) context.Context {
		return api.WithCall(t.Context(), &api.Call{Identity: api.Identity{Account: here.Account, ARN: "arn:aws:sts::" + here.Account + ":assumed-role/deployer/" + name,
			Session: &api.Session{Role: role, Name: name}}, Region: here.Region, Service: "ecs", Operation: "test", Time: p.now})
	}
	const insights = types.SettingNameContainerInsights
	out, err := p.putAccountSetting(session("one"), &ecs.PutAccountSettingInput{Name: insights, Value: aws.String("enabled")})
	if err != nil || *out.Setting.PrincipalArn != role {
		t.Fatalf("%+v, %v", out, err)
	}
	if got := listed(t, p, session("two"), ecs.ListAccountSettingsInput{}); got[insights] != [2]string{"enabled", role} {
		t.Errorf("another session has %v", got)
	}
}

// Every setting that ECS has is known here.
func TestSettingsAreECSs(t *testing.T) {
	for _, name := range types.SettingName("").Values() {
		if _, err := settingNamed(name); err != nil {
			t.Error(err)
		}
	}
}
