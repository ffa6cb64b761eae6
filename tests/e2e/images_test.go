package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// imageTool is skopeo or podman as one of its users has it: logins, image store, and a proxy by which names of registries lead to the
// platform, which no resolver of this machine knows.
type imageTool struct {
	t    *testing.T
	name string
	args []string // before the verb
	auth string   // file with logins
	env  []string
}

func (p *platform) imageTool(t *testing.T, name string, args ...string) *imageTool {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("there is no %s on this machine (Debian: apt-get install %s)", name, name)
	}
	target, err := url.Parse("http://" + p.listen)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		if r.In.Method == http.MethodConnect { // TLS, which the platform does not speak here: the tool falls back
			r.Out.URL.Path = "/no-tls"
		}
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, r.In.Host
	}})
	t.Cleanup(proxy.Close)
	home := t.TempDir()
	auth := filepath.Join(home, "auth.json")
	policy := filepath.Join(home, ".config/containers/policy.json")
	if err := os.MkdirAll(filepath.Dir(policy), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home, "TMPDIR="+home, "HTTP_PROXY="+proxy.URL, "HTTPS_PROXY="+proxy.URL, "http_proxy="+proxy.URL, "https_proxy="+proxy.URL, "REGISTRY_AUTH_FILE="+auth)
	return &imageTool{t: t, name: name, args: args, auth: auth, env: env}
}

func (i *imageTool) try(args ...string) (string, error) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, i.name, append(i.args[:len(i.args):len(i.args)], args...)...)
	cmd.Env = i.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (i *imageTool) run(args ...string) string {
	i.t.Helper()
	out, err := i.try(args...)
	if err != nil {
		i.t.Fatalf("%s %s: %v\n%s", i.name, strings.Join(args, " "), err, out)
	}
	return out
}

// refused runs what must fail, with this in what it says.
func (i *imageTool) refused(want string, args ...string) {
	i.t.Helper()
	if out, err := i.try(args...); err == nil || !strings.Contains(out, want) {
		i.t.Errorf("%s %s: %v: %s; want %s", i.name, strings.Join(args, " "), err, out, want)
	}
}

