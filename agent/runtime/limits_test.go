package runtime

import (
	"slices"
	"testing"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

func TestCapabilities(t *testing.T) {
	all := append(slices.Clone(DefaultCapabilities), "NET_ADMIN", "SYS_ADMIN")
	for _, c := range []struct {
		name string
		spec *agentapi.ContainerSpec
		want []string
	}{
		{"default", &agentapi.ContainerSpec{}, DefaultCapabilities},
		{"privileged", &agentapi.ContainerSpec{Privileged: true, DropCapabilities: []string{"ALL"}}, all},
		{"added", &agentapi.ContainerSpec{AddCapabilities: []string{"NET_ADMIN", "CHOWN"}}, append(slices.Clone(DefaultCapabilities), "NET_ADMIN")},
		{"all dropped, some added", &agentapi.ContainerSpec{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"CHOWN"}}, []string{"CHOWN"}},
		{"all added but some", &agentapi.ContainerSpec{DropCapabilities: []string{"SYS_ADMIN"}, AddCapabilities: []string{"ALL"}}, all[:len(all)-1]},
		{"dropped", &agentapi.ContainerSpec{DropCapabilities: DefaultCapabilities[1:]}, DefaultCapabilities[:1]},
	} {
		if got := Capabilities(c.spec, all); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
	if len(DefaultCapabilities) != 14 {
		t.Error("the default set was changed by its use")
	}
}

func TestHardLimit(t *testing.T) {
	const limits = "Limit                     Soft Limit           Hard Limit           Units     \n" +
		"Max cpu time              unlimited            unlimited            seconds   \n" +
		"Max open files            1024                 20000                files     \n" +
		"Max nice priority         0                    10                   \n"
	for name, want := range map[string]uint64{"cpu": Unlimited, "nofile": 20000, "nice": 10, "nproc": Unlimited} {
		if got := hardLimit(limits, limitLines[name]); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
	if mayRaise("CapEff:\t000001fffeffffff\n") || !mayRaise("CapInh:\t0\nCapEff:\t0000000001000000\n") || mayRaise("") {
		t.Error("CAP_SYS_RESOURCE is read wrongly")
	}
}

// Every ulimit that a definition can name is found in the kernel's list.
func TestLimits(t *testing.T) {
	c := &agentapi.ContainerSpec{}
	for name := range limitLines {
		c.Ulimits = append(c.Ulimits, &agentapi.Ulimit{Name: name, Soft: 7, Hard: -1})
	}
	got, err := Limits(c)
	if err != nil {
		t.Fatal(err)
	}
	for name := range limitLines {
		if l, ok := got[name]; !ok || l[0] > 7 || l[0] > l[1] {
			t.Errorf("%s: %v", name, l)
		}
	}
	if got["nofile"][1] == Unlimited {
		t.Error("nobody can have so many files")
	}
}

func TestSysctlNamespace(t *testing.T) {
	for name, want := range map[string]string{
		"net.core.somaxconn": "network", "kernel.sem": "ipc", "fs.mqueue.msg_max": "ipc",
		"kernel.core_pattern": "", "vm.swappiness": "", "fs.file-max": "", "net./../kernel/core_pattern": "", "": "",
	} {
		if got := SysctlNamespace(name); got != want {
			t.Errorf("%s is of %q", name, got)
		}
	}
}
