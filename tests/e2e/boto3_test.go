package e2e

import (
	"bufio"
	"bytes"
	"context"
	"os/exec"
	"testing"
	"time"
)

// TestBoto3 has a script of boto3's waiters and paginators run against the platform: testdata/boto3_walk.py says what it wants.
func TestBoto3(t *testing.T) {
	t.Parallel()
	needsBoto3(t)
	p := start(t)
	p.python("boto3_walk.py", p.pushShell())
}

// TestBoto3Logs does the same with CloudWatch Logs, which needs no containers: testdata/boto3_logs.py.
func TestBoto3Logs(t *testing.T) {
	t.Parallel()
	needsBoto3(t, "logs", "list_log_groups")
	startOn(t, "fake").python("boto3_logs.py")
}

// TestBoto3LiveTail tails logs live with boto3, and has the platform end while a session is open: testdata/boto3_livetail.py.
func TestBoto3LiveTail(t *testing.T) {
	t.Parallel()
	needsBoto3(t, "logs", "start_live_tail")
	p := startOn(t, "fake")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", "testdata/boto3_livetail.py", p.endpoint)
	var stderr bytes.Buffer
	cmd.Env, cmd.Stderr = p.environment(), &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	says := ""
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if says += lines.Text() + " "; lines.Text() == "ready" {
			p.stop()
		}
	}
	if err := cmd.Wait(); err != nil || says != "ready told " {
		t.Errorf("%v, it says %q\n%s", err, says, &stderr)
	}
}

// needsBoto3 skips the test where there is no boto3, or one that is older than these methods of the service's client.
func needsBoto3(t *testing.T, serviceAndMethods ...string) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 on this machine")
	}
	if out, err := exec.Command(python, "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skipf("python3 has no boto3 (Debian: apt-get install python3-boto3): %s", out)
	}
	if len(serviceAndMethods) == 0 {
		return
	}
	const looks = "import boto3, sys; client = boto3.client(sys.argv[1], region_name='x'); [getattr(client, m) for m in sys.argv[2:]]"
	if out, err := exec.Command(python, append([]string{"-c", looks}, serviceAndMethods...)...).CombinedOutput(); err != nil {
		t.Skipf("python3's boto3 is too old: %s", out)
	}
}

// python runs a script of testdata with the endpoint and further arguments.
func (p *platform) python(script string, args ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", append([]string{"testdata/" + script, p.endpoint}, args...)...)
	cmd.Env = p.environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Errorf("%v\n%s", err, out)
	}
}
