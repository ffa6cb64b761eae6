package registry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/seal"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/s3/s3test"
)

const (
	account = "000000000000"
	region  = "us-east-1"
)

// bench is a registry behind a real HTTP server, with the things it stands on.
type bench struct {
	t      testing.TB
	reg    *registry.Registry
	store  *state.Store
	blobs  *blob.Store
	clock  *clock.Fake
	server *httptest.Server
	token  string // of account and region
	config registry.Config
}

func newBench(t testing.TB, change ...func(*registry.Config)) *bench {
	t.Helper()
	b := &bench{t: t, clock: clock.NewFake(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))}
	b.store = statetest.New(t, append(controlplane.Schema[:len(controlplane.Schema):len(controlplane.Schema)], registry.Schema...)...)
	var err error
	if b.blobs, err = blob.Open(t.TempDir(), blob.Options{}); err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(make([]byte, seal.KeySize), "test")
	if err != nil {
		t.Fatal(err)
	}
	b.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.reg.Handler().ServeHTTP(w, r) }))
	t.Cleanup(b.server.Close)
	c := registry.Config{
		Store: b.store, Blobs: b.blobs, Seal: sealer, Clock: b.clock, Region: region,
		PublicName: func(string, string) string { return b.host() },
		Log:        slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if strings.HasPrefix(t.Name(), "TestOverObjectStore/") {
		overObjectStore(t, s3test.Start(t))(&c)
	}
	for _, f := range change {
		f(&c)
	}
	b.config = c
	if b.reg, err = registry.New(c); err != nil {
		t.Fatal(err)
	}
	b.server.Start()
	b.token = b.login(account, region)
	return b
}

// restart forgets what is only in memory.
func (b *bench) restart() *bench {
	b.t.Helper()
	var err error
	if b.reg, err = registry.New(b.config); err != nil {
		b.t.Fatal(err)
	}
	return b
}

func (b *bench) host() string { return strings.TrimPrefix(b.server.URL, "http://") }

// in is a context as dispatch makes it.
func (b *bench) in(account, region string) context.Context {
	return api.WithCall(b.t.Context(), &api.Call{
		Identity: api.Identity{Account: account, ARN: "arn:aws:iam::" + account + ":root", Root: true},
		Region:   region, Service: "ecr", Time: b.clock.Now(), Host: b.host(),
	})
}

// call runs an operation as an account's root.
func call[O any](b *bench, account, region string, in any) (*O, error) {
	b.t.Helper()
	return callAs[O](b, api.CallFrom(b.in(account, region)).Identity, region, in)
}

// callAs runs an operation by its input, as dispatch would find it once the caller is authorized.
func callAs[O any](b *bench, who api.Identity, region string, in any) (*O, error) {
	b.t.Helper()
	for _, op := range append(b.reg.Operations(), b.reg.PublicOperations()...) {
		if fmt.Sprintf("*%v", op.In) != fmt.Sprintf("%T", in) {
			continue
		}
		ctx := b.in(who.Account, region)
		c := api.CallFrom(ctx)
		c.Identity, c.Operation = who, op.Name
		out, err := op.Call(ctx, in)
		if err != nil {
			return nil, err
		}
		return out.(*O), nil
	}
	b.t.Fatalf("no operation for %T", in)
	return nil, nil
}

// answer is a response that was read.
type answer struct {
	*http.Response
	body string
}

// code is the first OCI error code.
func (a answer) code() string {
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal([]byte(a.body), &e) != nil || len(e.Errors) == 0 {
		return ""
	}
	return e.Errors[0].Code
}

type option func(*http.Request)

func header(k, v string) option { return func(r *http.Request) { r.Header.Set(k, v) } }
func basic(user, password string) option {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}
func anonymous() option         { return func(r *http.Request) { r.Header.Del("Authorization") } }
func host(h string) option      { return func(r *http.Request) { r.Host = h } }
func mediaType(s string) option { return header("Content-Type", s) }

