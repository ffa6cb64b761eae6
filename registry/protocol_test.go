package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

func TestLogin(t *testing.T) {
	b := newBench(t)
	b.create("users")
	a := b.want(401, "GET", "/v2/", nil, anonymous())
	if got, want := a.Header.Get("WWW-Authenticate"), `Basic realm="`+b.server.URL+`/",service="ecr"`; got != want {
		t.Errorf("challenge %q, want %q", got, want)
	}
	if a.code() != "UNAUTHORIZED" || a.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Errorf("anonymous: %v %s", a.Header, a.body)
	}
	b.want(200, "GET", "/v2/", nil)
	pull := b.reg.PullToken(account, region, "users")
	letter := "x"
	if b.token[20:21] == letter {
		letter = "y"
	}
	for name, tc := range map[string]struct {
		user, password string
		after          time.Duration
		want           int
	}{
		"a token":                     {"AWS", b.token, 0, 200},
		"a token at its end":          {"AWS", b.token, 12*time.Hour - time.Second, 200},
		"an expired token":            {"AWS", b.token, 12 * time.Hour, 401},
		"an expired pull token":       {"AWS", pull, time.Hour, 401},
		"a changed token":             {"AWS", b.token[:20] + letter + b.token[21:], 0, 401},
		"nothing":                     {"AWS", "", 0, 401},
		"another user":                {"root", b.token, 0, 401},
		"a key where none is checked": {"test", "test", 0, 401},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.clock.Advance(tc.after)
			b.t = t
			b.want(tc.want, "GET", "/v2/", nil, basic(tc.user, tc.password))
		})
	}
}

func TestAccessKey(t *testing.T) {
	b := newBench(t, acceptKey("AKIA", "secret", account))
	b.create("users")
	b.want(200, "GET", "/v2/users/tags/list", nil, basic("AKIA", "secret"))
	b.want(401, "GET", "/v2/users/tags/list", nil, basic("AKIA", "wrong"))
}

// TestPullToken is what a task's host is given: it reads one repository and nothing else.
func TestPullToken(t *testing.T) {
	b := newBench(t, func(c *registry.Config) { c.Domain = "localhost" })
	b.create("users", "threads")
	b.pushImage("users", "v1", "x")
	user, password, ok := b.reg.PullCredentials(account, region, b.host()+"/users:v1", nil)
	if !ok {
		t.Fatal("the registry does not know its own image")
	}
	as := basic(user, password)
	b.want(200, "GET", "/v2/users/manifests/v1", nil, as)
	for _, tc := range [][2]string{
		{"GET", "/v2/threads/tags/list"}, {"GET", "/v2/_catalog"}, {"POST", "/v2/users/blobs/uploads/"},
		{"PUT", "/v2/users/manifests/v2"}, {"DELETE", "/v2/users/manifests/v1"},
	} {
		if a := b.want(403, tc[0], tc[1], "", as); a.code() != "DENIED" {
			t.Errorf("%v: %s", tc, a.body)
		}
	}
	for _, image := range []string{"users:v1", "docker.io/library/nginx", account + ".dkr.ecr.us-east-1.amazonaws.com/users:v1", "127.0.0.1/users", ""} {
		if _, _, ok := b.reg.PullCredentials(account, region, image, nil); ok {
			t.Errorf("%q is taken for ours", image)
		}
	}
	for _, image := range []string{account + ".dkr.ecr.us-east-1.localhost:4566/users:v1", b.host() + "/users", b.host() + "/users@sha256:" + strings.Repeat("0", 64), b.host() + "/users:v1@sha256:" + strings.Repeat("0", 64)} {
		_, password, ok := b.reg.PullCredentials(account, region, image, nil)
		if !ok {
			t.Fatalf("%q is not taken for ours", image)
		}
		b.want(200, "GET", "/v2/users/manifests/v1", nil, basic("AWS", password))
	}
}

