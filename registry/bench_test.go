package registry_test

import (
	"fmt"
	"testing"

	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// BenchmarkBlobPush pushes distinct 1 KiB blobs in one request each, over HTTP, to a state in memory and a real disk.
func BenchmarkBlobPush(b *testing.B) {
	r := newBench(b)
	r.create("users")
	content := make([]byte, 1024)
	for i := 0; b.Loop(); i++ {
		copy(content, fmt.Sprint(i))
		r.want(201, "POST", "/v2/users/blobs/uploads/?digest="+string(blob.Sum(content)), content)
	}
}

// BenchmarkManifestPut moves a tag to and fro in a repository that has this many tags: the cost is meant to be flat.
func BenchmarkManifestPut(b *testing.B) {
	for _, tags := range []int{10, 1000} {
		b.Run(fmt.Sprint(tags, "tags"), func(b *testing.B) {
			r := newBench(b, func(c *registry.Config) { c.Quotas.Tags = 1 << 20 })
			r.create("users")
			images := []string{r.imageOf("users", "{}", "one"), r.imageOf("users", "{}", "two")}
			for i := range tags {
				r.want(201, "PUT", fmt.Sprint("/v2/users/manifests/t", i), images[0], mediaType(ociManifest))
			}
			for i := 0; b.Loop(); i++ {
				r.want(201, "PUT", "/v2/users/manifests/moving", images[i%2], mediaType(ociManifest))
			}
		})
	}
}
