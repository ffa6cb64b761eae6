package controlplane

import (
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// TestDualStack: without a choice tasks have IPv6 addresses, and a choice is the account's in its region.
func TestDualStack(t *testing.T) {
	store := statetest.New(t, Schema...)
	here, elsewhere := Scope{Account: "000000000000", Region: "us-east-1"}, Scope{Account: "000000000000", Region: "eu-west-1"}
	for _, c := range []struct {
		principal, value string
		want             bool
	}{{"", "", true}, {"user/ada", "disabled", true}, {"root", "disabled", false}, {"root", "enabled", true}, {"root", "off", false}, {"root", "on", true}} {
		if _, err := store.Update(t.Context(), func(tx *state.Tx) error {
			if c.value != "" {
				AccountSettings.Put(tx, &AccountSetting{Account: here.Account, Region: here.Region, Principal: "arn:aws:iam::000000000000:" + c.principal,
					Name: "dualStackIPv6", Value: c.value})
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if got := DualStack(store.View(), here); got != c.want || !DualStack(store.View(), elsewhere) {
			t.Errorf("after %s chose %q: %v, want %v", c.principal, c.value, got, c.want)
		}
	}
}
