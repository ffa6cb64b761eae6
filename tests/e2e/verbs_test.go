package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/client"
)

// TestVerbs uses the command line as its help says.
func TestVerbs(t *testing.T) {
	t.Parallel()
	p := start(t)
	image := p.pushShell()
	// ok runs a verb that must succeed.
	ok := func(args ...string) string {
		t.Helper()
		out, errs, err := p.neargate(args...)
		if err != nil {
			t.Fatalf("neargate %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
		}
		return out
	}
	into := func(v any, args ...string) {
		t.Helper()
		if out := ok(append(args, "--output", "json")...); json.Unmarshal([]byte(out), v) != nil {
			t.Fatalf("neargate %s: not JSON:\n%s", strings.Join(args, " "), out)
		}
	}

	if env := ok("env"); !strings.Contains(env, "export AWS_ENDPOINT_URL='"+p.endpoint+"'") {
		t.Errorf("env: %s", env)
	}
	shell := exec.Command("bash", "-c", `eval "$("$0" env)" && echo $AWS_ENDPOINT_URL`, binary)
	shell.Env = p.environment()
	if out, err := shell.Output(); err != nil || strings.TrimSpace(string(out)) != p.endpoint {
		t.Errorf("eval of env: %v %s", err, out)
	}
	if out := ok("run", image, "echo seen; echo hidden >&2"); out != "seen\n" {
		t.Errorf("run printed %q", out)
	}
	_, _, err := p.neargate("run", image, "exit 7")
	if e, is := err.(*exec.ExitError); !is || e.ExitCode() != 7 {
		t.Errorf("run of a task that exits with 7: %v", err)
	}
	id := strings.TrimSpace(ok("run", "--detach", "--name", "long", image, "echo begun; busybox sleep 600"))
	var tasks []client.Task
	into(&tasks, "ps")
	if len(tasks) != 1 || tasks[0].ID != id || tasks[0].Definition != "long:1" {
		t.Errorf("ps: %+v, want task %s of long:1", tasks, id)
	}
	if out := ok("ps"); !strings.Contains(out, id) || !strings.HasPrefix(out, "TASK") {
		t.Errorf("ps:\n%s", out)
	}
	p.eventually(func() error {
		if out := ok("events", "--detail-type", "ECS Task State Change"); !strings.Contains(out, "Task task/default/"+id+" RUNNING") {
			return fmt.Errorf("events:\n%s", out)
		}
		return nil
	})
	if out := ok("explain", id[:8]); !strings.Contains(out, id) {
		t.Errorf("explain: %s", out)
	}
	var why client.Explanation
	into(&why, "explain", id)
	if why.Task == "" || why.Node == "" {
		t.Errorf("explain of a task that is placed: %+v", why)
	}
	ok("stop", id[:8], "--reason", "seen enough")
	into(&tasks, "ps", "--all")
	if len(tasks) != 3 {
		t.Errorf("ps --all lists %d tasks, want 3: %+v", len(tasks), tasks)
	}
	p.eventually(func() error { // its shell may have been slower than this test
		if out := ok("logs", id); out != "begun\n" {
			return fmt.Errorf("logs of a stopped task: %q", out)
		}
		return nil
	})
	for _, task := range tasks {
		if task.ID == id && task.Reason != "seen enough" {
			t.Errorf("the stopped task's reason is %q", task.Reason)
		}
	}
	// A service without a port; what is wrong comes on one line and with exit code 1.
	ok("deploy", "worker", image, "--count", "2", "busybox sleep 600")
	into(&tasks, "ps")
	if len(tasks) != 2 || tasks[0].Group != "service:worker" {
		t.Errorf("ps after deploy: %+v", tasks)
	}
	ok("stop", "--service", "worker")
	if _, errs, err := p.neargate("logs", "feedbeef"); err == nil || !strings.HasPrefix(errs, "neargate: ") {
		t.Errorf("logs of no task: %v %s", err, errs)
	}
	if out := ok("completion", "bash"); !strings.Contains(out, "neargate") {
		t.Error("there is no completion for bash")
	}
}
