package registry_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/seed-2f228079/neargate/storage/blob"
)

// TestHostilePaths: no path reaches outside its repository or crashes, and each is answered in OCI's form.
func TestHostilePaths(t *testing.T) {
	b := newBench(t)
	b.create("users")
	d := "sha256:" + strings.Repeat("0", 64)
	for _, tc := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/v2/..%2f..%2fetc/blobs/" + d, 400, "NAME_INVALID"},
		{"GET", "/v2/Users/tags/list", 400, "NAME_INVALID"},
		{"GET", "/v2/" + strings.Repeat("a", 300) + "/tags/list", 400, "NAME_INVALID"},
		{"GET", "/v2/a%00b/tags/list", 400, "NAME_INVALID"},
		{"GET", "/v2//tags/list", 400, "NAME_INVALID"},
		{"GET", "/v2/users%0a/tags/list", 400, "NAME_INVALID"},
		{"GET", "/v2/users/blobs/sha256:..%2f..%2f..%2fetc%2fpasswd", 404, ""},
		{"GET", "/v2/users/blobs/sha256:" + strings.Repeat("0", 63), 400, "DIGEST_INVALID"},
		{"GET", "/v2/users/blobs/md5:" + strings.Repeat("0", 32), 400, "DIGEST_INVALID"},
		{"GET", "/v2/users/blobs/" + d, 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/users/manifests/" + d, 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/users/manifests/-x", 404, "MANIFEST_UNKNOWN"},
		{"PUT", "/v2/users/manifests/-x", 400, "TAG_INVALID"},
		{"PUT", "/v2/users/manifests/" + strings.Repeat("a", 129), 400, "TAG_INVALID"},
		{"PUT", "/v2/users/manifests/sha256:x", 400, "DIGEST_INVALID"},
		{"GET", "/v2/users/blobs/uploads/..%2f..%2fFORMAT", 404, ""},
		{"PATCH", "/v2/users/blobs/uploads/" + strings.Repeat("A", 26), 404, "BLOB_UPLOAD_UNKNOWN"},
		{"POST", "/v2/users/blobs/uploads/?digest=x", 400, "DIGEST_INVALID"},
		{"POST", "/v2/users/blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID"},
		{"GET", "/v2/users/referrers/x", 400, "DIGEST_INVALID"},
		{"POST", "/v2/users/tags/list", 405, "UNSUPPORTED"},
		{"GET", "/v2/users", 404, "UNSUPPORTED"},
		{"GET", "/v2/users/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"},
	} {
		a := b.do(tc.method, tc.path, "")
		if a.StatusCode != tc.status || tc.code != "" && a.code() != tc.code {
			t.Errorf("%s %s: %d %s", tc.method, tc.path, a.StatusCode, a.body)
		}
	}
	// Names whose parts are called like endpoints are names.
	for _, name := range []string{"blobs/uploads", "manifests/tags", "tags/list/v2", "referrers/blobs"} {
		b.create(name)
		d := b.pushImage(name, "v1", name)
		b.want(200, "GET", "/v2/"+name+"/manifests/"+string(d), nil)
		b.want(200, "GET", "/v2/"+name+"/tags/list", nil)
	}
}

