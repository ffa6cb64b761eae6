package registry_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/registry"
)

// TestQuotas: what is one too many is refused, in ECR's code and in words that docker shows; what is deleted makes room at once, and what is
// there can be pushed again.
func TestQuotas(t *testing.T) {
	b := newBench(t, func(c *registry.Config) { c.Quotas = registry.Quotas{Repositories: 2, Images: 3, Tags: 2} })
	b.create("one", "two")
	refused[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: new("three")},
		"LimitExceededException: The registry with id '000000000000' has 2 repositories already, which is the limit")
	refused[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: new("two")},
		"RepositoryAlreadyExistsException: The repository with name 'two' already exists in the registry with id '000000000000'")
	if _, err := call[ecr.CreateRepositoryOutput](b, account, elsewhere, &ecr.CreateRepositoryInput{RepositoryName: new("three")}); err != nil {
		t.Errorf("another region: %v", err)
	}
	must[ecr.DeleteRepositoryOutput](b, &ecr.DeleteRepositoryInput{RepositoryName: new("two")})
	b.create("three")

	for _, restart := range []bool{false, true} { // counted while it grew, and counted anew
		if restart {
			b.restart()
		} else {
			for i := range 3 {
				b.pushImage("one", fmt.Sprint("v", i), fmt.Sprint(i))
			}
		}
		m := b.imageOf("one", "{}", "more")
		a := b.want(403, "PUT", "/v2/one/manifests/more", m, mediaType(ociManifest))
		const message = "The repository with name 'one' in the registry with id '000000000000' has 3 images already, which is the limit"
		if a.code() != "DENIED" || !strings.Contains(a.body, message) {
			t.Errorf("docker is told %s", a.body)
		}
		refused[ecr.PutImageOutput](b, &ecr.PutImageInput{RepositoryName: new("one"), ImageManifest: &m}, "LimitExceededException: "+message)
		b.pushImage("one", "v0", "0") // which is there
		b.pushImage("three", "v0", "0")
	}
	must[ecr.BatchDeleteImageOutput](b, &ecr.BatchDeleteImageInput{RepositoryName: new("one"), ImageIds: []types.ImageIdentifier{{ImageTag: new("v2")}}})
	digest := b.pushImage("one", "again", "more")

	b.pushImage("one", "again-2", "more")
	a := b.want(403, "PUT", "/v2/one/manifests/again-3", b.imageOf("one", `{"config":"more"}`, "more"), mediaType(ociManifest))
	if want := "The image with digest '" + string(digest) + "' in the repository with name 'one' in the registry with id '000000000000' has 2 tags already, which is the limit"; !strings.Contains(a.body, want) {
		t.Errorf("docker is told %s, want %s", a.body, want)
	}
	b.pushImage("one", "again", "more") // which it has
	for range 5 {                       // a tag that moves takes no room
		b.pushImage("one", "v0", "1")
		b.pushImage("one", "v0", "0")
	}
}
