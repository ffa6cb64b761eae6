package agent

import (
	"net/netip"
	"testing"
)

func TestOwner(t *testing.T) {
	a := &Agent{}
	a.owners.set("10.0.0.2", owner{"t1", "111111111111", "us-east-1"})
	a.owners.set("", owner{"t2", "222222222222", "us-east-1"}) // network mode host
	at := netip.MustParseAddr("10.0.0.2")
	if account, region, ok := a.Owner(at); !ok || account != "111111111111" || region != "us-east-1" {
		t.Errorf("owner %s %s %v", account, region, ok)
	}
	a.owners.set("10.0.0.2", owner{"t3", "333333333333", "us-east-1"})
	a.owners.remove("t1") // late: the address is another task's by now
	if account, _, _ := a.Owner(at); account != "333333333333" {
		t.Errorf("owner %s after the earlier task went", account)
	}
	a.owners.remove("t3")
	if _, _, ok := a.Owner(at); ok {
		t.Error("the address of no task has an owner")
	}
}
