package e2e

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// gearDefinition is a task that looks at its GPU, and writes to a file system that it can write to and to one that it can only read.
const gearDefinition = `{
  "family": "gear", "networkMode": "bridge",
  "volumes": [
    {"name": "models", "efsVolumeConfiguration": {"fileSystemId": "fs-models", "rootDirectory": "/", "transitEncryption": "ENABLED", "authorizationConfig": {"accessPointId": "fsap-1"}}},
    {"name": "results", "dockerVolumeConfiguration": {"scope": "shared", "driverOpts": {"type": "nfs", "device": "server:/results", "o": "rw"}}}],
  "containerDefinitions": [
    {"name": "train", "image": "IMAGE", "memory": 64,
     "command": ["B=busybox; echo gpus $NVIDIA_VISIBLE_DEVICES; $B od -An -tx1 -N2 FOLDER/nvidia7; $B ls FOLDER; $B cat /models/model; echo x > /models/new || echo read-only; echo result >> /results/file; $B sleep 600"],
     "resourceRequirements": [{"type": "GPU", "value": "1"}],
     "mountPoints": [{"sourceVolume": "models", "containerPath": "/models", "readOnly": true}, {"sourceVolume": "results", "containerPath": "/results"}]},
    {"name": "side", "image": "IMAGE", "memory": 64, "essential": false,
     "command": ["B=busybox; echo none $NVIDIA_VISIBLE_DEVICES; $B ls FOLDER 2>&1 || $B sleep 1; $B sleep 600"]}
  ]}`

// TestGPUsAndVolumes runs a task on a host that has GPUs (devices that the test makes) and whose owner has a program that mounts file systems:
// each reaches the container that is to have it, outlives a killed platform, and is free again afterwards.
func TestGPUsAndVolumes(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	for _, driver := range []string{"native", "docker"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			if driver == "docker" {
				dockerEngine(t)
			}
			if os.Geteuid() != 0 {
				t.Skip("making devices and mounting need root")
			}
			dir := t.TempDir()
			dev, served := filepath.Join(dir, "dev"), filepath.Join(dir, "served")
			for _, d := range []string{dev, served + "/fs-models", served + "/results"} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for name, minor := range map[string]uint32{"nvidia7": 5, "nvidiactl": 3} { // /dev/zero, /dev/null
				if err := unix.Mknod(filepath.Join(dev, name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
					t.Skipf("devices can not be made here: %v", err)
				}
			}
			program := filepath.Join(dir, "mounter")
			for file, text := range map[string]string{served + "/fs-models/model": "a model\n", program: `#!/bin/sh
request=$(cat)
of() { printf %s "$request" | sed -n 's/.*"'$1'":"\([^"]*\)".*/\1/p'; }
case $1 in
mount) if [ -n "$(of fileSystemId)" ]; then what=$(of fileSystemId); else what=$(of device); fi
       exec mount --bind "` + served + `/${what##*:/}" "$(of target)";;
unmount) exec umount "$(of target)";;
esac
`} {
				if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			p := startWith(t, driver, []string{"--gpus", "GPU-7=" + dev + "/nvidia7", "--volume-command", program})
			text := strings.NewReplacer("IMAGE", p.pushShell(), "FOLDER", dev).Replace(gearDefinition)
			p.aws(nil, "ecs", "register-task-definition", "--cli-input-json", text)
			task := p.text("tasks[0].taskArn", "ecs", "run-task", "--task-definition", "gear")
			eventually(t, time.Minute, "the task to run", func() (bool, string) {
				got := p.text("tasks[0].[lastStatus,stoppedReason]", "ecs", "describe-tasks", "--tasks", task)
				return strings.HasPrefix(got, "RUNNING"), got
			})
			if got := p.text("tasks[0].containers[].[name,gpuIds[0]]", "ecs", "describe-tasks", "--tasks", task); got != "train\tGPU-7\nside\tNone" {
				t.Errorf("GPUs of the containers: %s", got)
			}
			if got := p.text("failures[].reason", "ecs", "run-task", "--task-definition", "gear"); got != "RESOURCE:GPU" {
				t.Errorf("a second task: %s", got)
			}
			said := func(container string, wanted ...string) {
				t.Helper()
				eventually(t, time.Minute, container+" to say all", func() (bool, string) {
					out, errs, err := p.neargate("logs", "--container", container, path.Base(task))
					for _, w := range wanted {
						if !strings.Contains(out, w) {
							return false, "no " + w + " in " + out + errs
						}
					}
					return err == nil, errs
				})
			}
			said("train", "gpus GPU-7\n", " 00 00\n", "nvidia7\nnvidiactl\n", "a model\n", "read-only\n")
			said("side", "none\n", "No such file or directory")
			wrote := func() {
				t.Helper()
				eventually(t, time.Minute, "the result", func() (bool, string) {
					b, err := os.ReadFile(served + "/results/file")
					return string(b) == "result\n", fmt.Sprintf("%q, %v", b, err)
				})
			}
			wrote()

			p.cmd.Process.Kill()
			<-p.done
			p.run()
			mounted := func() int {
				return len(linesWith("/proc/self/mountinfo", filepath.Join(p.data, "agent", "mounts", path.Base(task))))
			}
			if n := mounted(); n != 2 {
				t.Errorf("after the platform was killed there are %d mounts", n)
			}
			p.aws(nil, "ecs", "stop-task", "--task", task)
			p.ended(task)
			if n := mounted(); n != 0 {
				t.Errorf("after the task has ended there are %d mounts", n)
			}
			wrote() // what was written is there
			if got := p.text("containerInstances[0].remainingResources[?name=='GPU'].stringSetValue[]", "ecs", "describe-container-instances",
				"--container-instances", p.text("containerInstanceArns[0]", "ecs", "list-container-instances")); got != "GPU-7" {
				t.Errorf("GPUs that are free again: %s", got)
			}
		})
	}
}

// TestVolumesWithoutProgram: a host whose owner has no program for them gets no task that needs file systems mounted, and says why.
func TestVolumesWithoutProgram(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startOn(t, "fake")
	p.aws(nil, "ecs", "register-task-definition", "--family", "efs", "--container-definitions", `[{"name":"a","image":"x","memory":8}]`,
		"--volumes", `[{"name":"v","efsVolumeConfiguration":{"fileSystemId":"fs-1"}}]`)
	p.notPlaced("efs", "ATTRIBUTE")
	p.aws(nil, "ecs", "create-service", "--service-name", "efs", "--task-definition", "efs", "--desired-count", "1")
	eventually(t, time.Minute, "the service to be told", func() (bool, string) {
		got := p.text("services[0].events[].message", "ecs", "describe-services", "--services", "efs")
		return strings.Contains(got, "is missing an attribute required by your task"), got
	})
}
