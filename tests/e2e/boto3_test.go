package e2e

import (
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
	needsBoto3(t)
	startOn(t, "fake").python("boto3_logs.py")
}

// needsBoto3 skips the test where there is no boto3.
func needsBoto3(t *testing.T) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 on this machine")
	}
	if out, err := exec.Command(python, "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skipf("python3 has no boto3 (Debian: apt-get install python3-boto3): %s", out)
	}
}

// python runs a script of testdata with the endpoint and further arguments.
func (p *platform) python(script string, args ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", append([]string{"testdata/" + script, p.endpoint}, args...)...)
	cmd.Env = p.environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Errorf("%v\n%s", err, out)
	}
}
