package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

const elsewhere = "eu-west-1"

// run has the registry's reconcilers at work until the test, or the function it gives back, ends them.
func (b *bench) run() (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	reg := b.reg
	go func() { done <- reg.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

func destination(region string) types.ReplicationDestination {
	return types.ReplicationDestination{Region: &region, RegistryId: new(account)}
}

// replicateTo sets a rule for repositories with one of the prefixes.
func (b *bench) replicateTo(region string, prefixes ...string) {
	b.t.Helper()
	rule := types.ReplicationRule{Destinations: []types.ReplicationDestination{destination(region)}}
	for _, p := range prefixes {
		rule.RepositoryFilters = append(rule.RepositoryFilters, types.RepositoryFilter{Filter: &p, FilterType: types.RepositoryFilterTypePrefixMatch})
	}
	must[ecr.PutReplicationConfigurationOutput](b, &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &types.ReplicationConfiguration{Rules: []types.ReplicationRule{rule}}})
}

// replicated waits until every image is where it is to go.
func (b *bench) replicated() {
	b.t.Helper()
	b.eventually(time.Second, nothingPending)
}

func nothingPending(v *state.View) bool {
	for range registry.ReplicationsPending.Scan(v, state.K()) {
		return false
	}
	return true
}

// eventually waits until the state satisfies what is asked, moving the clock by steps so that pauses end.
func (b *bench) eventually(step time.Duration, ok func(*state.View) bool) {
	b.t.Helper()
	w := b.store.Watch(b.t.Context(), 0)
	for !ok(b.store.View()) {
		ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Millisecond)
		w.Next(ctx)
		cancel()
		if err := b.t.Context().Err(); err != nil {
			b.t.Fatal(err)
		}
		b.clock.Advance(step)
	}
}

func (b *bench) statuses(repo, tag string) map[string]string {
	b.t.Helper()
	got := map[string]string{}
	for _, s := range must[ecr.DescribeImageReplicationStatusOutput](b, &ecr.DescribeImageReplicationStatusInput{RepositoryName: &repo, ImageId: &types.ImageIdentifier{ImageTag: &tag}}).ReplicationStatuses {
		got[*s.Region] = strings.TrimSpace(string(s.Status) + " " + deref(s.FailureCode))
	}
	return got
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// pullAll pulls an image, or an index and what is in it, byte for byte.
func (b *bench) pullAll(token, repo, reference string) string {
	b.t.Helper()
	as := basic("AWS", token)
	m := b.want(200, "GET", "/v2/"+repo+"/manifests/"+reference, nil, as).body
	var doc struct {
		Config            struct{ Digest string }
		Layers, Manifests []struct{ Digest string }
	}
	if err := json.Unmarshal([]byte(m), &doc); err != nil {
		b.t.Fatal(err)
	}
	for _, l := range append(doc.Layers, doc.Config) {
		if l.Digest == "" {
			continue
		}
		if got := b.want(200, "GET", "/v2/"+repo+"/blobs/"+l.Digest, nil, as).body; string(blob.Sum([]byte(got))) != l.Digest {
			b.t.Errorf("%s: %d other bytes", l.Digest, len(got))
		}
	}
	for _, c := range doc.Manifests {
		b.pullAll(token, repo, c.Digest)
	}
	return m
}

// TestReplicationAcrossRegions: in one cluster nothing but records is copied.
func TestReplicationAcrossRegions(t *testing.T) {
	b := newBench(t)
	b.create("prod/users", "test/users")
	b.replicateTo(elsewhere, "prod/", "more")
	stop := b.run()
	b.pushImage("test/users", "v1", "not replicated")
	one := b.pushImage("prod/users", "v1", "1")
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{desc(ociManifest, one, len(manifestText("1")))}})
	b.want(201, "PUT", "/v2/prod/users/manifests/multi", index, mediaType(ociIndex))
	b.replicated()
	before := len(b.stored())
	there := b.login(account, elsewhere)
	if m := b.pullAll(there, "prod/users", "multi"); m != index {
		t.Errorf("the index is %s", m)
	}
	b.pullAll(there, "prod/users", "v1")
	b.want(404, "GET", "/v2/test/users/tags/list", nil, basic("AWS", there))
	if d := cmp.Diff(map[string]string{elsewhere: "COMPLETE"}, b.statuses("prod/users", "multi")); d != "" {
		t.Error(d)
	}
	if n := len(b.stored()); n != before {
		t.Errorf("%d blobs, then %d", before, n)
	}

	// A tag that moves moves there too. Deletions stay here.
	two := b.pushImage("prod/users", "v1", "2")
	b.replicated()
	if a := b.want(200, "HEAD", "/v2/prod/users/manifests/v1", nil, basic("AWS", there)); a.Header.Get("Docker-Content-Digest") != string(two) {
		t.Errorf("v1 is %v", a.Header)
	}
	b.want(202, "DELETE", "/v2/prod/users/manifests/"+string(two), nil)
	stop()
	b.collect()
	b.pullAll(there, "prod/users", "v1")
	b.want(404, "GET", "/v2/prod/users/manifests/v1", nil)
}