// TestPullAsSomebody: the password of a task with an execution role reads the one repository, so far as the role may.
func TestPullAsSomebody(t *testing.T) {
	allowed := map[string]bool{}
	b := newBench(t, func(c *registry.Config) {
		c.Authorizer = authorizer(func(c *api.Call, a api.Access) error {
			if c.Root || c.ARN == "arn:role" && allowed[a.Action] {
				return nil
			}
			return errors.New(c.ARN + " is not authorized to perform: " + a.Action)
		})
	})
	b.create("users", "threads")
	b.pushImage("users", "v1", "x")
	b.pushImage("threads", "v1", "x")
	_, password, ok := b.reg.PullCredentials(account, region, b.host()+"/users:v1", &api.Identity{Account: account, ARN: "arn:role"})
	if !ok {
		t.Fatal("the registry does not know its own image")
	}
	as := basic("AWS", password)
	if a := b.want(403, "GET", "/v2/users/manifests/v1", nil, as); !strings.Contains(string(a.body), "arn:role is not authorized to perform: ecr:BatchGetImage") {
		t.Errorf("%s", a.body)
	}
	allowed["ecr:BatchGetImage"], allowed["ecr:InitiateLayerUpload"] = true, true
	b.want(200, "GET", "/v2/users/manifests/v1", nil, as)
	b.want(403, "GET", "/v2/threads/manifests/v1", nil, as)
	b.want(403, "POST", "/v2/users/blobs/uploads/", "", as)
}

type authorizer func(*api.Call, api.Access) error

func (f authorizer) Authorize(_ context.Context, c *api.Call, a api.Access) error { return f(c, a) }

// TestAccountsAndRegions: the same name in two accounts and two regions is four repositories.
func TestAccountsAndRegions(t *testing.T) {
	b := newBench(t)
	type place struct{ account, region string }
	places := []place{{account, region}, {account, "eu-west-1"}, {"111111111111", region}, {"111111111111", "eu-west-1"}}
	tokens := map[place]string{}
	digests := map[place]blob.Digest{}
	for i, p := range places {
		b.token = b.login(p.account, p.region)
		tokens[p] = b.token
		if a := b.do("GET", "/v2/users/tags/list", nil); a.StatusCode != 404 {
			t.Errorf("%v before it exists: %s", p, a.body)
		}
		if _, err := call[ecr.CreateRepositoryOutput](b, p.account, p.region, &ecr.CreateRepositoryInput{RepositoryName: new("users")}); err != nil {
			t.Fatal(err)
		}
		digests[p] = b.pushImage("users", fmt.Sprintf("v%d", i), fmt.Sprint(p))
	}
	for i, p := range places {
		a := b.want(200, "GET", "/v2/users/tags/list", nil, basic("AWS", tokens[p]))
		if want := fmt.Sprintf(`{"name":"users","tags":["v%d"]}`, i); a.body != want {
			t.Errorf("%v: %s, want %s", p, a.body, want)
		}
		for q, d := range digests {
			want := 404
			if p == q {
				want = 200
			}
			b.want(want, "GET", "/v2/users/manifests/"+string(d), nil, basic("AWS", tokens[p]))
		}
		// A host of ECR's form selects the region, and refuses another account.
		for q := range tokens {
			want := 403
			if p.account == q.account {
				want = 200
			}
			a := b.want(want, "GET", "/v2/users/tags/list", nil, basic("AWS", tokens[p]), host(q.account+".dkr.ecr."+q.region+".localhost:4566"))
			if want == 200 && (strings.Contains(a.body, fmt.Sprintf(`"v%d"`, i)) != (p == q)) {
				t.Errorf("%v at %v: %s", p, q, a.body)
			}
		}
	}
}

func TestUnknownRepository(t *testing.T) {
	b := newBench(t)
	for _, tc := range [][2]string{{"POST", "/v2/nope/blobs/uploads/"}, {"GET", "/v2/nope/tags/list"}, {"PUT", "/v2/nope/manifests/v1"}, {"HEAD", "/v2/nope/manifests/v1"}} {
		a := b.want(404, tc[0], tc[1], "")
		want := `{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'nope' does not exist in the registry with id '000000000000'"}]}`
		if tc[0] != "HEAD" && a.body != want {
			t.Errorf("%v: %s", tc, a.body)
		}
	}
	b = newBench(t, func(c *registry.Config) { c.CreateOnPush = true })
	b.want(404, "GET", "/v2/team/app/tags/list", nil)
	b.pushImage("team/app", "v1", "x")
	b.want(200, "GET", "/v2/team/app/manifests/v1", nil)
}

