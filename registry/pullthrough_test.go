package registry_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// open is a registry that everybody may pull from, as most upstreams are: one of ours behind a proxy that logs everybody in.
type open struct {
	*bench
	server *httptest.Server
	mu     sync.Mutex
	asked  []string    // methods and paths
	down   atomic.Bool // connections break
}

func newOpen(t *testing.T) *open {
	u := &open{bench: newBench(t, acceptKey("K", "S", account))}
	u.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u.down.Load() {
			panic(http.ErrAbortHandler)
		}
		u.mu.Lock()
		u.asked = append(u.asked, r.Method+" "+r.URL.Path)
		u.mu.Unlock()
		if _, _, ok := r.BasicAuth(); !ok {
			r.SetBasicAuth("K", "S")
		}
		u.bench.reg.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(u.server.Close)
	return u
}

func (u *open) host() string { return strings.TrimPrefix(u.server.URL, "http://") }

// questions forgets what it was asked, and says so.
func (u *open) questions() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	asked := slices.DeleteFunc(u.asked, func(s string) bool { return s == "GET /v2/" })
	u.asked = nil
	return asked
}

func (b *bench) cacheOf(prefix, upstream, upstreamPrefix string) {
	b.t.Helper()
	in := &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: &prefix, UpstreamRegistryUrl: &upstream}
	if upstreamPrefix != "" {
		in.UpstreamRepositoryPrefix = &upstreamPrefix
	}
	must[ecr.CreatePullThroughCacheRuleOutput](b, in)
}

func TestPullThroughCache(t *testing.T) {
	u := newOpen(t)
	u.create("library/web")
	first := u.pushImage("library/web", "v1", "1")
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{desc(ociManifest, first, len(manifestText("1"))),
		desc(ociManifest, u.pushImage("library/web", "other", "another platform"), len(manifestText("another platform")))}})
	u.want(201, "PUT", "/v2/library/web/manifests/multi", index, mediaType(ociIndex))

	b := newBench(t)
	b.cacheOf("hub", u.host(), "")
	b.createTemplate("hub", "cache", "PULL_THROUGH_CACHE")
	if a := b.want(404, "GET", "/v2/hub/library/nope/manifests/v1", nil); a.code() != "MANIFEST_UNKNOWN" {
		t.Error(a.body)
	}
	b.want(404, "GET", "/v2/hub/library/web/manifests/nope", nil)
	b.want(404, "GET", "/v2/hub/library/web/tags/list", nil) // nothing was made for what is not there
	b.want(404, "GET", "/v2/elsewhere/library/web/manifests/v1", nil)

	// The first pull makes the repository, as its template has it, and brings what is pulled and nothing else.
	if a := b.want(200, "GET", "/v2/hub/library/web/manifests/multi", nil); a.body != index || a.Header.Get("Content-Type") != ociIndex {
		t.Errorf("%v %s", a.Header, a.body)
	}
	if tag := b.templateTag("hub/library/web"); tag != "cache" {
		t.Errorf("made as %q", tag)
	}
	u.questions()
	b.pullAll(b.token, "hub/library/web", string(first))
	if n := len(u.questions()); n != 3 {
		t.Errorf("the upstream was asked %d times for manifest, config and layer", n)
	}
	b.pullAll(b.token, "hub/library/web", string(first))
	b.want(200, "GET", "/v2/hub/library/web/manifests/multi", nil)
	if q := u.questions(); len(q) != 0 {
		t.Errorf("what is cached was asked for: %v", q)
	}
	if n := len(b.stored()); n != 4 {
		t.Errorf("%d blobs are here, want index, manifest, config, layer", n)
	}

	// Within a day a tag is not looked at again; then it is, once.
	b.want(200, "GET", "/v2/hub/library/web/manifests/v1", nil)
	u.pushImage("library/web", "v1", "2")
	u.questions()
	b.age(23 * time.Hour)
	if m := b.pullAll(b.token, "hub/library/web", "v1"); m != manifestText("1") {
		t.Errorf("v1 is %s", m)
	}
	if q := u.questions(); len(q) != 0 {
		t.Errorf("asked before a day was over: %v", q)
	}
	b.age(2 * time.Hour)
	for range 3 {
		if m := b.pullAll(b.token, "hub/library/web", "v1"); m != manifestText("2") {
			t.Errorf("v1 is %s", m)
		}
	}
	asked := u.questions()
	if n := len(slices.DeleteFunc(asked, func(s string) bool { return !strings.Contains(s, "manifests") })); n != 1 {
		t.Errorf("asked for the manifest %d times", n)
	}

	// When the upstream is down, what is cached is served, also after a restart and a collection; what is not is an error that says so.
	u.down.Store(true)
	b.age(48 * time.Hour)
	b.restart()
	b.collect()
	for range 2 {
		if m := b.pullAll(b.token, "hub/library/web", "v1"); m != manifestText("2") {
			t.Errorf("v1 is %s", m)
		}
		b.pullAll(b.token, "hub/library/web", string(first))
	}
	if a := b.want(502, "GET", "/v2/hub/library/web/manifests/v3", nil); a.code() != "UNAVAILABLE" || !strings.Contains(a.body, "did not answer") {
		t.Error(a.body)
	}
	u.down.Store(false)
	b.age(2 * time.Minute)
	b.want(200, "GET", "/v2/hub/library/web/manifests/other", nil)

	// A tag that is gone upstream stays.
	u.token = u.login(account, region)
	u.want(202, "DELETE", "/v2/library/web/manifests/v1", nil)
	b.age(25 * time.Hour)
	b.pullAll(b.token, "hub/library/web", "v1")

	// Without the rule what is cached is there.
	must[ecr.DeletePullThroughCacheRuleOutput](b, &ecr.DeletePullThroughCacheRuleInput{EcrRepositoryPrefix: new("hub")})
	b.pullAll(b.token, "hub/library/web", "v1")
	b.want(404, "GET", "/v2/hub/library/web/manifests/unheard-of", nil)
}