// TestReplicationOutbox: what was pushed while nobody replicated is replicated later, in a new process; what the configuration no longer
// wants is dropped, and so is what is known of an image that is gone.
func TestReplicationOutbox(t *testing.T) {
	b := newBench(t)
	b.create("users")
	b.replicateTo(elsewhere)
	for i := range 5 {
		b.pushImage("users", fmt.Sprint("v", i), fmt.Sprint(i))
		b.pushImage("users", "latest", fmt.Sprint(i))
	}
	if d := cmp.Diff(map[string]string{elsewhere: "IN_PROGRESS"}, b.statuses("users", "latest")); d != "" {
		t.Error(d)
	}
	b.restart()
	stop := b.run()
	b.replicated()
	there := b.login(account, elsewhere)
	for i := range 5 {
		b.pullAll(there, "users", fmt.Sprint("v", i))
	}
	if m := b.pullAll(there, "users", "latest"); m != manifestText("4") {
		t.Errorf("latest is %s", m)
	}
	stop()
	b.pushImage("users", "v5", "5")
	must[ecr.PutReplicationConfigurationOutput](b, &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &types.ReplicationConfiguration{}})
	stop = b.restart().run()
	b.replicated()
	stop()
	b.want(404, "GET", "/v2/users/manifests/v5", nil, basic("AWS", b.login(account, elsewhere)))
	if s := b.statuses("users", "v5"); len(s) != 0 {
		t.Errorf("%v", s)
	}
	b.token = b.login(account, region)
	b.want(202, "DELETE", "/v2/users/manifests/"+string(manifestOf("1")), nil)
	b.collect()
	for e := range registry.Replications.Scan(b.store.View(), state.K()) {
		if e.Digest == string(manifestOf("1")) {
			t.Errorf("left: %v", e)
		}
	}
}

// TestReplicationKeepsImmutableTags: the image arrives, its tag does not move.
func TestReplicationKeepsImmutableTags(t *testing.T) {
	b := newBench(t)
	b.create("users")
	if _, err := call[ecr.CreateRepositoryOutput](b, account, elsewhere, &ecr.CreateRepositoryInput{RepositoryName: new("users"), ImageTagMutability: "IMMUTABLE"}); err != nil {
		t.Fatal(err)
	}
	b.replicateTo(elsewhere)
	b.run()
	b.pushImage("users", "v1", "1")
	b.replicated()
	b.pushImage("users", "v1", "2")
	b.replicated()
	there := b.login(account, elsewhere)
	if m := b.pullAll(there, "users", "v1"); m != manifestText("1") {
		t.Errorf("v1 is %s", m)
	}
	b.pullAll(there, "users", string(manifestOf("2")))
}

