package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"open/data", "closed"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"open/out": "closed", "open/in": "open/data", "open/nowhere": "missing"} {
		if err := os.Symlink(filepath.Join(dir, to), filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	p := Policy{HostPaths: []string{filepath.Join(dir, "open")}}
	for path, want := range map[string]bool{
		"open": true, "open/data": true, "open/not/there/yet": true, "open/in": true, "open/in/new": true,
		"closed": false, "open/out": false, "open/out/new": false, "open/nowhere": false, "open/../closed": false, "openx": false, "": false,
	} {
		if got := p.allows(filepath.Join(dir, path)); got != want {
			t.Errorf("%q allowed: %v", path, got)
		}
	}
	if p.allows("open/data") {
		t.Error("a relative path is allowed")
	}
	host := func(v string) *agentapi.TaskSpec {
		return &agentapi.TaskSpec{Volumes: []*agentapi.VolumeSpec{{Name: "v", HostPath: v}}}
	}
	bound := func(device string) *agentapi.TaskSpec {
		return &agentapi.TaskSpec{Volumes: []*agentapi.VolumeSpec{{Name: "v", DriverOptions: map[string]string{"type": "none", "o": "bind", "device": device}}}}
	}
	of := func(c *agentapi.ContainerSpec) *agentapi.TaskSpec {
		return &agentapi.TaskSpec{Containers: []*agentapi.ContainerSpec{c}}
	}
	for _, c := range []struct {
		name   string
		policy Policy
		spec   *agentapi.TaskSpec
		word   string // of the refusal; empty: allowed
	}{
		{"nothing asked", Policy{}, &agentapi.TaskSpec{NetworkMode: "bridge", Volumes: []*agentapi.VolumeSpec{{Name: "own"}}}, ""},
		{"host path by default", Policy{}, host("/etc"), "--allow-host-path"},
		{"host path", p, host(filepath.Join(dir, "open/data")), ""},
		{"volume that is a folder of the host by default", Policy{}, bound("/etc"), "--allow-host-path"},
		{"volume that is a folder of the host", p, bound(filepath.Join(dir, "open/data")), ""},
		{"volume that is a link out of it", p, bound(filepath.Join(dir, "open/out")), "--allow-host-path"},
		{"volume that is a disk", p, &agentapi.TaskSpec{Volumes: []*agentapi.VolumeSpec{{Name: "v", DriverOptions: map[string]string{"type": "ext4", "device": "/dev/sda"}}}}, "not supported"},
		{"volume in memory", Policy{}, &agentapi.TaskSpec{Volumes: []*agentapi.VolumeSpec{{Name: "v", DriverOptions: map[string]string{"type": "tmpfs"}}}}, ""},
		{"volume of the owner's program", Policy{}, &agentapi.TaskSpec{Volumes: []*agentapi.VolumeSpec{{Name: "v", DriverOptions: map[string]string{"type": "nfs", "device": "h:/x"}}}}, ""},
		{"proxy", Policy{}, &agentapi.TaskSpec{NetworkMode: "awsvpc", Interception: &agentapi.Interception{}}, ""},
		{"proxy of the host's traffic", Policy{Privileged: true}, &agentapi.TaskSpec{NetworkMode: "host", Interception: &agentapi.Interception{}}, "no network that is its own"},
		{"privileged by default", Policy{}, &agentapi.TaskSpec{Containers: []*agentapi.ContainerSpec{{Name: "c", Privileged: true}}}, "--allow-privileged"},
		{"privileged", Policy{Privileged: true}, &agentapi.TaskSpec{Containers: []*agentapi.ContainerSpec{{Name: "c", Privileged: true}}}, ""},
		{"host processes by default", Policy{}, &agentapi.TaskSpec{PidMode: "host"}, "--allow-privileged"},
		{"host IPC by default", Policy{}, &agentapi.TaskSpec{IpcMode: "host"}, "--allow-privileged"},
		{"task's namespaces", Policy{}, &agentapi.TaskSpec{PidMode: "task", IpcMode: "task"}, ""},
		{"device by default", Policy{}, of(&agentapi.ContainerSpec{Devices: []*agentapi.Device{{HostPath: "/dev/kvm"}}}), "/dev/kvm"},
		{"device", Policy{Privileged: true}, of(&agentapi.ContainerSpec{Devices: []*agentapi.Device{{HostPath: "/dev/kvm"}}}), ""},
		{"capability by default", Policy{}, of(&agentapi.ContainerSpec{AddCapabilities: []string{"CHOWN", "SYS_ADMIN"}}), "SYS_ADMIN"},
		{"all capabilities by default", Policy{}, of(&agentapi.ContainerSpec{AddCapabilities: []string{"ALL"}}), "ALL"},
		{"capability", Policy{Privileged: true}, of(&agentapi.ContainerSpec{AddCapabilities: []string{"SYS_ADMIN"}}), ""},
		{"default capabilities", Policy{}, of(&agentapi.ContainerSpec{AddCapabilities: []string{"CHOWN"}, DropCapabilities: []string{"ALL"}}), ""},
		{"kernel parameter", Policy{}, of(&agentapi.ContainerSpec{Sysctls: map[string]string{"net.core.somaxconn": "1", "kernel.sem": "1"}}), ""},
		{"kernel parameter of the host", Policy{Privileged: true}, of(&agentapi.ContainerSpec{Sysctls: map[string]string{"kernel.core_pattern": "|/x"}}), "core_pattern"},
		{"kernel parameter of the host's network", Policy{Privileged: true}, &agentapi.TaskSpec{NetworkMode: "host",
			Containers: []*agentapi.ContainerSpec{{Sysctls: map[string]string{"net.core.somaxconn": "1"}}}}, "somaxconn"},
		{"kernel parameter of the host's IPC", Policy{Privileged: true}, &agentapi.TaskSpec{IpcMode: "host",
			Containers: []*agentapi.ContainerSpec{{Sysctls: map[string]string{"kernel.sem": "1"}}}}, "kernel.sem"},
		{"host network by default", Policy{}, &agentapi.TaskSpec{NetworkMode: "host"}, "--allow-privileged"},
		{"host network", Policy{Privileged: true}, &agentapi.TaskSpec{NetworkMode: "host"}, ""},
	} {
		err := c.policy.check(c.spec)
		if (err == nil) != (c.word == "") || err != nil && !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestRefusedTaskIsStoppedWithTheReason(t *testing.T) {
	d := fake.New(fake.Config{})
	h := newHost(t, t.TempDir(), d, "i1")
	h.hello()
	as := assignment(taskA, 1, run, "web")
	as.Spec.Containers[0].Privileged = true
	h.send(1, true, nil, as)
	st := h.untilState(taskA, agentapi.TaskState_STOPPED)
	if st.StopCode != codeFailedToStart || !strings.Contains(st.StoppedReason, "container a is privileged") {
		t.Errorf("stopped with %s: %s", st.StopCode, st.StoppedReason)
	}
	if found, err := d.Recover(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("the driver has %v, %v", found, err)
	}
}