func TestHostileManifests(t *testing.T) {
	b := newBench(t)
	b.create("users")
	config, layer := b.pushBlob("users", "{}"), b.pushBlob("users", "layer")
	image := func(change string, v any) string {
		m := map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": desc(ociConfig, config, 2), "layers": []any{desc(ociLayer, layer, 5)}}
		m[change] = v
		return marshal(m)
	}
	none := blob.Sum([]byte("none"))
	many := make([]any, 2000) // and the config
	for i := range many {
		many[i] = desc(ociLayer, layer, 5)
	}
	for name, tc := range map[string]struct {
		body, mediaType string
		status          int
		code            string
	}{
		"empty":                   {"", ociManifest, 400, "MANIFEST_INVALID"},
		"not JSON":                {"{", ociManifest, 400, "MANIFEST_INVALID"},
		"null":                    {"null", ociManifest, 400, "MANIFEST_INVALID"},
		"a list":                  {"[]", ociManifest, 400, "MANIFEST_INVALID"},
		"deep":                    {strings.Repeat("[", 100_000), ociManifest, 400, "MANIFEST_INVALID"},
		"schema 1":                {image("schemaVersion", 1), ociManifest, 400, "MANIFEST_INVALID"},
		"another media type":      {image("mediaType", ociIndex), ociManifest, 400, "MANIFEST_INVALID"},
		"an unknown media type":   {image("mediaType", "text/html"), "text/html", 400, "MANIFEST_INVALID"},
		"both index and image":    {image("manifests", []any{}), ociManifest, 400, "MANIFEST_INVALID"},
		"no config":               {image("config", nil), ociManifest, 400, "MANIFEST_INVALID"},
		"a negative size":         {image("config", desc(ociConfig, config, -1)), ociManifest, 400, "MANIFEST_INVALID"},
		"a wrong size":            {image("layers", []any{desc(ociLayer, layer, 6)}), ociManifest, 400, "MANIFEST_INVALID"},
		"a digest that is a path": {image("layers", []any{desc(ociLayer, "sha256:../../../../etc/passwd", 5)}), ociManifest, 400, "MANIFEST_INVALID"},
		"a layer not pushed":      {image("layers", []any{desc(ociLayer, none, 5)}), ociManifest, 400, "MANIFEST_BLOB_UNKNOWN"},
		"a subject without form":  {image("subject", desc(ociManifest, "x", 5)), ociManifest, 400, "MANIFEST_INVALID"},
		"2001 references":         {image("layers", many), ociManifest, 403, "DENIED"},
		"over 4 MiB":              {image("annotations", map[string]string{"x": strings.Repeat("x", 4<<20)}), ociManifest, 413, "SIZE_INVALID"},
		"a child not pushed": {marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{desc(ociManifest, none, 5)}}), ociIndex,
			400, "MANIFEST_BLOB_UNKNOWN"},
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			if a := b.do("PUT", "/v2/users/manifests/v1", tc.body, mediaType(tc.mediaType)); a.StatusCode != tc.status || a.code() != tc.code {
				t.Errorf("%d %.300s", a.StatusCode, a.body)
			}
		})
	}
	b.t = t
	if a := b.want(200, "GET", "/v2/users/tags/list", nil); !strings.Contains(a.body, `"tags":[]`) {
		t.Errorf("something was kept: %s", a.body)
	}
	refused[ecr.PutImageOutput](b, &ecr.PutImageInput{RepositoryName: new("users"), ImageManifest: new(image("layers", many))},
		"LimitExceededException: The image manifest refers to 2001 layers and images, more than the 2000 that it may")
	// What is large but within bounds is taken: 1999 distinct layers and a config.
	var layers []string
	for i := range 1999 {
		layers = append(layers, fmt.Sprint(i))
	}
	b.want(201, "PUT", "/v2/users/manifests/large", b.imageOf("users", "{}", layers...), mediaType(ociManifest))
	// A digest that the content does not have.
	if a := b.want(400, "PUT", "/v2/users/manifests/"+string(none), image("x", 1), mediaType(ociManifest)); a.code() != "DIGEST_INVALID" {
		t.Errorf("wrong digest: %s", a.body)
	}
}

// TestLostBlob: a blob that vanished from the disk reads as absent, so that the next push repairs the image.
func TestLostBlob(t *testing.T) {
	b := newBench(t)
	b.create("users")
	b.pushImage("users", "v1", "x")
	d := string(blob.Sum([]byte("x")))
	if ok, err := b.blobs.Delete(blob.Digest(d), func() (bool, error) { return true, nil }); !ok || err != nil {
		t.Fatal(ok, err)
	}
	b.want(404, "HEAD", "/v2/users/blobs/"+d, nil)
	b.want(404, "GET", "/v2/users/blobs/"+d, nil)
	m := b.want(200, "GET", "/v2/users/manifests/v1", nil).body
	b.want(400, "PUT", "/v2/users/manifests/v2", m, mediaType(ociManifest))
	b.pushImage("users", "v2", "x")
	b.want(200, "GET", "/v2/users/blobs/"+d, nil)
}