func (b *bench) do(method, path string, body any, opts ...option) answer {
	b.t.Helper()
	var r io.Reader
	switch v := body.(type) {
	case string:
		r = strings.NewReader(v)
	case []byte:
		r = bytes.NewReader(v)
	case io.Reader:
		r = v
	}
	if !strings.HasPrefix(path, "http") {
		path = b.server.URL + path
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, path, r)
	if err != nil {
		b.t.Fatal(err)
	}
	req.SetBasicAuth("AWS", b.token)
	for _, o := range opts {
		o(req)
	}
	resp, err := b.server.Client().Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{resp, string(got)}
}

// want fails unless the answer has the status.
func (b *bench) want(status int, method, path string, body any, opts ...option) answer {
	b.t.Helper()
	a := b.do(method, path, body, opts...)
	if a.StatusCode != status {
		b.t.Fatalf("%s %s: %s, want %d: %s", method, path, a.Status, status, a.body)
	}
	return a
}

// pushBlob uploads content in one request.
func (b *bench) pushBlob(repo, content string) blob.Digest {
	b.t.Helper()
	d := blob.Sum([]byte(content))
	b.want(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(d), content)
	return d
}

func desc(mediaType string, d blob.Digest, size int) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": d, "size": size}
}

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	ociConfig   = "application/vnd.oci.image.config.v1+json"
	ociLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// imageOf makes a manifest over pushed config and layers.
func (b *bench) imageOf(repo, config string, layers ...string) string {
	b.t.Helper()
	ds := []any{}
	for _, l := range layers {
		ds = append(ds, desc(ociLayer, b.pushBlob(repo, l), len(l)))
	}
	return marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": desc(ociConfig, b.pushBlob(repo, config), len(config)), "layers": ds})
}

func marshal(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// pushImage pushes a small image with its tag and gives its digest.
func (b *bench) pushImage(repo, tag, content string) blob.Digest {
	b.t.Helper()
	m := b.imageOf(repo, `{"config":"`+content+`"}`, content)
	b.want(201, "PUT", "/v2/"+repo+"/manifests/"+tag, m, mediaType(ociManifest))
	return blob.Sum([]byte(m))
}

// login asks for a token as `docker login` is given one.
func (b *bench) login(account, region string) string {
	b.t.Helper()
	out, err := call[ecr.GetAuthorizationTokenOutput](b, account, region, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		b.t.Fatal(err)
	}
	pair, err := base64.StdEncoding.DecodeString(*out.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		b.t.Fatal(err)
	}
	password, ok := strings.CutPrefix(string(pair), "AWS:")
	if !ok {
		b.t.Fatalf("the token is %q", pair)
	}
	return password
}

// create makes repositories of the default account and region.
func (b *bench) create(names ...string) {
	b.t.Helper()
	for _, n := range names {
		if _, err := call[ecr.CreateRepositoryOutput](b, account, region, &ecr.CreateRepositoryInput{RepositoryName: &n}); err != nil {
			b.t.Fatal(err)
		}
	}
}

// anyone takes every access key for the identity.
func anyone(who *api.Identity) func(context.Context, string, string) (api.Identity, bool) {
	return func(context.Context, string, string) (api.Identity, bool) { return *who, true }
}

// acceptKey lets one access key in.
func acceptKey(key, secret, account string) func(*registry.Config) {
	return func(c *registry.Config) {
		c.Credentials = func(_ context.Context, k, s string) (api.Identity, bool) {
			return api.Identity{Account: account}, k == key && s == secret
		}
	}
}

func filters(wildcards ...string) []types.ImageTagMutabilityExclusionFilter {
	var out []types.ImageTagMutabilityExclusionFilter
	for _, w := range wildcards {
		out = append(out, types.ImageTagMutabilityExclusionFilter{Filter: &w, FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard})
	}
	return out
}

// broken sends a request whose body fails, and gives the client's error.
func (b *bench) broken(method, path string, body io.Reader, opts ...option) error {
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.server.URL+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	req.SetBasicAuth("AWS", b.token)
	for _, o := range opts {
		o(req)
	}
	resp, err := b.server.Client().Do(req)
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// until repeats a request while an upload is still held by one that broke.
func (b *bench) until(status int, method, path string) answer {
	b.t.Helper()
	for {
		if a := b.do(method, path, nil); a.StatusCode != http.StatusConflict {
			if a.StatusCode != status {
				b.t.Fatalf("%s %s: %s: %s", method, path, a.Status, a.body)
			}
			return a
		}
	}
}
