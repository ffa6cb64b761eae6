package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// global are the tables whose keys do not begin with account and region, and why nothing leaks by that.
var global = map[string]string{
	"ecs.node":           "hosts belong to the platform; what accounts see of them are their container instances",
	"elb.address":        "addresses of load balancers are the host's: a claim that two accounts must not both have",
	"peers.usedtoken":    "one-time tokens are the cluster's, not an account's",
	"dispatcher.lineage": "one record: the name of the state's lineage",
	"peers.authorities":  "one record: how far the exchange of the certificate authority has come",
	"peers.serverkey":    "servers are the cluster's: to which of their keys a new authority may be sealed",
	"upgrade.version":    "one record: the version that all servers speak",
}

// worldwide are the tables of services that have no regions: their keys begin with the account alone.
var worldwide = []string{"iam."}

// TestKeysBeginWithAccountAndRegion: a scan below a scope never sees another account or another region.
func TestKeysBeginWithAccountAndRegion(t *testing.T) {
	seen := map[string]bool{}
	for _, table := range schema() {
		key := keyOfRecord(t, table)
		if slices.ContainsFunc(worldwide, func(service string) bool { return strings.HasPrefix(table.Name(), service) }) {
			if !strings.HasPrefix(string(key), string(state.K("ACCOUNT"))) {
				t.Errorf("table %s: key %q of a record does not begin with the account", table.Name(), key)
			}
			continue
		}
		_, known := global[table.Name()]
		seen[table.Name()] = true
		if scoped := strings.HasPrefix(string(key), string(state.K("ACCOUNT", "REGION"))); scoped == known {
			t.Errorf("table %s: key %q of a record; in the list of global tables: %v", table.Name(), key, known)
		}
	}
	for name := range global {
		if !seen[name] {
			t.Errorf("there is no table %s", name)
		}
	}
}

// keyOfRecord is the key of a record of the table that has an account and a region.
func keyOfRecord(t *testing.T, table state.TableInfo) state.Key {
	key := reflect.ValueOf(table).MethodByName("Key")
	record := reflect.New(key.Type().In(0).Elem())
	for i := range record.Elem().NumField() {
		field := record.Elem().Field(i)
		switch name := record.Elem().Type().Field(i).Name; {
		case field.Kind() != reflect.String || !field.CanSet():
		case name == "Account" || name == "Region":
			field.SetString(strings.ToUpper(name))
		default:
			field.SetString("x")
		}
	}
	k, ok := key.Call([]reflect.Value{record})[0].Interface().(state.Key)
	if !ok {
		t.Fatalf("table %s: Key gives no state.Key", table.Name())
	}
	return k
}