func TestPutReplicationConfiguration(t *testing.T) {
	b := newBench(t, func(c *registry.Config) {
		c.Remotes = map[string]registry.Remote{"eu-far-1": {Endpoint: "http://127.0.0.1:1"}}
	})
	ignore := cmpopts.IgnoreUnexported(types.ReplicationConfiguration{}, types.ReplicationRule{}, types.ReplicationDestination{}, types.RepositoryFilter{})
	describe := func() *types.ReplicationConfiguration {
		return must[ecr.DescribeRegistryOutput](b, &ecr.DescribeRegistryInput{}).ReplicationConfiguration
	}
	if c := describe(); c.Rules == nil || len(c.Rules) != 0 {
		t.Errorf("%+v", c)
	}
	b.replicateTo(elsewhere, "prod/")
	want := &types.ReplicationConfiguration{Rules: []types.ReplicationRule{{
		Destinations:      []types.ReplicationDestination{destination(elsewhere)},
		RepositoryFilters: []types.RepositoryFilter{{Filter: new("prod/"), FilterType: "PREFIX_MATCH"}},
	}}}
	if d := cmp.Diff(want, describe(), ignore); d != "" {
		t.Error(d)
	}
	put := func(destinations ...types.ReplicationDestination) *ecr.PutReplicationConfigurationInput {
		return &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &types.ReplicationConfiguration{Rules: []types.ReplicationRule{{Destinations: destinations}}}}
	}
	refused[ecr.PutReplicationConfigurationOutput](b, put(destination(region)),
		"InvalidParameterException: Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: 'a registry cannot be its own destination (000000000000 in us-east-1)'")
	must[ecr.PutReplicationConfigurationOutput](b, put(types.ReplicationDestination{Region: new(region), RegistryId: new("111111111111")}))
	refused[ecr.PutReplicationConfigurationOutput](b, put(types.ReplicationDestination{Region: new("eu-far-1"), RegistryId: new("111111111111")}),
		"InvalidParameterException: Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: 'this cluster has no key for the registry 111111111111 in eu-far-1 that images of account 000000000000 may use'")
	var many []types.ReplicationDestination
	for i := range 26 {
		many = append(many, destination(fmt.Sprint("region-", i)))
	}
	refused[ecr.PutReplicationConfigurationOutput](b, put(many...), "InvalidParameterException: Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: 'at most 25 destinations, not 26'")
	must[ecr.PutReplicationConfigurationOutput](b, put(append(many[:25:25], many[0])...))
}

func TestRegistryPolicy(t *testing.T) {
	b := newBench(t)
	missing := "RegistryPolicyNotFoundException: Registry policy does not exist in the registry with id '000000000000'"
	refused[ecr.GetRegistryPolicyOutput](b, &ecr.GetRegistryPolicyInput{}, missing)
	refused[ecr.DeleteRegistryPolicyOutput](b, &ecr.DeleteRegistryPolicyInput{}, missing)
	text := `{"Version":"2012-10-17","Statement":[{"Sid":"r","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:root"},"Action":["ecr:CreateRepository","ecr:ReplicateImage"],"Resource":["arn:aws:ecr:us-east-1:000000000000:repository/*"]}]}`
	must[ecr.PutRegistryPolicyOutput](b, &ecr.PutRegistryPolicyInput{PolicyText: &text})
	if got := must[ecr.GetRegistryPolicyOutput](b, &ecr.GetRegistryPolicyInput{}); *got.PolicyText != text || *got.RegistryId != account {
		t.Errorf("%+v", got)
	}
	one := `{"Effect":"Allow","Principal":"*","Action":"ecr:*","Resource":"*"}`
	must[ecr.PutRegistryPolicyOutput](b, &ecr.PutRegistryPolicyInput{PolicyText: new(`{"Statement":` + one + `}`)})
	for bad, why := range map[string]string{
		`x`:                                 "Syntax errors in policy.",
		`{"Version":"2013","Statement":[]}`: "Syntax errors in policy.",
		`{"Version":"2012-10-17"}`:          "Syntax errors in policy.",
		`{"Statement":[]}`:                  "There is no statement.",
		`{"Statement":{"Effect":"Deny","Action":"ecr:*","Resource":"*"}}`:                                  "Missing required field Principal",
		`{"Statement":{"Effect":"Deny","Principal":"*","Action":"ecr:*"}}`:                                 "Policy statement must contain resources.",
		`{"Statement":{"Effect":"Deny","Principal":"*","Resource":"*"}}`:                                   "Policy statement must contain actions.",
		`{"Statement":{"Effect":"Deny","Principal":"*","Action":["ecr:*","s3:GetObject"],"Resource":"*"}}`: "Actions of s3 have no place in it.",
	} {
		refused[ecr.PutRegistryPolicyOutput](b, &ecr.PutRegistryPolicyInput{PolicyText: &bad}, "InvalidParameterException: Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid registry policy provided: "+why+"'")
	}
	must[ecr.DeleteRegistryPolicyOutput](b, &ecr.DeleteRegistryPolicyInput{})
	refused[ecr.GetRegistryPolicyOutput](b, &ecr.GetRegistryPolicyInput{}, missing)
}