// TestCrossAccountImages: an account lets another one use a repository. Its policy is set with the AWS CLI, images are copied, pushed and pulled by
// skopeo with the token of the other account, and a task of that account runs one.
func TestCrossAccountImages(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	const other = "222222222222"
	p := start(t, "NEARGATE_ACCOUNTS="+other+":AKIAOTHERROOT00000000:other-secret")
	q := p.as("us-east-1", "AKIAOTHERROOT00000000", "other-secret")
	ref := p.pushShell()
	name, tag, _ := strings.Cut(strings.TrimPrefix(ref, p.listen+"/"), ":")
	_, port, _ := strings.Cut(p.listen, ":")
	home := "000000000000.dkr.ecr.us-east-1.localhost:" + port // the first account's registry, for anybody
	shared := home + "/" + name

	skopeo := p.imageTool(t, "skopeo")
	skopeo.run("login", "--tls-verify=false", "--username", "AWS", "--password", q.password(), home)
	inspect := []string{"inspect", "--tls-verify=false", "docker://" + shared + ":" + tag}
	skopeo.refused("no resource-based policy allows the ecr:BatchGetImage action", inspect...)
	q.refused("An error occurred (AccessDeniedException) when calling the DescribeImages operation: User: arn:aws:iam::"+other+":root is not authorized to perform: "+
		"ecr:DescribeImages on resource: arn:aws:ecr:us-east-1:000000000000:repository/"+name+" because no resource-based policy allows the ecr:DescribeImages action",
		"ecr", "describe-images", "--registry-id", "000000000000", "--repository-name", name)

	definition := func() string {
		text, err := json.Marshal([]map[string]any{{"name": "app", "image": shared + ":" + tag, "memory": 64, "command": []string{"echo it runs"}}})
		if err != nil {
			t.Fatal(err)
		}
		return q.text("taskDefinition.taskDefinitionArn", "ecs", "register-task-definition", "--family", "borrowed", "--container-definitions", string(text))
	}
	q.aws(nil, "ecs", "create-cluster", "--cluster-name", "default")
	runs := func(want string) {
		t.Helper()
		task := q.text("tasks[0].taskArn", "ecs", "run-task", "--task-definition", definition())
		q.aws(nil, "ecs", "wait", "tasks-stopped", "--tasks", task)
		if got := q.text("tasks[0].[stopCode, containers[0].exitCode, containers[0].reason]", "ecs", "describe-tasks", "--tasks", task); !strings.Contains(got, want) {
			t.Errorf("the task ended with %s, want %s", got, want)
		}
	}
	runs("because no resource-based policy allows")

	policy := `{"Version":"2012-10-17","Statement":[{"Sid":"friends","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + other + `:root"},"Action":["ecr:BatchGetImage",
		"ecr:GetDownloadUrlForLayer","ecr:BatchCheckLayerAvailability","ecr:DescribeImages","ecr:InitiateLayerUpload","ecr:UploadLayerPart","ecr:CompleteLayerUpload","ecr:PutImage"]}]}`
	p.aws(nil, "ecr", "set-repository-policy", "--repository-name", name, "--policy-text", policy)
	if got := p.text("policyText", "ecr", "get-repository-policy", "--repository-name", name); got != policy {
		t.Errorf("the policy reads %s", got)
	}
	digest := p.text("imageDetails[0].imageDigest", "ecr", "describe-images", "--repository-name", name)
	if out := skopeo.run(inspect...); !strings.Contains(out, digest) {
		t.Errorf("skopeo shows %s, want %s", out, digest)
	}
	runs("EssentialContainerExited\t0")

	// A copy by the stranger: out of the repository, to a new tag of it, and into its own registry.
	skopeo.run("login", "--tls-verify=false", "--username", "AWS", "--password", q.password(), p.listen)
	q.aws(nil, "ecr", "create-repository", "--repository-name", "own")
	folder := t.TempDir()
	for _, step := range [][2]string{{"docker://" + shared + ":" + tag, "dir:" + folder}, {"dir:" + folder, "docker://" + shared + ":again"}, {"docker://" + shared + ":again", "docker://" + p.listen + "/own:v1"}} {
		skopeo.run("copy", "--src-tls-verify=false", "--dest-tls-verify=false", step[0], step[1])
	}
	if got := p.text("imageDetails[0].[imageDigest, sort(imageTags) | join(' ', @)]", "ecr", "describe-images", "--repository-name", name); got != digest+"\t"+tag+" again" {
		t.Errorf("the shared repository has %s", got)
	}
	if got := q.text("imageDetails[0].imageDigest", "ecr", "describe-images", "--repository-name", "own"); got != digest {
		t.Errorf("the copy is %s, not %s", got, digest)
	}
	if got := q.text("images[0].imageId.imageTag", "ecr", "batch-get-image", "--registry-id", "000000000000", "--repository-name", name, "--image-ids", "imageTag=again"); got != "again" {
		t.Errorf("batch-get-image gave %q", got)
	}
	skopeo.refused("no resource-based policy allows the ecr:BatchDeleteImage action", "delete", "--tls-verify=false", "docker://"+shared+":again")

	p.aws(nil, "ecr", "delete-repository-policy", "--repository-name", name)
	skopeo.refused("no resource-based policy allows", inspect...)
	p.refused("An error occurred (RepositoryPolicyNotFoundException) when calling the GetRepositoryPolicy operation: Repository policy does not exist for the repository with name '"+name+"' in the registry with id '000000000000'",
		"ecr", "get-repository-policy", "--repository-name", name)
}

// password is what `docker login --username AWS` takes.
func (p *platform) password() string {
	p.t.Helper()
	out, errs, err := p.try("ecr", "get-login-password", "--output", "text")
	if err != nil {
		p.t.Fatalf("get-login-password: %v %s", err, errs)
	}
	return strings.TrimSpace(out)
}

// TestImageTools has skopeo and podman push, copy, list, pull and delete, images and an index of them.
func TestImageTools(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startOn(t, "fake")
	p.aws(nil, "ecr", "create-repository", "--repository-name", "team/app")
	ref := p.listen + "/team/app"
	p.pushText("team/app", "v1")
	digest := p.text("imageDetails[0].imageDigest", "ecr", "describe-images", "--repository-name", "team/app")

	t.Run("skopeo", func(t *testing.T) {
		skopeo := p.imageTool(t, "skopeo")
		skopeo.run("login", "--tls-verify=false", "--username", "AWS", "--password", p.password(), p.listen)
		skopeo.run("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+ref+":v1", "docker://"+ref+":copied")
		for _, format := range []string{"oci", "v2s2"} { // converted, so pushed anew
			skopeo.run("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", format, "--dest-compress-format", "zstd", "docker://"+ref+":v1", "docker://"+ref+":"+format)
		}
		var tags struct{ Tags []string }
		if err := json.Unmarshal([]byte(skopeo.run("list-tags", "--tls-verify=false", "docker://"+ref)), &tags); err != nil || fmt.Sprint(tags.Tags) != "[copied oci v1 v2s2]" {
			t.Errorf("tags %v, %v", tags.Tags, err)
		}
		if got := skopeo.run("inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+ref+":copied"); strings.TrimSpace(got) != digest {
			t.Errorf("copied: %s, want %s", got, digest)
		}
		skopeo.run("delete", "--tls-verify=false", "docker://"+ref+":v2s2")
		skopeo.refused("manifest unknown", "inspect", "--tls-verify=false", "docker://"+ref+":v2s2")
		skopeo.refused("name unknown", "inspect", "--tls-verify=false", "docker://"+p.listen+"/nobody/home:v1")
	})
	t.Run("podman", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("podman without root needs subordinate ids")
		}
		store, err := os.MkdirTemp("", "podman-") // its folder for what runs may have 50 characters, which those of TempDir may exceed
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(store); err != nil {
				t.Error(err)
			}
		})
		podman := p.imageTool(t, "podman", "--root", filepath.Join(store, "root"), "--runroot", filepath.Join(store, "run"), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none")
		podman.run("login", "--tls-verify=false", "--username", "AWS", "--password", p.password(), p.listen)
		podman.run("pull", "--tls-verify=false", ref+":v1")
		podman.run("tag", ref+":v1", ref+":podman")
		podman.run("push", "--tls-verify=false", ref+":podman")
		podman.run("manifest", "create", "list")
		podman.run("manifest", "add", "--tls-verify=false", "list", "docker://"+ref+":podman")
		podman.run("manifest", "push", "--tls-verify=false", "--all", "list", "docker://"+ref+":index")
		if got := p.text("imageDetails[?contains(imageTags || `[]`, 'index')].imageManifestMediaType | [0]", "ecr", "describe-images", "--repository-name", "team/app"); !strings.Contains(got, "list") && !strings.Contains(got, "index") {
			t.Errorf("the index is of type %s", got)
		}
		podman.run("rmi", "--all", "--force")
		podman.run("pull", "--tls-verify=false", ref+":index")
	})
}
