package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// containersDefinition is a task whose program waits for a migration and a healthy cache, and looks around; it is ill while there is a file /ill.
const containersDefinition = `{
  "family": "life", "networkMode": "bridge", "cpu": "256", "memory": "128",
  "volumes": [{"name": "v", "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true}}],
  "containerDefinitions": [
    {"name": "migrate", "image": "IMAGE", "essential": false, "command": ["echo migrated >> /v/steps"],
     "mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]},
    {"name": "cache", "image": "IMAGE", "essential": false, "command": ["busybox sleep 1; echo up > /up; echo warm >> /v/steps; exec busybox sleep 600"],
     "mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}],
     "healthCheck": {"command": ["CMD-SHELL", "test -e /up"], "interval": 5}},
    {"name": "app", "image": "IMAGE",
     "command": ["B=busybox; $B cat /v/steps; $B grep NoNewPrivs /proc/self/status; ulimit -n; $B cat /proc/sys/net/ipv4/ip_default_ttl; $B grep ' /scratch ' /proc/self/mounts; exec $B sleep 600"],
     "mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}],
     "dependsOn": [{"containerName": "migrate", "condition": "SUCCESS"}, {"containerName": "cache", "condition": "HEALTHY"}],
     "healthCheck": {"command": ["CMD", "busybox", "test", "!", "-e", "/ill"], "interval": 5, "timeout": 60, "retries": 1},
     "linuxParameters": {"initProcessEnabled": true, "capabilities": {"drop": ["NET_RAW"]}, "tmpfs": [{"containerPath": "/scratch", "size": 2}]},
     "ulimits": [{"name": "nofile", "softLimit": 321, "hardLimit": 321}],
     "systemControls": [{"namespace": "net.ipv4.ip_default_ttl", "value": "77"}],
     "dockerSecurityOptions": ["no-new-privileges"]}
  ]}`

// TestContainers walks a service through dependencies, health checks and what its containers ask of the kernel, with the AWS CLI: its
// first task is replaced when it is made ill, and the health of the second outlives the platform's process.
func TestContainers(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	file := filepath.Join(t.TempDir(), "definition.json")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(containersDefinition, "IMAGE", p.pushShell())), 0o600); err != nil {
		t.Fatal(err)
	}
	p.aws(nil, "ecs", "register-task-definition", "--cli-input-json", "file://"+file)
	p.aws(nil, "ecs", "create-service", "--service-name", "life", "--task-definition", "life", "--desired-count", "1", "--enable-execute-command")
	p.aws(nil, "ecs", "wait", "services-stable", "--services", "life")

	task := p.text("taskArns[0]", "ecs", "list-tasks", "--service-name", "life")
	health := func() string {
		return p.text("tasks[0].[healthStatus, containers[?name=='app'].healthStatus | [0], containers[?name=='cache'].healthStatus | [0], containers[?name=='migrate'].healthStatus | [0]]",
			"ecs", "describe-tasks", "--tasks", task)
	}
	// Stable is a service whose task is healthy.
	if got := health(); got != "HEALTHY\tHEALTHY\tHEALTHY\tUNKNOWN" {
		t.Errorf("health of the task and its containers: %s", got)
	}
	id := task[strings.LastIndexByte(task, '/')+1:]
	out, errs, err := p.neargate("logs", "--container", "app", id)
	if err != nil {
		t.Fatalf("logs: %v %s", err, errs)
	}
	for _, want := range []string{"migrated\nwarm\n", "NoNewPrivs:\t1\n", "\n321\n", "\n77\n", "tmpfs /scratch tmpfs rw,nosuid,nodev,noexec,relatime,size=2048k"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}

	if out, errs, err := p.neargate("exec", "--container", "app", id, "--", "/bin/busybox", "touch", "/ill"); err != nil {
		t.Fatalf("exec: %v\n%s%s", err, out, errs)
	}
	eventually(t, 2*time.Minute, "the ill task to be replaced", func() (bool, string) {
		got := p.text("tasks[0].[desiredStatus, stoppedReason]", "ecs", "describe-tasks", "--tasks", task)
		return got == "STOPPED\tTask failed container health checks", got
	})
	eventually(t, 2*time.Minute, "the second task to be healthy", func() (bool, string) {
		list := strings.Fields(p.text("taskArns", "ecs", "list-tasks", "--service-name", "life"))
		if len(list) == 0 {
			return false, "no task"
		}
		task = list[0]
		got := health()
		return strings.HasPrefix(got, "HEALTHY\tHEALTHY\tHEALTHY"), got
	})

	p.cmd.Process.Kill()
	<-p.done
	p.run()
	if got := health(); !strings.HasPrefix(got, "HEALTHY\tHEALTHY\tHEALTHY") {
		t.Errorf("after a crash: %s", got)
	}
}
