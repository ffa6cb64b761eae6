package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMicroservices runs the example's script as its reader would, with the real docker and AWS CLI, for the first version
// and for an update, on both drivers and in both launch types.
func TestMicroservices(t *testing.T) {
	for _, c := range []struct {
		driver, launchType string
		versions           []string
	}{
		{"native", "EC2", []string{"v1", "v2"}},
		{"docker", "EC2", []string{"v1", "v2"}},
		{"native", "FARGATE", []string{"v1"}},
	} {
		t.Run(c.driver+"/"+c.launchType, func(t *testing.T) {
			t.Parallel()
			needsAWS(t)
			commands := awsCommands()
			dockerEngine(t)
			p := startOn(t, c.driver)
			e := newExample(t, p, c.launchType)
			for i, version := range c.versions {
				e.deploy(version, commands[i%len(commands)]) // an old and a new AWS CLI, where both are there
				e.answers(version)
			}
			e.pullsBack(c.versions[len(c.versions)-1])
			e.removed()
		})
	}
}

// example is the folder of examples/microservices with its binaries, as `make example` leaves it.
type example struct {
	*platform
	dir, launchType, port string
}

func newExample(t *testing.T, p *platform, launchType string) *example {
	e := &example{p, t.TempDir(), launchType, freePort(t)}
	if err := os.CopyFS(filepath.Join(e.dir, "bin"), os.DirFS(services)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"deploy.sh", "Dockerfile"} {
		b, err := os.ReadFile(filepath.Join(repo, "examples/microservices", f))
		if err == nil {
			err = os.WriteFile(filepath.Join(e.dir, f), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p.extra = append(p.extra, "DOCKER_CONFIG="+filepath.Join(e.dir, "docker"))
	return e
}

// deploy runs deploy.sh with the given AWS CLI.
func (e *example) deploy(version, awsCommand string) {
	e.t.Helper()
	first := filepath.Join(e.dir, "path-"+version)
	script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", awsCommand)
	if err := errors.Join(os.MkdirAll(first, 0o755), os.WriteFile(filepath.Join(first, "aws"), []byte(script), 0o755)); err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(e.dir, "deploy.sh"), version)
	cmd.Env = append(e.environment(), "LAUNCH_TYPE="+e.launchType, "PORT="+e.port, "PATH="+first+":"+os.Getenv("PATH"))
	began := time.Now()
	out, err := cmd.CombinedOutput()
	e.t.Cleanup(func() { e.dropImages(version) })
	if err != nil {
		e.t.Fatalf("deploy.sh %s: %v\n%s\nservices: %s", version, err, out, e.text("services[].events[:4].message", "ecs", "describe-services", "--cluster",
			"microservices", "--services", "users", "threads", "posts"))
	}
	e.t.Logf("deploy.sh %s with %s took %v", version, awsCommand, time.Since(began).Round(100*time.Millisecond))
	if want := `"username":"ada"`; !strings.Contains(string(out), want) {
		e.t.Errorf("deploy.sh %s did not print %s:\n%s", version, want, out)
	}
}

// answers checks that every service answers with this version alone: the tasks of the version before are gone.
func (e *example) answers(version string) {
	e.t.Helper()
	host := e.text("LoadBalancers[0].DNSName", "elbv2", "describe-load-balancers", "--names", "microservices")
	for _, path := range []string{"/api/users/2", "/api/threads/1", "/api/posts/in-thread/2"} {
		for range 10 {
			if got := e.get(host, path).Header.Get("X-Version"); got != version {
				e.t.Errorf("%s is answered by version %q, want %q", path, got, version)
			}
		}
	}
	if got := e.get(host, "/api/other").StatusCode; got != 404 {
		e.t.Errorf("a path that no rule has is answered %d", got)
	}
	for _, s := range []string{"users", "threads", "posts"} {
		group := e.text("TargetGroups[0].TargetGroupArn", "elbv2", "describe-target-groups", "--names", s)
		eventually(e.t, time.Minute, "two healthy targets of "+s, func() (bool, string) { // the script waits for one of each
			states := e.text("TargetHealthDescriptions[].TargetHealth.State", "elbv2", "describe-target-health", "--target-group-arn", group)
			return states == "healthy\thealthy", states
		})
	}
}

// get asks the load balancer's listener on the shared address.
func (e *example) get(host, path string) *http.Response {
	e.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+e.port+path, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		e.t.Fatal(err)
	}
	return res
}

// pullsBack has docker fetch what it pushed, under its tag and under the digest that ECR knows.
func (e *example) pullsBack(version string) {
	e.t.Helper()
	digest := e.text("imageDetails[0].imageDigest", "ecr", "describe-images", "--repository-name", "posts", "--image-ids", "imageTag="+version)
	tag := e.listen + "/posts:" + version
	e.docker("image", "rm", "--force", tag)
	e.docker("pull", "--quiet", tag)
	if got := e.docker("image", "inspect", "--format", "{{join .RepoDigests \" \"}}", tag); !strings.Contains(got, e.listen+"/posts@"+digest) {
		e.t.Errorf("docker pulled %s, ECR has %s", got, digest)
	}
	e.docker("pull", "--quiet", e.listen+"/posts@"+digest)
}

func (e *example) docker(args ...string) string {
	e.t.Helper()
	cmd := exec.Command("docker", args...)
	cmd.Env = e.environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		e.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// dropImages takes the test's images off the engine, which is not ours alone.
func (e *example) dropImages(version string) {
	for _, s := range []string{"users", "threads", "posts"} {
		exec.Command("docker", "image", "rm", "--force", e.listen+"/"+s+":"+version).Run()
	}
}

// removed takes the example down as a user does and sees all of it gone.
func (e *example) removed() {
	e.t.Helper()
	tasks := strings.Fields(e.text("taskArns[]", "ecs", "list-tasks", "--cluster", "microservices"))
	if len(tasks) != 6 {
		e.t.Errorf("%d tasks run, want 6", len(tasks))
	}
	e.refused("An error occurred (ClusterContainsServicesException) when calling the DeleteCluster operation: "+
		"The Cluster cannot be deleted while Services are active.", "ecs", "delete-cluster", "--cluster", "microservices")
	for _, s := range []string{"users", "threads", "posts"} {
		e.aws(nil, "ecs", "delete-service", "--cluster", "microservices", "--service", s, "--force")
	}
	e.aws(nil, "ecs", "wait", "services-inactive", "--cluster", "microservices", "--services", "users", "threads", "posts")
	e.aws(nil, append([]string{"ecs", "wait", "tasks-stopped", "--cluster", "microservices", "--tasks"}, tasks...)...)
	e.aws(nil, "ecs", "delete-cluster", "--cluster", "microservices")
}
