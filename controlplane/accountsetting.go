package controlplane

import (
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// SettingDualStackIPv6 is ECS's, which the SDK does not list.
const SettingDualStackIPv6 types.SettingName = "dualStackIPv6"

// chosenSetting is what the root user has chosen, which holds for the account; ok is false when it has not.
func chosenSetting(r state.Reader, scope Scope, name types.SettingName) (value string, ok bool) {
	chosen, ok := AccountSettings.Get(r, scope.Key(arn.New("iam", "", scope.Account, "root").String(), string(name)))
	return chosen.GetValue(), ok
}

// DualStack says whether tasks of the account get IPv6 addresses, on hosts that have IPv6. Without a choice they do, as on AWS in a VPC with a block of
// them, which the default VPC has here.
func DualStack(r state.Reader, scope Scope) bool {
	value, chosen := chosenSetting(r, scope, SettingDualStackIPv6)
	return !chosen || value == "enabled" || value == "on"
}
