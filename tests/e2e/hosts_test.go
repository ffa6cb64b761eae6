package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// storageDefinition is a task that says what disk it has, what the metadata endpoint says of it, and what it is told when it wants more.
const storageDefinition = `{
  "family": "storage", "networkMode": "awsvpc", "cpu": "256", "memory": "512", "requiresCompatibilities": ["FARGATE"], "ephemeralStorage": {"sizeInGiB": 21},
  "volumes": [{"name": "scratch"}],
  "containerDefinitions": [{"name": "main", "image": "IMAGE", "mountPoints": [{"sourceVolume": "scratch", "containerPath": "/scratch"}],
    "command": ["busybox fallocate -l 5G /scratch/file; busybox wget -qO- $ECS_CONTAINER_METADATA_URI_V4/task; echo; busybox fallocate -l 22G /file 2>&1; echo | busybox tee /file >/dev/null; echo over"]}]}`

// TestEphemeralStorage: a task on Fargate has the disk that it asks for, can see what it uses, and no more; the API says so too.
func TestEphemeralStorage(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := &platform{t: t, driver: "native", data: filepath.Join(roomyDisk(t, 30), "data")}
	p.begin()
	if !strings.Contains(p.text("containerInstances[0].attributes[].name", "ecs", "describe-container-instances", "--container-instances", p.instance()), "ecs.capability.extensible-ephemeral-storage") {
		t.Skip("this host has no ephemeral storage to give: " + p.out.String())
	}
	file := filepath.Join(t.TempDir(), "definition.json")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(storageDefinition, "IMAGE", p.pushShell())), 0o600); err != nil {
		t.Fatal(err)
	}
	p.aws(nil, "ecs", "register-task-definition", "--cli-input-json", "file://"+file)
	subnet := p.text("Subnets[0].SubnetId", "ec2", "describe-subnets")
	task := p.text("tasks[0].taskArn", "ecs", "run-task", "--launch-type", "FARGATE", "--task-definition", "storage",
		"--network-configuration", "awsvpcConfiguration={subnets=["+subnet+"]}")
	p.aws(nil, "ecs", "wait", "tasks-stopped", "--tasks", task)
	if got := p.text("tasks[0].[ephemeralStorage.sizeInGiB, containers[0].exitCode]", "ecs", "describe-tasks", "--tasks", task); got != "21\t0" {
		t.Errorf("size and exit code: %s: %s", got, p.text("tasks[0].[stoppedReason, containers[0].reason]", "ecs", "describe-tasks", "--tasks", task))
	}
	out, _, err := p.neargate("logs", path.Base(task))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitN(strings.TrimSpace(out), "\n", 2)
	var said struct {
		EphemeralStorageMetrics struct{ Utilized, Reserved uint64 }
	}
	if err := json.Unmarshal([]byte(lines[0]), &said); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if m := said.EphemeralStorageMetrics; m.Reserved < 20<<10 || m.Reserved > 21<<10 || m.Utilized < 5<<10 || m.Utilized > 6<<10 {
		t.Errorf("metrics %+v", m)
	}
	if !strings.Contains(lines[1], "No space left on device") || !strings.HasSuffix(lines[1], "over") {
		t.Errorf("more than it has: %q", lines[1])
	}
}

// roomyDisk is a file system of its own, of the given GiB, on a file without content: what is reserved there and not written takes nothing of this host's
// disk, which may have less, and which other tests look at meanwhile.
func roomyDisk(t *testing.T, gib int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the native driver needs root")
	}
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, gib<<30); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=1", image},
		{"mount", "-o", "loop,noinit_itable", image, dir},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Skipf("this host mounts no file: %v: %v: %s", command, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

// instance is the one container instance of the default cluster.
func (p *platform) instance() string {
	p.t.Helper()
	return p.text("containerInstanceArns[0]", "ecs", "list-container-instances")
}

// TestHostHealth: a host that is short of disk says so and gets no tasks, and one that is deregistered is gone until it starts anew.
func TestHostHealth(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startWith(t, "native", []string{"--disk-minimum", "1000000000"})
	p.pushShell()
	// sleeper names the image anew: a start listens elsewhere.
	sleeper := func() []string {
		p.aws(nil, "ecs", "register-task-definition", "--family", "sleeper", "--container-definitions",
			`[{"name":"main","image":"`+p.listen+`/shell:1","memory":64,"command":["exec busybox sleep 600"]}]`)
		return []string{"ecs", "run-task", "--task-definition", "sleeper"}
	}
	health := func() string {
		return p.text("containerInstances[0].healthStatus.[overallStatus, details[?type=='CONTAINER_RUNTIME'].status | [0]]",
			"ecs", "describe-container-instances", "--container-instances", p.instance(), "--include", "CONTAINER_INSTANCE_HEALTH")
	}
	eventually(t, time.Minute, "the host to be short of disk", func() (bool, string) { got := health(); return got == "IMPAIRED\tOK", got })
	if got := p.text("failures[0].reason", sleeper()...); got != "RESOURCE:DISK" {
		t.Errorf("run-task on a host that is short of disk: %s", got)
	}
	p.stop()
	p.args = nil
	p.run()
	if got := health(); got != "OK\tOK" {
		t.Errorf("with room again: %s", got)
	}
	task := p.text("tasks[0].taskArn", sleeper()...)
	p.aws(nil, "ecs", "wait", "tasks-running", "--tasks", task)

	p.refused("An error occurred (NoUpdateAvailableException) when calling the UpdateContainerAgent operation: There is no update available for your container agent: "+
		"it is the program on its host, and is updated by replacing it there.", "ecs", "update-container-agent", "--container-instance", p.instance())
	p.refused("An error occurred (InvalidParameterException) when calling the DeregisterContainerInstance operation: Found running tasks on the instance.", "ecs", "deregister-container-instance", "--container-instance", p.instance())
	if got := p.text("containerInstance.status", "ecs", "deregister-container-instance", "--container-instance", p.instance(), "--force"); got != "INACTIVE" {
		t.Errorf("deregistered: %s", got)
	}
	p.aws(nil, "ecs", "wait", "tasks-stopped", "--tasks", task)
	if got := p.text("tasks[0].stoppedReason", "ecs", "describe-tasks", "--tasks", task); got != "Container instance deregistration forced by user" {
		t.Errorf("the task it had: %s", got)
	}
	if got := p.instance(); got != "None" {
		t.Errorf("instances: %s", got)
	}
	eventually(t, time.Minute, "the containers of the task to be gone", func() (bool, string) {
		left := processesOf(filepath.Join(p.data, "agent", "native", "tasks"))
		return len(left) == 0, strings.Join(left, "\n")
	})
	p.stop()
	p.run()
	task = p.text("tasks[0].taskArn", sleeper()...)
	p.aws(nil, "ecs", "wait", "tasks-running", "--tasks", task)
}
