package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/seed-2f228079/neargate/internal/ociclient"
)

// environment is what a client of the platform is run with: `neargate env`, and nothing of the machine's own AWS set-up.
func (p *platform) environment() []string {
	env := []string{
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=",
		"AWS_ENDPOINT_URL=" + p.endpoint, "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "NEARGATE_ENDPOINT=" + p.endpoint,
	}
	return append(append(os.Environ(), env...), p.extra...)
}

// as is a view of the same platform for another caller.
func (p *platform) as(region, key, secret string) *platform {
	q := *p
	q.extra = []string{"AWS_REGION=" + region, "AWS_DEFAULT_REGION=" + region, "AWS_ACCESS_KEY_ID=" + key, "AWS_SECRET_ACCESS_KEY=" + secret}
	return &q
}

// awsCommands are the different AWS CLIs on this machine, the first of the PATH first.
var awsCommands = sync.OnceValue(func() (paths []string) {
	seen := map[string]bool{}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, "aws")
		version, err := exec.Command(path, "--version").CombinedOutput()
		if err != nil || seen[string(version)] {
			continue
		}
		seen[string(version)] = true
		paths = append(paths, path)
	}
	return paths
})

// needsAWS skips the test where there is no AWS CLI.
func needsAWS(t *testing.T) {
	t.Helper()
	if len(awsCommands()) == 0 {
		t.Skip("there is no AWS CLI on this machine (Debian: apt-get install awscli)")
	}
}

// needsNewAWS skips the test where the AWS CLI is older than an operation, or than these members of its input.
func needsNewAWS(t *testing.T, service, operation string, members ...string) {
	t.Helper()
	needsAWS(t)
	skeleton := exec.Command(awsCommands()[0], service, operation, "--generate-cli-skeleton")
	skeleton.Env = (&platform{}).environment()
	out, err := skeleton.Output()
	if err != nil {
		t.Skipf("the AWS CLI does not know %s %s: %v", service, operation, err)
	}
	for _, m := range members {
		if !strings.Contains(string(out), `"`+m+`"`) {
			t.Skipf("the AWS CLI does not know %s of %s %s", m, service, operation)
		}
	}
}

// try runs the AWS CLI, with --endpoint-url since versions before 2.13 know no AWS_ENDPOINT_URL.
func (p *platform) try(args ...string) (stdout, stderr string, err error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // as long as its waiters wait
	defer cancel()
	cmd := exec.CommandContext(ctx, awsCommands()[0], append([]string{"--endpoint-url", p.endpoint, "--output", "json"}, args...)...)
	cmd.Env = p.environment()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), strings.TrimSpace(errs.String()), err
}

// aws runs the AWS CLI, which must succeed, and reads its answer into v (nil: not looked at).
func (p *platform) aws(v any, args ...string) {
	p.t.Helper()
	out, errs, err := p.try(args...)
	if err != nil {
		p.t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		p.t.Fatalf("aws %s: %v in %s", strings.Join(args, " "), err, out)
	}
}

// text runs the AWS CLI with a query and --output text.
func (p *platform) text(query string, args ...string) string {
	p.t.Helper()
	out, errs, err := p.try(append(args, "--query", query, "--output", "text")...)
	if err != nil {
		p.t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return strings.TrimSpace(out)
}

// refused runs the AWS CLI, which must fail with exactly this message: "An error occurred (Code) when calling the X operation: …".
func (p *platform) refused(want string, args ...string) {
	p.t.Helper()
	out, errs, err := p.try(args...)
	if err == nil {
		p.t.Errorf("aws %s succeeded: %s", strings.Join(args, " "), out)
	} else if errs != want {
		p.t.Errorf("aws %s:\n got %s\nwant %s", strings.Join(args, " "), errs, want)
	}
}

// neargate runs a client verb of the binary.
func (p *platform) neargate(args ...string) (stdout, stderr string, err error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = p.environment()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// dockerEngine skips the test when no engine answers.
func dockerEngine(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("docker", "info", "--format", "{{.ServerVersion}}").CombinedOutput(); err != nil {
		t.Skipf("no docker engine answers: %v %s", err, out)
	}
}

// push makes an image of the files and pushes it to a new repository of the platform's registry.
func (p *platform) push(repository, tag string, cfg ociclient.Config, files ...ociclient.File) (ref string) {
	p.t.Helper()
	made, err := p.client().ECR.CreateRepository(p.t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &repository})
	if err != nil {
		p.t.Fatal(err)
	}
	ref = *made.Repository.RepositoryUri + ":" + tag
	p.pushTo(ref, cfg, files...)
	return ref
}

// pushTo pushes to a repository that is there.
func (p *platform) pushTo(ref string, cfg ociclient.Config, files ...ociclient.File) {
	p.t.Helper()
	ctx := p.t.Context()
	c := p.client()
	token, err := c.ECR.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		p.t.Fatal(err)
	}
	plain, err := base64.StdEncoding.DecodeString(*token.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		p.t.Fatal(err)
	}
	user, password, _ := strings.Cut(string(plain), ":")
	image, err := ociclient.Build(cfg, files)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := new(ociclient.Client).Push(ctx, ref, ociclient.Credentials{User: user, Password: password}, image); err != nil {
		p.t.Fatal(err)
	}
}

// pushShell pushes an image with a shell and busybox's commands.
func (p *platform) pushShell() (ref string) {
	p.t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		p.t.Skip("there is no static busybox on this machine (Debian: apt-get install busybox-static)")
	}
	return p.push("shell", "1", ociclient.Config{Entrypoint: []string{"/bin/sh", "-c"}}, ociclient.Executable("bin/sh", busybox),
		ociclient.Executable("bin/busybox", busybox))
}