// cluster is another registry with the part of ECR's API that replication needs, and faults on request.
type cluster struct {
	*bench
	server *httptest.Server
	fault  atomic.Pointer[func(http.ResponseWriter, *http.Request) bool] // true: the request is dealt with
}

func newCluster(t *testing.T, change ...func(*registry.Config)) *cluster {
	c := &cluster{bench: newBench(t, change...)}
	c.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := c.fault.Load(); f != nil && (*f)(w, r) {
			return
		}
		if strings.HasPrefix(r.URL.Path, "/v2") {
			c.bench.reg.Handler().ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		switch r.Header.Get("X-Amz-Target") {
		case "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken":
			if !strings.Contains(r.Header.Get("Authorization"), "Credential=AKIA/") {
				w.WriteHeader(400)
				io.WriteString(w, `{"__type":"UnrecognizedClientException","message":"no"}`)
				return
			}
			out := must[ecr.GetAuthorizationTokenOutput](c.bench, &ecr.GetAuthorizationTokenInput{}).AuthorizationData[0]
			fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":%q,"expiresAt":%d}]}`, *out.AuthorizationToken, out.ExpiresAt.Unix())
		case "AmazonEC2ContainerRegistry_V20150921.CreateRepository":
			var in struct{ RepositoryName string }
			json.NewDecoder(r.Body).Decode(&in)
			c.create(in.RepositoryName)
			io.WriteString(w, `{}`)
		default:
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
	}))
	t.Cleanup(c.server.Close)
	return c
}

func (c *cluster) as(region, key string) func(*registry.Config) {
	return func(cfg *registry.Config) {
		cfg.Remotes = map[string]registry.Remote{region: {Endpoint: c.server.URL, AccessKeyID: key, SecretAccessKey: "s"}}
	}
}

func (c *cluster) fail(f func(http.ResponseWriter, *http.Request) bool) { c.fault.Store(&f) }
func (c *cluster) heal()                                                { c.fault.Store(nil) }

// TestReplicationToCluster: blobs, children, index, tags, into repositories that it makes; digests are the same.
func TestReplicationToCluster(t *testing.T) {
	there := newCluster(t)
	b := newBench(t, there.as("far", "AKIA"))
	b.create("users")
	b.replicateTo("far")
	b.run()
	one := b.pushImage("users", "v1", "1")
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{desc(ociManifest, one, len(manifestText("1")))}})
	b.want(201, "PUT", "/v2/users/manifests/multi", index, mediaType(ociIndex))
	b.replicated()
	if m := there.pullAll(there.token, "users", "multi"); m != index {
		t.Errorf("%s", m)
	}
	b.pushImage("users", "v1", "2")
	b.replicated()
	if m := there.pullAll(there.token, "users", "v1"); m != manifestText("2") {
		t.Errorf("v1 is %s", m)
	}
	if d := cmp.Diff(map[string]string{"far": "COMPLETE"}, b.statuses("users", "multi")); d != "" {
		t.Error(d)
	}
}