// TestPullThroughBlobs: only what a cached image names comes from the upstream, and only if it has the right bytes.
func TestPullThroughBlobs(t *testing.T) {
	u := newOpen(t)
	u.create("app")
	d := u.pushImage("app", "v1", strings.Repeat("layer", 1000))
	layer := blob.Sum([]byte(strings.Repeat("layer", 1000)))
	secret := u.pushBlob("app", "not of an image")
	b := newBench(t)
	b.cacheOf("up", u.host(), "")
	b.want(404, "GET", "/v2/up/app/blobs/"+string(layer), nil) // nobody asked for the image
	b.want(200, "GET", "/v2/up/app/manifests/v1", nil)
	b.want(404, "GET", "/v2/up/app/blobs/"+string(secret), nil)
	if a := b.want(206, "GET", "/v2/up/app/blobs/"+string(layer), nil, header("Range", "bytes=5-9")); a.body != "layer" {
		t.Errorf("%q", a.body)
	}
	b.want(200, "HEAD", "/v2/up/app/blobs/"+string(layer), nil)

	// The blob is garbage upstream.
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			io.WriteString(w, "something else")
			return
		}
		r.SetBasicAuth("K", "S")
		u.bench.reg.Handler().ServeHTTP(w, r)
	}))
	defer bad.Close()
	b.cacheOf("bad", strings.TrimPrefix(bad.URL, "http://"), "")
	b.want(200, "GET", "/v2/bad/app/manifests/"+string(d), nil)
	before := len(b.stored())
	req, err := http.NewRequestWithContext(t.Context(), "GET", b.server.URL+"/v2/bad/app/blobs/"+string(blob.Sum([]byte(configOf(strings.Repeat("layer", 1000))))), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("AWS", b.token)
	resp, err := b.server.Client().Do(req)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a wrong blob looks whole")
	}
	if n := len(b.stored()); n != before {
		t.Error("a wrong blob was kept")
	}
}

// TestPullThroughPrefixes: the longest prefix decides, ROOT is for the rest, and upstream prefixes replace ours.
func TestPullThroughPrefixes(t *testing.T) {
	u := newOpen(t)
	u.create("mirror/library/web", "library/web")
	u.pushImage("mirror/library/web", "v1", "mirror")
	u.pushImage("library/web", "v1", "plain")
	b := newBench(t)
	b.cacheOf("hub", u.host(), "ROOT")
	b.cacheOf("hub/mirrored/", u.host(), "mirror")
	b.cacheOf("ROOT", u.host(), "mirror/")
	for repo, want := range map[string]string{"hub/library/web": "plain", "hub/mirrored/library/web": "mirror", "library/web": "mirror"} {
		if m := b.pullAll(b.token, repo, "v1"); m != manifestText(want) {
			t.Errorf("%s: %s", repo, m)
		}
	}
}

