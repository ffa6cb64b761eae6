package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/seed-2f228079/neargate/internal/ociclient"
)

// remoteTo is the argument that gives another platform the region eu-far-1.
func remoteTo(t *testing.T, p *platform) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "remotes.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"eu-far-1": {"endpoint": %q, "accessKeyId": "test", "secretAccessKey": "test"}}`, p.endpoint), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--remote-regions", file}
}

// signingProfiles is the argument that gives the default account the signing profile "prod".
func signingProfiles(t *testing.T) []string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "prod"}, NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "000000000000"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]pem.Block{"prod.key": {Type: "PRIVATE KEY", Bytes: private}, "prod.crt": {Type: "CERTIFICATE", Bytes: cert}} {
		if err := os.WriteFile(filepath.Join(dir, "000000000000", name), pem.EncodeToMemory(&block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"--signing-profiles", dir}
}

// pushText pushes a small image whose content is its tag.
func (p *platform) pushText(repository string, tags ...string) {
	p.t.Helper()
	for _, tag := range tags {
		if _, err := new(ociclient.Client).Push(p.t.Context(), p.listen+"/"+repository+":"+tag, ociclient.Credentials{User: "test", Password: "test"}, builtText(p.t, tag)); err != nil {
			p.t.Fatal(err)
		}
	}
}

// TestLifecyclePolicyOfUsedImages: a policy that would keep one image of four keeps also the one that a service runs.
func TestLifecyclePolicyOfUsedImages(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startOn(t, "fake")
	p.aws(nil, "ecr", "create-repository", "--repository-name", "web")
	p.pushText("web", "v1", "v2", "v3", "v4")
	p.aws(nil, "ecs", "create-cluster", "--cluster-name", "default")
	p.aws(nil, "ecs", "register-task-definition", "--family", "web", "--container-definitions",
		fmt.Sprintf(`[{"name":"web","image":"%s/web:v2","memory":128}]`, p.listen))
	p.aws(nil, "ecs", "create-service", "--service-name", "web", "--task-definition", "web", "--desired-count", "1")
	policy := `{"rules":[{"rulePriority":1,"description":"Keep the newest","selection":{"tagStatus":"tagged","tagPrefixList":["v"],"countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`
	p.aws(nil, "ecr", "start-lifecycle-policy-preview", "--repository-name", "web", "--lifecycle-policy-text", policy)
	p.aws(nil, "ecr", "wait", "lifecycle-policy-preview-complete", "--repository-name", "web")
	if got := p.text("sort(previewResults[].imageTags[])", "ecr", "get-lifecycle-policy-preview", "--repository-name", "web"); got != "v1\tv3" {
		t.Errorf("the preview has %q", got)
	}
	p.aws(nil, "ecr", "put-lifecycle-policy", "--repository-name", "web", "--lifecycle-policy-text", policy)
	eventually(t, 2*time.Minute, "the policy is applied", func() (bool, string) {
		got := p.text("sort(imageIds[].imageTag)", "ecr", "list-images", "--repository-name", "web")
		return got == "v2\tv4", got
	})
	p.refused("An error occurred (InvalidParameterException) when calling the PutLifecyclePolicy operation: Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: "+
		"'Lifecycle policy validation failure: Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED.'",
		"ecr", "put-lifecycle-policy", "--repository-name", "web", "--lifecycle-policy-text", strings.Replace(policy, `"tagPrefixList":["v"],`, "", 1))
}

// TestRegistries: two platforms, one of which replicates to the other and caches what it has, with the AWS CLI, and docker where an
// engine answers.
func TestRegistries(t *testing.T) {
	t.Parallel()
	needsNewAWS(t, "ecr", "validate-pull-through-cache-rule")
	far := startOn(t, "fake")
	near := startWith(t, "fake", remoteTo(t, far))
	near.aws(nil, "ecr", "put-replication-configuration", "--replication-configuration",
		`{"rules":[{"destinations":[{"region":"eu-far-1","registryId":"000000000000"}],"repositoryFilters":[{"filter":"prod/","filterType":"PREFIX_MATCH"}]}]}`)
	near.aws(nil, "ecr", "create-repository", "--repository-name", "prod/web")
	near.pushText("prod/web", "v1")
	eventually(t, time.Minute, "the image is replicated", func() (bool, string) {
		got := near.text("replicationStatuses[].[region,status]", "ecr", "describe-image-replication-status", "--repository-name", "prod/web", "--image-id", "imageTag=v1")
		return got == "eu-far-1\tCOMPLETE", got
	})
	digest := near.text("imageDetails[0].imageDigest", "ecr", "describe-images", "--repository-name", "prod/web")
	if got := far.as("eu-far-1", "test", "test").text("imageDetails[0].imageDigest", "ecr", "describe-images", "--repository-name", "prod/web"); got != digest {
		t.Errorf("there it is %s, here %s", got, digest)
	}

	// What came there comes back through a cache.
	near.aws(nil, "ecr", "create-pull-through-cache-rule", "--ecr-repository-prefix", "far", "--upstream-registry-url", far.listen)
	if got := near.text("isValid", "ecr", "validate-pull-through-cache-rule", "--ecr-repository-prefix", "far"); got != "True" {
		t.Errorf("valid: %s", got)
	}
	image, err := new(ociclient.Client).Resolve(t.Context(), near.listen+"/far/prod/web:v1", ociclient.Credentials{User: "test", Password: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if got := near.text("imageDetails[0].imageDigest", "ecr", "describe-images", "--repository-name", "far/prod/web"); got != digest || image.Digest != digest {
		t.Errorf("cached: %s, pulled: %s, pushed: %s", got, image.Digest, digest)
	}
	t.Run("docker", func(t *testing.T) {
		dockerEngine(t)
		config := t.TempDir()
		docker := func(args ...string) string {
			t.Helper()
			out, err := exec.Command("docker", append([]string{"--config", config}, args...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
			}
			return string(out)
		}
		docker("login", "--username", "test", "--password", "test", near.listen)
		ref := near.listen + "/far/prod/web:v1"
		t.Cleanup(func() { exec.Command("docker", "image", "rm", "--force", ref).Run() })
		if out := docker("pull", ref); !strings.Contains(out, image.Digest) {
			t.Errorf("docker pulled %s", out)
		}
	})
	far.stop()
	// What was pulled is served without it.
	if _, err := new(ociclient.Client).Resolve(t.Context(), near.listen+"/far/prod/web:v1", ociclient.Credentials{User: "test", Password: "test"}); err != nil {
		t.Error(err)
	}
}

func builtText(t *testing.T, text string) *ociclient.Built {
	t.Helper()
	image, err := ociclient.Build(ociclient.Config{Cmd: []string{"/app"}}, []ociclient.File{ociclient.Executable("app", []byte(text))})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// TestBoto3Registry has boto3 call the registry's operations: testdata/boto3_registry.py says what it wants.
func TestBoto3Registry(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 on this machine")
	}
	if out, err := exec.Command(python, "-c", "import boto3; boto3.client('ecr', region_name='x').put_signing_configuration").CombinedOutput(); err != nil {
		t.Skipf("python3 has no boto3 that knows PutSigningConfiguration: %s", out)
	}
	p := startWith(t, "fake", signingProfiles(t))
	if _, err := p.client().ECR.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: new("web")}); err != nil {
		t.Fatal(err)
	}
	p.pushText("web", "v1", "v2")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "testdata/boto3_registry.py", p.endpoint)
	cmd.Env = p.environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
