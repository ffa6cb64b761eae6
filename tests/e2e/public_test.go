package e2e

import (
	"context"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/seed-2f228079/neargate/internal/ociclient"
)

// TestPublicRegistry: what the AWS CLI made in ECR Public is pushed with its password, pulled by somebody without any, and runs in a task.
func TestPublicRegistry(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("there is no static busybox on this machine (Debian: apt-get install busybox-static)")
	}
	p := startOn(t, "native")
	uri := p.text("repository.repositoryUri", "ecr-public", "create-repository", "--repository-name", "team/web", "--catalog-data", "description=a site,architectures=x86-64")
	if got := p.text("registries[0].registryUri", "ecr-public", "describe-registries"); uri != got+"/team/web" {
		t.Errorf("the repository is %s in the registry %s", uri, got)
	}
	if got := p.text("catalogData.description", "ecr-public", "get-repository-catalog-data", "--repository-name", "team/web"); got != "a site" {
		t.Errorf("it is %q", got)
	}
	private := p.push("web", "v1", ociclient.Config{Entrypoint: []string{"/bin/busybox", "sleep", "600"}}, ociclient.Executable("bin/busybox", busybox))
	password, errs, err := p.try("ecr-public", "get-login-password")
	if err != nil {
		t.Fatalf("%v: %s", err, errs)
	}

	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, p.listen)
	}
	defer transport.CloseIdleConnections()
	at := func(image string) name.Reference {
		ref, err := name.ParseReference(image, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	image, err := remote.Image(at(private), remote.WithAuth(&authn.Basic{Username: "test", Password: "test"}))
	if err != nil {
		t.Fatal(err)
	}
	public := at(uri + ":v1")
	if err := remote.Write(public, image, remote.WithTransport(transport), remote.WithAuth(&authn.Basic{Username: "AWS", Password: strings.TrimSpace(password)})); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Image(public, remote.WithTransport(transport)); err != nil {
		t.Errorf("an anonymous pull: %v", err)
	}
	if got := p.text("imageTagDetails[].imageTag", "ecr-public", "describe-image-tags", "--repository-name", "team/web"); got != "v1" {
		t.Errorf("its tags are %q", got)
	}
	p.aws(nil, "ecs", "register-task-definition", "--family", "web", "--container-definitions", `[{"name":"web","image":"`+uri+`:v1","memory":64}]`)
	task := p.text("tasks[0].taskArn", "ecs", "run-task", "--task-definition", "web")
	p.aws(nil, "ecs", "wait", "tasks-running", "--tasks", task)
	p.refused("An error occurred (RepositoryNotEmptyException) when calling the DeleteRepository operation: The repository with name 'team/web' in registry with id '000000000000' cannot be deleted because it still contains images",
		"ecr-public", "delete-repository", "--repository-name", "team/web")
}