// TestPullThroughClient: go-containerregistry pulls an image through, whole and valid; a task's token is enough.
func TestPullThroughClient(t *testing.T) {
	u := newOpen(t)
	u.create("app")
	img := imageFor(t, "amd64")
	ref := func(host, s string) name.Reference {
		r, err := name.ParseReference(host + "/" + s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if err := remote.Write(ref(u.bench.host(), "app:v1"), img, remote.WithAuth(&authn.Basic{Username: "K", Password: "S"})); err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	b.cacheOf("up", u.host(), "")
	for range 2 {
		got, err := remote.Image(ref(b.host(), "up/app:v1"), remote.WithAuth(&authn.Basic{Username: "AWS", Password: b.reg.PullToken(account, region, "up/app")}))
		if err != nil {
			t.Fatal(err)
		}
		same(t, img, got)
		if err := validate.Image(got); err != nil {
			t.Error(err)
		}
		u.down.Store(true)
	}
}

// TestPullThroughCluster: a cluster that is known as a remote region is asked with its credentials.
func TestPullThroughCluster(t *testing.T) {
	there := newCluster(t)
	there.create("app")
	there.pushImage("app", "v1", "1")
	b := newBench(t, there.as("far", "AKIA"))
	b.cacheOf("far", strings.TrimPrefix(there.server.URL, "http://"), "")
	if m := b.pullAll(b.token, "far/app", "v1"); m != manifestText("1") {
		t.Error(m)
	}
	if out := must[ecr.ValidatePullThroughCacheRuleOutput](b, &ecr.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("far")}); !out.IsValid {
		t.Errorf("%v", *out.Failure)
	}
	wrong := newBench(t, there.as("far", "WRONG"))
	wrong.cacheOf("far", strings.TrimPrefix(there.server.URL, "http://"), "")
	if a := wrong.want(403, "GET", "/v2/far/app/manifests/v1", nil); a.code() != "DENIED" {
		t.Error(a.body)
	}
	if out := must[ecr.ValidatePullThroughCacheRuleOutput](wrong, &ecr.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("far")}); out.IsValid || out.Failure == nil {
		t.Errorf("%+v", out)
	}
}

// TestPullThroughOnce: tasks that start at once have their image fetched once, and each gets all of it.
func TestPullThroughOnce(t *testing.T) {
	u := newOpen(t)
	u.create("app")
	content := strings.Repeat("layer", 100_000)
	u.pushImage("app", "v1", content)
	b := newBench(t)
	b.cacheOf("up", u.host(), "")
	u.questions()
	var pulls sync.WaitGroup
	for range 10 {
		pulls.Go(func() {
			if m := b.pullAll(b.token, "up/app", "v1"); m != manifestText(content) {
				t.Errorf("%s", m)
			}
		})
	}
	pulls.Wait()
	if q := u.questions(); len(q) != 3 {
		t.Errorf("the upstream was asked for manifest, config and layer %d times: %v", len(q), q)
	}
}

// TestPullThroughImmutable: a tag that may not move keeps its first image.
func TestPullThroughImmutable(t *testing.T) {
	u := newOpen(t)
	u.create("app")
	u.pushImage("app", "v1", "1")
	b := newBench(t)
	b.cacheOf("up", u.host(), "")
	must[ecr.CreateRepositoryCreationTemplateOutput](b, &ecr.CreateRepositoryCreationTemplateInput{Prefix: new("ROOT"), AppliedFor: []types.RCTAppliedFor{"PULL_THROUGH_CACHE"}, ImageTagMutability: "IMMUTABLE"})
	b.pullAll(b.token, "up/app", "v1")
	u.pushImage("app", "v1", "2")
	b.age(25 * time.Hour)
	if m := b.pullAll(b.token, "up/app", "v1"); m != manifestText("1") {
		t.Errorf("v1 is %s", m)
	}
}