// TestChunkedUpload follows a push that breaks, asks, and goes on.
func TestChunkedUpload(t *testing.T) {
	b := newBench(t)
	b.create("users", "other")
	content := strings.Repeat("0123456789", 3)
	d := blob.Sum([]byte(content))
	at := b.want(202, "POST", "/v2/users/blobs/uploads/", nil).Header.Get("Location")
	a := b.want(202, "PATCH", at, content[:10], header("Content-Range", "0-9"))
	if a.Header.Get("Range") != "0-9" {
		t.Errorf("range %q", a.Header.Get("Range"))
	}
	if a := b.want(416, "PATCH", at, content[5:10], header("Content-Range", "5-9")); a.Header.Get("Range") != "0-9" {
		t.Errorf("out of order: range %q", a.Header.Get("Range"))
	}
	b.want(400, "PATCH", at, content[10:12], header("Content-Range", "10-19"))
	b.want(400, "PATCH", at, content[10:12], header("Content-Range", "x"))

	// A body that ends early keeps what arrived. The server may be late to see it, and a connection that breaks can take what it
	// carried with it: then it is sent again.
	for b.until(204, "GET", at).Header.Get("Range") != "0-14" {
		pr, pw := io.Pipe()
		go func() {
			io.WriteString(pw, content[10:15])
			pw.CloseWithError(errors.New("cut"))
		}()
		b.broken("PATCH", at, pr, header("Content-Range", "10-14"))
	}
	b.want(404, "GET", strings.Replace(at, "/users/", "/other/", 1), nil)
	b.want(400, "PUT", at, nil) // no digest
	a = b.want(201, "PUT", at+"?digest="+string(d), content[15:])
	if a.Header.Get("Docker-Content-Digest") != string(d) || a.Header.Get("Location") != "/v2/users/blobs/"+string(d) {
		t.Errorf("%v", a.Header)
	}
	if got := b.want(200, "GET", "/v2/users/blobs/"+string(d), nil).body; got != content {
		t.Errorf("content %q", got)
	}
	if a := b.want(206, "GET", "/v2/users/blobs/"+string(d), nil, header("Range", "bytes=5-9")); a.body != "56789" {
		t.Errorf("range: %q", a.body)
	}
	if a := b.want(404, "PATCH", at, "x"); a.code() != "BLOB_UPLOAD_UNKNOWN" {
		t.Errorf("after the end: %s", a.body)
	}

	at = b.want(202, "POST", "/v2/users/blobs/uploads/", nil).Header.Get("Location")
	if a := b.want(400, "PUT", at+"?digest="+string(d), "other content"); a.code() != "DIGEST_INVALID" {
		t.Errorf("wrong digest: %s", a.body)
	}
	b.want(404, "GET", at, nil)
	at = b.want(202, "POST", "/v2/users/blobs/uploads/", nil).Header.Get("Location")
	b.want(204, "DELETE", at, nil)
	b.want(404, "GET", at, nil)
}

func TestMount(t *testing.T) {
	b := newBench(t)
	b.create("from", "to")
	d := b.pushBlob("from", "layer")
	b.want(404, "HEAD", "/v2/to/blobs/"+string(d), nil)
	b.want(202, "POST", "/v2/to/blobs/uploads/?mount="+string(blob.Sum([]byte("none")))+"&from=from", nil)
	b.want(202, "POST", "/v2/to/blobs/uploads/?mount="+string(d)+"&from=nope", nil)
	b.want(400, "POST", "/v2/to/blobs/uploads/?mount=sha256:12&from=from", nil)
	b.want(201, "POST", "/v2/to/blobs/uploads/?mount="+string(d)+"&from=from", nil)
	b.want(200, "HEAD", "/v2/to/blobs/"+string(d), nil)

	// Layers of another account cannot be mounted, whatever is known about them.
	if _, err := call[ecr.CreateRepositoryOutput](b, "111111111111", region, &ecr.CreateRepositoryInput{RepositoryName: new("from")}); err != nil {
		t.Fatal(err)
	}
	other := basic("AWS", b.login("111111111111", region))
	b.want(202, "POST", "/v2/from/blobs/uploads/?mount="+string(d)+"&from=to", nil, other)
	b.want(202, "POST", "/v2/from/blobs/uploads/?mount="+string(d), nil, other)
}

