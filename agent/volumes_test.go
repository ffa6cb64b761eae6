package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"

	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	"github.com/seed-2f228079/neargate/agent/volume/plugin"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// TestVolumesOfAProgram: what a task's volumes name is mounted before its runtime hears of the task, outlives the agent, and goes with the task.
func TestVolumesOfAProgram(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "mounter")
	script := `#!/bin/sh
request=$(cat)
target=$(printf %s "$request" | sed 's/.*"target":"\([^"]*\)".*/\1/')
case "$1 $request" in
*fs-bad*) echo "no such file system" >&2; exit 3;;
mount*) mount -t tmpfs none "$target";;
*) umount "$target";;
esac
`
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	mounts := filepath.Join(dir, "mounts")
	volumes := func() *plugin.Plugin {
		p, err := plugin.New(plugin.Config{Program: program, Dir: mounts, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	count := func() int {
		list, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return !strings.HasPrefix(m.Mountpoint, mounts+"/"), false })
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	agentDir, driverDir := filepath.Join(dir, "agent"), filepath.Join(dir, "driver")
	driver := fake.New(fake.Config{Dir: driverDir})
	h := connectHost(t, Config{Dir: agentDir, Driver: driver, Volumes: volumes()}, "i1")
	h.hello()
	with := func(id, fileSystem string) *agentapi.Assignment {
		as := assignment(id, 1, run, "web")
		as.Spec.Volumes = []*agentapi.VolumeSpec{{Name: "data", Efs: &agentapi.EFSVolume{FileSystemId: fileSystem}}}
		return as
	}
	const bad = "fedcba9876543210fedcba9876543210"
	h.send(1, true, nil, with(taskA, "fs-1"), with(bad, "fs-bad"))
	st := h.untilState(bad, agentapi.TaskState_STOPPED)
	if want := "ResourceInitializationError: failed to invoke EFS utils commands to set up EFS volumes: stderr: no such file system : unsuccessful EFS utils command execution; code: 3"; st.StoppedReason != want || st.StopCode != codeFailedToStart {
		t.Errorf("stopped: %s %s", st.StopCode, st.StoppedReason)
	}
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	found, err := driver.Recover(t.Context())
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	v := found[0].Task.Spec.Volumes[0]
	if ok, err := mountinfo.Mounted(v.HostPath); !ok || err != nil || !strings.HasPrefix(v.HostPath, mounts) || count() != 1 {
		t.Errorf("%v is not mounted: %v; there are %d", v, err, count())
	}

	h.stop()
	if count() != 1 {
		t.Errorf("without an agent there are %d", count())
	}
	h = connectHost(t, Config{Dir: agentDir, Driver: fake.New(fake.Config{Dir: driverDir}), Volumes: volumes()}, "i1")
	h.hello()
	if count() != 1 {
		t.Errorf("with the next agent there are %d", count())
	}
	stop := with(taskA, "fs-1")
	stop.Desired = halt
	h.send(2, true, nil, stop)
	h.untilState(taskA, agentapi.TaskState_STOPPED)
	if left, err := os.ReadDir(mounts); count() != 0 || len(left) > 0 || err != nil {
		t.Errorf("left are %d mounts, %v, %v", count(), left, err)
	}
}

// TestVolumesOfNobody: a host without a program says so.
func TestVolumesOfNobody(t *testing.T) {
	h := newHost(t, t.TempDir(), fake.New(fake.Config{}), "i1")
	h.hello()
	as := assignment(taskA, 1, run, "web")
	as.Spec.Volumes = []*agentapi.VolumeSpec{{Name: "data", DriverOptions: map[string]string{"type": "nfs", "device": "server:/x"}}}
	h.send(1, true, nil, as)
	if st := h.untilState(taskA, agentapi.TaskState_STOPPED); st.StoppedReason != "ResourceInitializationError: volume data needs a file system that nobody mounts on this host" {
		t.Errorf("stopped: %s", st.StoppedReason)
	}
}