// TestReplicationResumes: a big blob whose transfer breaks, with a restart on both sides, goes on at the byte where it stopped.
func TestReplicationResumes(t *testing.T) {
	there := newCluster(t)
	there.create("users")
	b := newBench(t, there.as("far", "AKIA"))
	b.create("users")
	b.replicateTo("far")
	content := make([]byte, 3<<20)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	var sent atomic.Int64
	broken := make(chan struct{})
	var once sync.Once
	there.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		// Half of it arrives, then the connection breaks.
		half := io.LimitReader(r.Body, 1<<20+1)
		n := r.Clone(r.Context())
		n.Body = io.NopCloser(io.MultiReader(half, failing{}))
		n.Header.Del("Content-Range")
		there.bench.reg.Handler().ServeHTTP(httptest.NewRecorder(), n)
		once.Do(func() { close(broken) })
		panic(http.ErrAbortHandler)
	})
	stop := b.run()
	m := b.imageOf("users", "{}", string(content))
	b.want(201, "PUT", "/v2/users/manifests/v1", m, mediaType(ociManifest))
	<-broken
	b.eventually(time.Second, func(v *state.View) bool {
		for e := range registry.ReplicationsPending.Scan(v, state.K()) {
			return e.Upload != "" && e.Attempts > 0
		}
		return false
	})
	stop()
	there.restart()
	there.fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			sent.Add(r.ContentLength)
		}
		return false
	})
	b.restart().run()
	b.replicated()
	if got := there.pullAll(there.token, "users", "v1"); got != m {
		t.Errorf("%s", got)
	}
	if n := sent.Load(); n <= 0 || n > 2<<20 {
		t.Errorf("after the restart %d bytes of %d were sent", n, len(content))
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestReplicationFails: refusals show at once, an unreachable cluster after a while; both are tried again and succeed once that is
// possible. Other images and destinations do not wait for them.
func TestReplicationFails(t *testing.T) {
	there := newCluster(t)
	there.create("users")
	b := newBench(t, there.as("far", "AKIA"))
	b.create("users", "other")
	for tag, tc := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request) bool
		want  string
	}{
		"refused": {func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut {
				return false
			}
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"errors":[{"code":"DENIED","message":"no"}]}`)
			return true
		}, "FAILED AccessDenied"},
		"down": {func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, "FAILED DestinationUnavailable"},
		"busy": {func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(429); return true }, "FAILED TooManyRequests"},
	} {
		must[ecr.PutReplicationConfigurationOutput](b, &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &types.ReplicationConfiguration{
			Rules: []types.ReplicationRule{{Destinations: []types.ReplicationDestination{destination("far"), destination(elsewhere)}}}}})
		there.fail(tc.fault)
		stop := b.restart().run()
		b.token = b.login(account, region)
		b.pushImage("users", tag, tag)
		b.eventually(time.Minute, func(*state.View) bool {
			s := b.statuses("users", tag)
			return s["far"] == tc.want && s[elsewhere] == "COMPLETE" // which another worker brings
		})
		there.heal()
		for range 70 { // minutes: the pause is an hour at most
			b.clock.Advance(time.Minute)
		}
		b.replicated()
		if s := b.statuses("users", tag)["far"]; s != "COMPLETE" {
			t.Errorf("%s, afterwards: %s", tag, s)
		}
		stop()
	}
	// Wrong credentials.
	b2 := newBench(t, there.as("far", "WRONG"))
	b2.create("users")
	b2.replicateTo("far")
	b2.run()
	b2.pushImage("users", "v1", "1")
	b2.eventually(time.Second, func(*state.View) bool { return b2.statuses("users", "v1")["far"] == "FAILED AccessDenied" })
}

// TestReplicationRecovers: however long a cluster was down, all that waits for it comes within minutes of its return.
func TestReplicationRecovers(t *testing.T) {
	there := newCluster(t)
	there.create("users")
	b := newBench(t, there.as("far", "AKIA"))
	b.create("users")
	b.replicateTo("far")
	there.fail(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	b.run()
	for i := range 20 {
		b.pushImage("users", fmt.Sprint("v", i), fmt.Sprint(i))
	}
	b.eventually(time.Minute, func(v *state.View) bool { // the first in the queue finds out for all
		for e := range registry.Replications.Scan(v, state.K()) {
			if e.Status == "FAILED" && e.FailureCode == "DestinationUnavailable" {
				return true
			}
		}
		return false
	})
	var asked atomic.Bool
	there.fail(func(http.ResponseWriter, *http.Request) bool { asked.Store(true); return false })
	back := b.clock.Now()
	b.eventually(time.Second, func(*state.View) bool { return asked.Load() })
	// While they come the clock goes slowly: what a slow machine takes for the work is not to look like a pause.
	b.eventually(10*time.Millisecond, nothingPending)
	if took := b.clock.Now().Sub(back); took > 5*time.Minute {
		t.Errorf("it took %v", took)
	}
	for i := range 20 {
		there.pullAll(there.token, "users", fmt.Sprint("v", i))
	}
}

// TestReplicationFollowsNoLocation: the token is not sent to another host.
func TestReplicationFollowsNoLocation(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s %s with %v", r.Method, r.URL, r.Header) }))
	defer other.Close()
	there := newCluster(t)
	there.create("users")
	b := newBench(t, there.as("far", "AKIA"))
	b.create("users")
	b.replicateTo("far")
	there.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasPrefix(r.URL.Path, "/v2/") {
			return false
		}
		w.Header().Set("Location", other.URL+"/upload")
		w.WriteHeader(http.StatusAccepted)
		return true
	})
	b.run()
	m := b.imageOf("users", "{}", string(bytes.Repeat([]byte("x"), 2<<20)))
	b.want(201, "PUT", "/v2/users/manifests/v1", m, mediaType(ociManifest))
	b.eventually(time.Second, func(v *state.View) bool {
		for e := range registry.ReplicationsPending.Scan(v, state.K()) {
			return e.Attempts > 2
		}
		return false
	})
}

// TestReplicationToAccountOfCluster: another account's registry in another cluster is reached with its own key, by those accounts that may use it.
func TestReplicationToAccountOfCluster(t *testing.T) {
	const other = "111111111111"
	there := newCluster(t)
	b := newBench(t, func(cfg *registry.Config) {
		cfg.Remotes = map[string]registry.Remote{"far": {Endpoint: there.server.URL, AccessKeyID: "nobody's", SecretAccessKey: "s", Accounts: map[string]registry.RemoteAccount{
			other: {AccessKeyID: "AKIA", SecretAccessKey: "s", From: []string{account}},
		}}}
	})
	b.create("users")
	to := func(destination string) *ecr.PutReplicationConfigurationInput {
		return &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &types.ReplicationConfiguration{Rules: []types.ReplicationRule{{
			Destinations: []types.ReplicationDestination{{Region: new("far"), RegistryId: &destination}}}}}}
	}
	if _, err := call[ecr.PutReplicationConfigurationOutput](b, "222222222222", region, to(other)); err == nil || !strings.Contains(err.Error(), "that images of account 222222222222 may use") {
		t.Errorf("an account that the key is not for: %v", err)
	}
	must[ecr.PutReplicationConfigurationOutput](b, to(other))
	b.run()
	b.pushImage("users", "v1", "1")
	b.replicated()
	if m := there.pullAll(there.token, "users", "v1"); m != manifestText("1") {
		t.Errorf("%s", m)
	}
	if d := cmp.Diff(map[string]string{"far": "COMPLETE"}, b.statuses("users", "v1")); d != "" {
		t.Error(d)
	}
}