func TestTags(t *testing.T) {
	b := newBench(t)
	b.create("users")
	m := b.imageOf("users", "{}", "layer")
	for i := range 25 {
		b.want(201, "PUT", fmt.Sprintf("/v2/users/manifests/v%02d", i), m, mediaType(ociManifest))
	}
	var got []string
	pages := 0
	for path := "/v2/users/tags/list?n=10"; path != ""; pages++ {
		a := b.want(200, "GET", path, nil)
		_, list, _ := strings.Cut(a.body, `"tags":[`)
		got = append(got, strings.Split(strings.Trim(list, `]}`), ",")...)
		link, _, _ := strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
		path = link
	}
	if pages != 3 || len(got) != 25 || got[0] != `"v00"` || got[24] != `"v24"` {
		t.Errorf("%d pages: %v", pages, got)
	}
	if a := b.want(200, "GET", "/v2/users/tags/list?n=0", nil); a.body != `{"name":"users","tags":[]}` {
		t.Errorf("n=0: %s", a.body)
	}
	b.want(400, "GET", "/v2/users/tags/list?n=x", nil)
	b.want(202, "DELETE", "/v2/users/manifests/v00", nil)
	b.want(404, "GET", "/v2/users/manifests/v00", nil)
	b.want(200, "GET", "/v2/users/manifests/v01", nil)
	b.want(202, "DELETE", "/v2/users/manifests/"+string(blob.Sum([]byte(m))), nil)
	if a := b.want(200, "GET", "/v2/users/tags/list", nil); a.body != `{"name":"users","tags":[]}` {
		t.Errorf("after the manifest: %s", a.body)
	}
}

// TestManyTags deletes an image with more tags than a transaction takes.
func TestManyTags(t *testing.T) {
	b := newBench(t)
	b.create("users")
	m := b.imageOf("users", "{}", "layer")
	d := blob.Sum([]byte(m))
	for i := range 25 {
		q := url.Values{}
		for j := range 10 {
			q.Add("tag", fmt.Sprintf("v%d-%d", i, j))
		}
		b.want(201, "PUT", "/v2/users/manifests/"+string(d)+"?"+q.Encode(), m, mediaType(ociManifest))
	}
	b.want(202, "DELETE", "/v2/users/manifests/"+string(d), nil)
	if a := b.want(200, "GET", "/v2/users/tags/list", nil); a.body != `{"name":"users","tags":[]}` {
		t.Errorf("left: %s", a.body)
	}
}

func TestImmutableTags(t *testing.T) {
	b := newBench(t)
	if _, err := call[ecr.CreateRepositoryOutput](b, account, region, &ecr.CreateRepositoryInput{
		RepositoryName: new("users"), ImageTagMutability: "IMMUTABLE_WITH_EXCLUSION",
		ImageTagMutabilityExclusionFilters: filters("dev-*"),
	}); err != nil {
		t.Fatal(err)
	}
	b.pushImage("users", "v1", "one")
	b.pushImage("users", "dev-1", "one")
	two := b.imageOf("users", "{}", "two")
	a := b.want(400, "PUT", "/v2/users/manifests/v1", two, mediaType(ociManifest))
	if want := `{"errors":[{"code":"TAG_INVALID","message":"The image tag 'v1' already exists in the 'users' repository and cannot be overwritten because the tag is immutable."}]}`; a.body != want {
		t.Errorf("%s", a.body)
	}
	b.want(201, "PUT", "/v2/users/manifests/dev-1", two, mediaType(ociManifest))
	b.pushImage("users", "v1", "one") // the same again changes nothing
}

func TestReferrers(t *testing.T) {
	b := newBench(t)
	b.create("users")
	d := b.pushImage("users", "v1", "x")
	empty := b.pushBlob("users", "{}")
	for _, kind := range []string{"application/sbom", "application/signature"} {
		m := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "artifactType": kind,
			"config": desc("application/vnd.oci.empty.v1+json", empty, 2), "layers": []any{}, "subject": desc(ociManifest, d, 1), "annotations": map[string]string{"by": kind}})
		a := b.want(201, "PUT", "/v2/users/manifests/"+string(blob.Sum([]byte(m))), m, mediaType(ociManifest))
		if a.Header.Get("OCI-Subject") != string(d) {
			t.Errorf("OCI-Subject %q", a.Header.Get("OCI-Subject"))
		}
	}
	a := b.want(200, "GET", "/v2/users/referrers/"+string(d), nil)
	if a.Header.Get("Content-Type") != ociIndex || strings.Count(a.body, `"digest"`) != 2 || a.Header.Get("OCI-Filters-Applied") != "" {
		t.Errorf("%v %s", a.Header, a.body)
	}
	a = b.want(200, "GET", "/v2/users/referrers/"+string(d)+"?artifactType=application/sbom", nil)
	if a.Header.Get("OCI-Filters-Applied") != "artifactType" || strings.Count(a.body, `"digest"`) != 1 || !strings.Contains(a.body, `"annotations":{"by":"application/sbom"}`) {
		t.Errorf("%v %s", a.Header, a.body)
	}
	if a := b.want(200, "GET", "/v2/users/referrers/"+string(blob.Sum(nil)), nil); !strings.Contains(a.body, `"manifests":[]`) {
		t.Errorf("unknown subject: %s", a.body)
	}
}
