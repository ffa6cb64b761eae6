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
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 on this machine")
	}
	if out, err := exec.Command(python, "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skipf("python3 has no boto3 (Debian: apt-get install python3-boto3): %s", out)
	}
	p := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "testdata/boto3_walk.py", p.endpoint, p.pushShell())
	cmd.Env = p.environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
