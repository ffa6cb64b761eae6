package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// script mounts a tmpfs, and does as the id of a file system says.
const script = `#!/bin/sh
request=$(cat)
target=$(printf %s "$request" | sed 's/.*"target":"\([^"]*\)".*/\1/')
printf '%s %s\n' "$1" "$request" >> DIR/calls
case "$1 $request" in
mount*fs-bad*) echo "no such file system" >&2; exit 3;;
mount*fs-none*) exit 0;;
mount*fs-hangs*) exec sleep 600;;
mount*fs-leaves*) mount -t tmpfs none "$target" && { setsid sleep 600 & echo $! > DIR/daemon; };;
mount*fs-twice*) mount -t tmpfs none "$target" && mkdir "$target/sub" && mount -t tmpfs none "$target/sub"; mount -t tmpfs none "$target";;
mount*fs-litter*) echo x > "$target/x"; exit 1;;
mount*) mount -t tmpfs -o size=1m none "$target";;
unmount*fs-stuck*) echo "server is gone" >&2; exit 1;;
unmount*) umount "$target";;
esac
`

// program writes the script; calls reads what it was asked.
func program(t *testing.T) (path string, calls func() []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	path = filepath.Join(dir, "mounter")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(script, "DIR", dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	return path, func() []string {
		b, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
}

func newPlugin(t *testing.T, dir, program string) *Plugin {
	t.Helper()
	p, err := New(Config{Program: program, Dir: dir, Timeout: 30 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Sweep(context.Background(), func(string) bool { return false }); err != nil {
			t.Error(err)
		}
		if left, err := mountsAt(p.cfg.Dir); err != nil || len(left) > 0 {
			t.Errorf("left mounted: %v, %v", left, err)
		}
	})
	return p
}

const taskID = "0123456789abcdef0123456789abcdef"

func efs(id string) *agentapi.TaskSpec {
	return &agentapi.TaskSpec{Account: "000000000000", Region: "us-east-1", Cluster: "c", Family: "f", TaskRole: "arn:aws:iam::000000000000:role/r",
		Volumes: []*agentapi.VolumeSpec{{Name: "own"}, {Name: "v", Efs: &agentapi.EFSVolume{FileSystemId: id}}}}
}

// TestPlugin: a volume appears where its container gets it from, the program is told all, and nothing is left at the end.
func TestPlugin(t *testing.T) {
	path, calls := program(t)
	p := newPlugin(t, t.TempDir(), path)
	spec := efs("fs-1")
	spec.Volumes[1].Efs = &agentapi.EFSVolume{FileSystemId: "fs-1", RootDirectory: "/a", TransitEncryption: true, TransitEncryptionPort: 99, AccessPointId: "fsap-1", Iam: true}
	spec.Volumes = append(spec.Volumes, &agentapi.VolumeSpec{Name: "n", Scope: "shared",
		DriverOptions: map[string]string{"type": "nfs4", "device": ":/x", "o": "addr=10.0.0.1,ro"}})
	for range 2 { // what is mounted stays
		if err := p.Mount(t.Context(), taskID, spec); err != nil {
			t.Fatal(err)
		}
	}
	p.Place(taskID, spec)
	if spec.Volumes[0].HostPath != "" {
		t.Errorf("a volume of the agent is at %s", spec.Volumes[0].HostPath)
	}
	for _, v := range spec.Volumes[1:] {
		var st unix.Statfs_t
		if err := unix.Statfs(v.HostPath, &st); err != nil || st.Type != unix.TMPFS_MAGIC || st.Blocks*uint64(st.Bsize) != 1<<20 || v.Efs != nil || v.DriverOptions != nil {
			t.Errorf("%v: file system %x, %v", v, st.Type, err)
		}
	}
	if err := p.Release(t.Context(), taskID); err != nil {
		t.Error(err)
	}
	if err := p.Release(t.Context(), taskID); err != nil {
		t.Error("again:", err)
	}
	var asked []string
	for _, line := range calls() {
		verb, text, _ := strings.Cut(line, " ")
		var r Request
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(line, err)
		}
		who := Task{taskID, "000000000000", "us-east-1", "c", "f", "arn:aws:iam::000000000000:role/r"}
		want := Request{Task: who, Volume: "v", Target: p.target(taskID, "v"), EFS: &EFS{"fs-1", "/a", "ENABLED", 99, "fsap-1", "ENABLED"}}
		if r.Volume == "n" {
			want = Request{Task: who, Volume: "n", Target: p.target(taskID, "n"), NFS: &NFS{"nfs4", ":/x", "addr=10.0.0.1,ro"}}
		}
		if diff := cmp.Diff(want, r); diff != "" {
			t.Errorf("%s: %s", verb, diff)
		}
		asked = append(asked, verb+" "+r.Volume)
	}
	if got := strings.Join(asked, ", "); got != "mount v, mount n, unmount n, unmount v" {
		t.Errorf("asked were %s", got)
	}
	if left, _ := os.ReadDir(p.cfg.Dir); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// TestPluginFails: what goes wrong is the reason, and leaves nothing either.
func TestPluginFails(t *testing.T) {
	path, _ := program(t)
	for id, want := range map[string]string{
		"fs-bad":    "failed to invoke EFS utils commands to set up EFS volumes: stderr: no such file system : unsuccessful EFS utils command execution; code: 3",
		"fs-none":   "failed to invoke EFS utils commands to set up EFS volumes: stderr: nothing is mounted at TARGET : unsuccessful EFS utils command execution; code: 0",
		"fs-hangs":  "failed to invoke EFS utils commands to set up EFS volumes: stderr: it has not ended within 1s : unsuccessful EFS utils command execution; code: -1",
		"fs-stuck":  "",
		"fs-twice":  "",
		"fs-leaves": "",
	} {
		t.Run(id, func(t *testing.T) {
			p := newPlugin(t, t.TempDir(), path)
			if id == "fs-hangs" {
				p.cfg.Timeout = time.Second
			}
			err := p.Mount(t.Context(), taskID, efs(id))
			if got, want := fmt.Sprint(err), strings.ReplaceAll(want, "TARGET", p.target(taskID, "v")); want != "" && got != want || want == "" && err != nil {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if id == "fs-leaves" {
				end(t, filepath.Join(filepath.Dir(path), "daemon"))
			}
			if err := p.Release(t.Context(), taskID); err != nil {
				t.Error(err)
			}
			if left, _ := os.ReadDir(p.cfg.Dir); len(left) > 0 {
				t.Errorf("left are %v", left)
			}
		})
	}
	t.Run("NFS", func(t *testing.T) {
		p := newPlugin(t, t.TempDir(), path)
		err := p.Mount(t.Context(), taskID, &agentapi.TaskSpec{Volumes: []*agentapi.VolumeSpec{{Name: "n", DriverOptions: map[string]string{"type": "nfs", "device": "fs-bad:/x"}}}})
		if want := "failed to mount local volume n: stderr: no such file system; code: 3"; fmt.Sprint(err) != want {
			t.Errorf("got %v", err)
		}
	})
	t.Run("NoProgram", func(t *testing.T) {
		p := newPlugin(t, t.TempDir(), "")
		if err := p.Mount(t.Context(), taskID, efs("fs-1")); err == nil || !strings.Contains(err.Error(), "--volume-command") {
			t.Error(err)
		}
		if _, err := New(Config{Program: filepath.Join(t.TempDir(), "nothing"), Dir: t.TempDir()}); err == nil {
			t.Error("a program that is not there will do")
		}
	})
	t.Run("Name", func(t *testing.T) {
		p := newPlugin(t, t.TempDir(), path)
		for _, name := range []string{"../x", "..", "", "/x"} {
			if err := p.Mount(t.Context(), taskID, &agentapi.TaskSpec{Volumes: []*agentapi.VolumeSpec{{Name: name, Efs: &agentapi.EFSVolume{FileSystemId: "fs-1"}}}}); err == nil {
				t.Errorf("a volume named %q is mounted", name)
			}
		}
	})
	t.Run("Litter", func(t *testing.T) {
		p := newPlugin(t, t.TempDir(), path)
		if err := p.Mount(t.Context(), taskID, efs("fs-litter")); err == nil {
			t.Error("mounted")
		}
		if err := p.Release(t.Context(), taskID); err != nil {
			t.Error("a task does not end for what somebody else has put there:", err)
		}
		if b, err := os.ReadFile(p.target(taskID, "v") + "/x"); string(b) != "x\n" {
			t.Errorf("what was there: %q, %v", b, err)
		}
	})
}

// end ends a process that a program has left running.
func end(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil || pid < 2 {
		t.Fatal(pid, err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
}

// TestHundredStarts: mounts and folders are as many as before.
func TestHundredStarts(t *testing.T) {
	path, _ := program(t)
	p := newPlugin(t, t.TempDir(), path)
	for i := range 100 {
		id := fmt.Sprintf("%032d", i)
		if err := p.Mount(t.Context(), id, efs("fs-1")); err != nil {
			t.Fatal(err)
		}
		if err := p.Release(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(p.cfg.Dir)
	mounts, merr := mountsAt(p.cfg.Dir)
	if len(entries) > 0 || len(mounts) > 0 || err != nil || merr != nil {
		t.Errorf("left are %v, mounted %v; %v, %v", entries, mounts, err, merr)
	}
}

// TestCrash: a later process undoes what an earlier one had begun, whatever it had come to, and finds what is to stay.
func TestCrash(t *testing.T) {
	path, calls := program(t)
	dir := t.TempDir()
	p := newPlugin(t, dir, path)
	for _, id := range []string{"stays", "goes", "begun"} {
		if err := p.Mount(t.Context(), id, efs("fs-1")); err != nil {
			t.Fatal(err)
		}
	}
	r, _, err := p.record("begun", "v")
	if err != nil {
		t.Fatal(err)
	}
	r.Mounted = false // it died before it could say so
	if err := p.write(r); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "made", "v"), 0o700); err != nil { // it died before it had written anything
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "made", "v", "request.json"), nil, 0o600); err != nil { // nor had the host
		t.Fatal(err)
	}

	later := newPlugin(t, dir, path)
	if err := later.Sweep(t.Context(), func(id string) bool { return id == "stays" || id == "begun" }); err != nil {
		t.Fatal(err)
	}
	before := len(calls())
	for _, id := range []string{"stays", "begun"} {
		if err := later.Mount(t.Context(), id, efs("fs-1")); err != nil {
			t.Fatal(err)
		}
		if at, err := mountsAt(later.target(id, "v")); len(at) != 1 || err != nil {
			t.Errorf("%s is mounted at %v, %v", id, at, err)
		}
	}
	var verbs []string
	for _, c := range calls()[before:] {
		verbs = append(verbs, strings.Fields(c)[0])
	}
	if got := strings.Join(verbs, " "); got != "unmount mount" { // begun, and only that, anew
		t.Errorf("asked were %s", got)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("there are %v", entries)
	}
	// The owner has taken the program away: what it has mounted goes all the same.
	without := newPlugin(t, dir, "")
	if err := without.Sweep(t.Context(), func(string) bool { return false }); err != nil {
		t.Error(err)
	}
}

// TestUnmountReachesCopies: a process whose mounts are copies of the host's, as a task's shim is, does not keep what is unmounted.
func TestUnmountReachesCopies(t *testing.T) {
	path, _ := program(t)
	p := newPlugin(t, t.TempDir(), path)
	if err := p.Mount(t.Context(), taskID, efs("fs-1")); err != nil {
		t.Fatal(err)
	}
	target := p.target(taskID, "v")
	copied := exec.Command("sh", "-c", "mount --make-rslave / && echo ready && exec sleep 600")
	copied.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Setpgid: true}
	out, err := copied.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := copied.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { copied.Process.Kill(); copied.Wait() }()
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		t.Fatal(err)
	}
	has := func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", copied.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(b), target)
	}
	if !has() {
		t.Fatal("the copy does not have it to begin with")
	}
	if err := p.Release(t.Context(), taskID); err != nil {
		t.Fatal(err)
	}
	if has() {
		t.Error("the copy keeps it")
	}
}