func TestPullThroughCacheRules(t *testing.T) {
	b := newBench(t)
	out := must[ecr.CreatePullThroughCacheRuleOutput](b, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("hub/"), UpstreamRegistryUrl: new("https://registry-1.docker.io")})
	if *out.EcrRepositoryPrefix != "hub" || *out.UpstreamRegistryUrl != "registry-1.docker.io" || out.UpstreamRegistry != types.UpstreamRegistryDockerHub || !out.CreatedAt.Equal(b.clock.Now()) {
		t.Errorf("%+v", out)
	}
	refused[ecr.CreatePullThroughCacheRuleOutput](b, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("hub"), UpstreamRegistryUrl: new("quay.io")},
		"PullThroughCacheRuleAlreadyExistsException: A pull through cache rule with prefix 'hub' already exists in the registry with id '000000000000'")
	secret := new("arn:aws:secretsmanager:us-east-1:000000000000:secret:ecr-pullthroughcache/hub")
	refused[ecr.CreatePullThroughCacheRuleOutput](b, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("other"), UpstreamRegistryUrl: new("quay.io"), CredentialArn: secret},
		"NotImplemented: credentialArn is not implemented: there is no store of secrets. Upstreams are asked anonymously, but for the clusters of --remote-regions.")
	refused[ecr.UpdatePullThroughCacheRuleOutput](b, &ecr.UpdatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("hub"), CredentialArn: secret},
		"NotImplemented: credentialArn is not implemented: there is no store of secrets. Upstreams are asked anonymously, but for the clusters of --remote-regions.")
	for _, bad := range []string{"", "ftp://x", "quay.io/library", "user@quay.io", "a b"} {
		refused[ecr.CreatePullThroughCacheRuleOutput](b, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("other"), UpstreamRegistryUrl: &bad},
			fmt.Sprintf("InvalidParameterException: Invalid parameter at 'upstreamRegistryUrl' failed to satisfy constraint: 'must be the host of a registry, with its port where that is not 443, not %q'", bad))
	}
	missing := "PullThroughCacheRuleNotFoundException: A pull through cache rule with prefix 'nope' does not exist in the registry with id '000000000000'"
	refused[ecr.DescribePullThroughCacheRulesOutput](b, &ecr.DescribePullThroughCacheRulesInput{EcrRepositoryPrefixes: []string{"hub", "nope"}}, missing)
	refused[ecr.UpdatePullThroughCacheRuleOutput](b, &ecr.UpdatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("nope")}, missing)
	refused[ecr.DeletePullThroughCacheRuleOutput](b, &ecr.DeletePullThroughCacheRuleInput{EcrRepositoryPrefix: new("nope")}, missing)
	refused[ecr.ValidatePullThroughCacheRuleOutput](b, &ecr.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("nope")}, missing)
	for i := range 49 {
		b.cacheOf(fmt.Sprint("p", i), "quay.io", "team")
	}
	refused[ecr.CreatePullThroughCacheRuleOutput](b, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("other"), UpstreamRegistryUrl: new("quay.io")},
		"LimitExceededException: The registry with id '000000000000' has 50 pull through cache rules already, which is the limit")
	n := 0
	in := &ecr.DescribePullThroughCacheRulesInput{MaxResults: new(int32(20))}
	for {
		out := must[ecr.DescribePullThroughCacheRulesOutput](b, in)
		n += len(out.PullThroughCacheRules)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if n != 50 {
		t.Errorf("%d rules", n)
	}
	// Nobody is there.
	b2 := newBench(t, func(*registry.Config) {})
	b2.cacheOf("gone", "127.0.0.1:1", "")
	if out := must[ecr.ValidatePullThroughCacheRuleOutput](b2, &ecr.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("gone")}); out.IsValid || !strings.Contains(*out.Failure, "refused") {
		t.Errorf("%+v", out)
	}
	// The cloud's metadata address is nobody's registry.
	b2.cacheOf("metadata", "169.254.169.254:80", "")
	if out := must[ecr.ValidatePullThroughCacheRuleOutput](b2, &ecr.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("metadata")}); out.IsValid || !strings.Contains(*out.Failure, "link-local") {
		t.Errorf("%+v", out)
	}
}
