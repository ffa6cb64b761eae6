package registry_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/seed-2f228079/neargate/controlplane/state"
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

// withTags is a registry with a repository "users" that has so many tags, on two images, which it returns.
func withTags(t testing.TB, tags int) (*bench, []string) {
	b := newBench(t, func(c *registry.Config) { c.Quotas.Tags = 1 << 20 })
	b.create("users")
	images := []string{b.imageOf("users", "{}", "one"), b.imageOf("users", "{}", "two")}
	for i, m := range images {
		b.want(201, "PUT", fmt.Sprint("/v2/users/manifests/first", i), m, mediaType(ociManifest))
	}
	var first *registry.Tag
	for first = range registry.Tags.Scan(b.store.View(), state.K()) {
		break
	}
	for done := 2; done < tags; {
		_, err := b.store.Update(t.Context(), func(tx *state.Tx) error {
			for range min(tags-done, state.MaxOps) {
				registry.Tags.Put(tx, &registry.Tag{Account: first.Account, Region: first.Region, Repository: first.Repository,
					Name: fmt.Sprintf("t%07d", done), Digest: string(blob.Sum([]byte(images[done%2]))), Moved: first.Moved})
				done++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b, images
}

// BenchmarkManifestPut moves a tag to and fro in a repository that has this many tags: the cost is meant to be flat.
func BenchmarkManifestPut(b *testing.B) {
	for _, tags := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprint(tags, "tags"), func(b *testing.B) {
			r, images := withTags(b, tags)
			for i := 0; b.Loop(); i++ {
				r.want(201, "PUT", "/v2/users/manifests/moving", images[i%2], mediaType(ociManifest))
			}
		})
	}
}

// BenchmarkManifestNew puts an image that is not there yet, under a tag of its own, in a repository that has this many tags.
func BenchmarkManifestNew(b *testing.B) {
	for _, tags := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprint(tags, "tags"), func(b *testing.B) {
			r, images := withTags(b, tags)
			for i := 0; b.Loop(); i++ {
				r.want(201, "PUT", fmt.Sprint("/v2/users/manifests/new", i), images[0]+fmt.Sprintf("%*s", i+1, ""), mediaType(ociManifest))
			}
		})
	}
}

// BenchmarkListTags lists a page of 100 tags in the middle of a repository that has this many.
func BenchmarkListTags(b *testing.B) {
	for _, tags := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprint(tags, "tags"), func(b *testing.B) {
			r, _ := withTags(b, tags)
			for b.Loop() {
				r.want(200, "GET", fmt.Sprintf("/v2/users/tags/list?n=100&last=t%07d", tags/2), nil)
			}
		})
	}
}

// TestTenThousandTags: a repository of 10,000 tags is listed whole, page by page, in order, by both faces, and images go with all of their tags.
func TestTenThousandTags(t *testing.T) {
	b, images := withTags(t, 10_000)
	var got []string
	for path := "/v2/users/tags/list?n=700"; path != ""; {
		a := b.want(200, "GET", path, nil)
		var page struct{ Tags []string }
		if err := json.Unmarshal([]byte(a.body), &page); err != nil {
			t.Fatal(err)
		}
		got = append(got, page.Tags...)
		link, _, more := strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
		if path = link; more != (len(page.Tags) == 700 && len(got) < 10_000) {
			t.Fatalf("after %d tags: Link %q", len(got), a.Header.Get("Link"))
		}
	}
	if len(got) != 10_000 || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != 10_000 {
		t.Errorf("%d tags are listed; sorted: %v", len(got), slices.IsSorted(got))
	}
	n := 0
	for next := (*string)(nil); ; {
		out := must[ecr.ListImagesOutput](b, &ecr.ListImagesInput{RepositoryName: new("users"), MaxResults: new(int32(1000)), NextToken: next})
		n += len(out.ImageIds)
		if next = out.NextToken; next == nil {
			break
		}
	}
	if n != 10_000 {
		t.Errorf("ListImages has %d", n)
	}
	b.want(202, "DELETE", "/v2/users/manifests/"+string(blob.Sum([]byte(images[0]))), nil)
	left := 0
	for range registry.Tags.Scan(b.store.View(), state.K()) {
		left++
	}
	if left != 5_000 {
		t.Errorf("%d tags are left", left)
	}
}
