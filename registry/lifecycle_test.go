package registry_test

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// policy of rules that expire: "untagged count 1", "tagged v* count 2", "any days 3".
func policy(rules ...string) *string {
	var list []string
	for i, r := range rules {
		f := strings.Fields(r)
		tags := ""
		if f[0] == "tagged" {
			tags = `"tagPatternList":["` + f[1] + `"],`
			f = f[1:]
		}
		count := `"countType":"imageCountMoreThan",`
		if f[1] == "days" {
			count = `"countType":"sinceImagePushed","countUnit":"days",`
		}
		status := strings.Fields(r)[0]
		list = append(list, fmt.Sprintf(`{"rulePriority":%d,"selection":{"tagStatus":"%s",%s%s"countNumber":%s},"action":{"type":"expire"}}`, i+1, status, tags, count, f[2]))
	}
	return new(`{"rules":[` + strings.Join(list, ",") + `]}`)
}

func (b *bench) putPolicy(repo string, p *string) {
	b.t.Helper()
	must[ecr.PutLifecyclePolicyOutput](b, &ecr.PutLifecyclePolicyInput{RepositoryName: &repo, LifecyclePolicyText: p})
}

func (b *bench) applyPolicies() registry.Expired {
	b.t.Helper()
	got, err := b.reg.ApplyLifecyclePolicies(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

// images are the digests in a repository, whatever their status.
func (b *bench) images(repo string) map[string][]string {
	b.t.Helper()
	all := map[string][]string{}
	out := must[ecr.DescribeImagesOutput](b, &ecr.DescribeImagesInput{RepositoryName: &repo, MaxResults: new(int32(1000)), Filter: &types.DescribeImagesFilter{ImageStatus: types.ImageStatusFilterAny}})
	for _, d := range out.ImageDetails {
		all[*d.ImageDigest] = d.ImageTags
	}
	return all
}

func TestLifecyclePolicy(t *testing.T) {
	b := newBench(t)
	b.create("users")
	missing := "LifecyclePolicyNotFoundException: Lifecycle policy does not exist for the repository with name 'users' in the registry with id '000000000000'"
	refused[ecr.GetLifecyclePolicyOutput](b, &ecr.GetLifecyclePolicyInput{RepositoryName: new("users")}, missing)
	refused[ecr.DeleteLifecyclePolicyOutput](b, &ecr.DeleteLifecyclePolicyInput{RepositoryName: new("users")}, missing)
	refused[ecr.StartLifecyclePolicyPreviewOutput](b, &ecr.StartLifecyclePolicyPreviewInput{RepositoryName: new("users")}, missing)
	refused[ecr.PutLifecyclePolicyOutput](b, &ecr.PutLifecyclePolicyInput{RepositoryName: new("nope"), LifecyclePolicyText: policy("any count 1")},
		"RepositoryNotFoundException: The repository with name 'nope' does not exist in the registry with id '000000000000'")

	var digests []blob.Digest
	for i := range 4 {
		digests = append(digests, b.pushImage("users", fmt.Sprint("v", i), fmt.Sprint(i)))
		b.clock.Advance(time.Minute)
	}
	text := policy("tagged v* count 2")
	b.putPolicy("users", text)
	got := must[ecr.GetLifecyclePolicyOutput](b, &ecr.GetLifecyclePolicyInput{RepositoryName: new("users")})
	if *got.LifecyclePolicyText != *text || got.LastEvaluatedAt != nil {
		t.Errorf("%+v", got)
	}
	if done := b.applyPolicies(); done != (registry.Expired{Repositories: 1, Expired: 2}) {
		t.Errorf("%+v", done)
	}
	if d := cmp.Diff(map[string][]string{string(digests[2]): {"v2"}, string(digests[3]): {"v3"}}, b.images("users")); d != "" {
		t.Error(d)
	}
	b.want(404, "GET", "/v2/users/manifests/v1", nil)
	got = must[ecr.GetLifecyclePolicyOutput](b, &ecr.GetLifecyclePolicyInput{RepositoryName: new("users")})
	if got.LastEvaluatedAt == nil || !got.LastEvaluatedAt.Equal(b.clock.Now()) {
		t.Errorf("evaluated %v", got.LastEvaluatedAt)
	}
	b.pushImage("users", "v4", "4")
	if done := b.applyPolicies(); done.Repositories != 0 {
		t.Errorf("evaluated again at once: %+v", done)
	}
	b.clock.Advance(time.Hour)
	if done := b.applyPolicies(); done.Expired != 1 {
		t.Errorf("%+v", done)
	}

	// A policy that is put again is evaluated soon; one that is deleted, or whose repository is, no more.
	b.putPolicy("users", policy("any count 1"))
	must[ecr.DeleteLifecyclePolicyOutput](b, &ecr.DeleteLifecyclePolicyInput{RepositoryName: new("users")})
	if done := b.applyPolicies(); done.Repositories != 0 {
		t.Errorf("%+v", done)
	}
	b.putPolicy("users", policy("any count 1"))
	must[ecr.DeleteRepositoryOutput](b, &ecr.DeleteRepositoryInput{RepositoryName: new("users"), Force: true})
	b.create("users")
	refused[ecr.GetLifecyclePolicyOutput](b, &ecr.GetLifecyclePolicyInput{RepositoryName: new("users")}, missing)
}

func TestLifecyclePreview(t *testing.T) {
	b := newBench(t)
	b.create("users")
	refused[ecr.GetLifecyclePolicyPreviewOutput](b, &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: new("users")},
		"LifecyclePolicyPreviewNotFoundException: Lifecycle policy preview does not exist for the repository with name 'users' in the registry with id '000000000000'")
	tagged := map[string]string{}
	for i := range 5 {
		tag := fmt.Sprint("v", i)
		tagged[string(b.pushImage("users", tag, tag))] = tag
		b.clock.Advance(time.Minute)
	}
	untagged := string(b.pushImage("users", "moved", "x"))
	b.clock.Advance(time.Minute)
	b.pushImage("users", "moved", "y")
	b.clock.Advance(time.Minute)
	must[ecr.StartLifecyclePolicyPreviewOutput](b, &ecr.StartLifecyclePolicyPreviewInput{RepositoryName: new("users"), LifecyclePolicyText: policy("tagged v* count 2", "any count 1")})
	var got []types.LifecyclePolicyPreviewResult
	in := &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: new("users"), MaxResults: new(int32(2))}
	for {
		out := must[ecr.GetLifecyclePolicyPreviewOutput](b, in)
		if out.Status != types.LifecyclePolicyPreviewStatusComplete || *out.Summary.ExpiringImageTotalCount != 4 {
			t.Fatalf("%+v", out)
		}
		got = append(got, out.PreviewResults...)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	want := map[string]int32{untagged: 2}
	for d, tag := range tagged {
		if tag < "v3" {
			want[d] = 1
		}
	}
	rules := map[string]int32{}
	for _, r := range got {
		rules[*r.ImageDigest] = *r.AppliedRulePriority
		if r.Action.Type != types.ImageActionTypeExpire || r.ImagePushedAt == nil {
			t.Errorf("%+v", r)
		}
	}
	if d := cmp.Diff(want, rules); d != "" {
		t.Error(d)
	}
	if n := len(b.images("users")); n != 7 {
		t.Errorf("a preview left %d images of 7", n)
	}
	one := must[ecr.GetLifecyclePolicyPreviewOutput](b, &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: new("users"), ImageIds: []types.ImageIdentifier{{ImageTag: new("v0")}, {ImageTag: new("v4")}}})
	if len(one.PreviewResults) != 1 || !slices.Equal(one.PreviewResults[0].ImageTags, []string{"v0"}) {
		t.Errorf("%+v", one.PreviewResults)
	}
	some := must[ecr.GetLifecyclePolicyPreviewOutput](b, &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: new("users"), Filter: &types.LifecyclePolicyPreviewFilter{TagStatus: types.TagStatusUntagged}})
	if len(some.PreviewResults) != 1 || *some.PreviewResults[0].ImageDigest != untagged {
		t.Errorf("%+v", some.PreviewResults)
	}
	b.clock.Advance(25 * time.Hour)
	if out := must[ecr.GetLifecyclePolicyPreviewOutput](b, &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: new("users")}); out.Status != types.LifecyclePolicyPreviewStatusExpired || len(out.PreviewResults) != 0 {
		t.Errorf("after a day: %+v", out)
	}
}

// TestLifecycleKeepsWhatIsNeeded: by tag, by digest, by the digest that a tag once meant, and what is inside a needed index.
func TestLifecycleKeepsWhatIsNeeded(t *testing.T) {
	var uses []controlplane.ImageUse
	b := newBench(t, func(c *registry.Config) {
		c.Users = func(_ state.Reader, of string) iter.Seq[controlplane.ImageUse] {
			if of != account {
				t.Errorf("asked for account %s", of)
			}
			return slices.Values(uses)
		}
	})
	b.create("users", "other")
	byTag := b.pushImage("users", "v1", "1")
	byDigest := b.pushImage("users", "v2", "2")
	moved := b.pushImage("users", "latest", "3")
	newest := b.pushImage("users", "latest", "4")
	child := b.pushImage("users", "child", "5")
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{desc(ociManifest, child, len(manifestText("5")))}})
	b.want(201, "PUT", "/v2/users/manifests/multi", index, mediaType(ociIndex))
	b.pushImage("users", "v6", "6")
	b.pushImage("other", "v1", "1")
	uses = []controlplane.ImageUse{
		{Region: region, Image: b.host() + "/users:v1", By: "task one"},
		{Region: region, Image: b.host() + "/users@" + string(byDigest), By: "task two"},
		{Region: region, Image: b.host() + "/users", Digest: string(moved), By: "service three"},
		{Region: region, Image: b.host() + "/users:multi", By: "task four"},
		{Region: "eu-west-1", Image: b.host() + "/users:v6", By: "a task elsewhere"},
		{Region: region, Image: "docker.io/users:v6", By: "a task of another registry"},
	}
	b.clock.Advance(48 * time.Hour)
	for _, repo := range []string{"users", "other"} {
		b.putPolicy(repo, policy("any days 1"))
	}
	kept := map[string]string{}
	for _, r := range b.reg.Resources() {
		if r.Name != "ExplainLifecyclePolicy" {
			continue
		}
		err := r.Read(b.in(account, region), &registry.ExplainLifecyclePolicyInput{Repository: "users"}, func(out ...any) error {
			for _, o := range out {
				v := o.(*registry.LifecycleVerdict)
				kept[v.ImageDigest] = v.Kept
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	multi := string(blob.Sum([]byte(index)))
	want := map[string]string{string(byTag): "needed by task one", string(byDigest): "needed by task two", string(moved): "needed by service three",
		string(newest): "needed by service three", multi: "needed by task four", string(child): "referenced by manifest list " + multi, string(manifestOf("6")): ""}
	if d := cmp.Diff(want, kept); d != "" {
		t.Error(d)
	}
	if done := b.applyPolicies(); done != (registry.Expired{Repositories: 2, Expired: 2, Kept: 6}) {
		t.Errorf("%+v", done)
	}
	delete(want, string(manifestOf("6")))
	if got := b.images("users"); len(got) != len(want) {
		t.Errorf("left: %v", got)
	}
	uses = nil
	b.clock.Advance(2 * time.Hour)
	if done := b.applyPolicies(); done.Expired != 6 || len(b.images("users")) != 0 {
		t.Errorf("nobody needs them, and yet: %+v", done)
	}
}

// TestLifecycleReferrers: an artifact stays with its subject and leaves after it.
func TestLifecycleReferrers(t *testing.T) {
	b := newBench(t)
	b.create("users")
	subject := b.pushImage("users", "v1", "1")
	config := b.pushBlob("users", "{}")
	artifact := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "artifactType": "application/x.signature",
		"config": desc("application/vnd.oci.empty.v1+json", config, 2), "layers": []any{}, "subject": desc(ociManifest, subject, len(manifestText("1")))})
	d := blob.Sum([]byte(artifact))
	b.want(201, "PUT", "/v2/users/manifests/"+string(d), artifact, mediaType(ociManifest))
	b.clock.Advance(48 * time.Hour)
	b.putPolicy("users", policy("untagged days 1"))
	if done := b.applyPolicies(); done.Expired != 0 {
		t.Errorf("an artifact was taken from its subject: %+v", done)
	}
	b.putPolicy("users", policy("any days 1"))
	if done := b.applyPolicies(); done.Expired != 1 || len(b.images("users")) != 1 {
		t.Errorf("%+v", done)
	}
	b.clock.Advance(time.Hour)
	if done := b.applyPolicies(); done.Expired != 1 || len(b.images("users")) != 0 {
		t.Errorf("the artifact stays without its subject: %+v", done)
	}
}

// TestLifecycleInterrupted: what is not done when the process ends is done afterwards.
func TestLifecycleInterrupted(t *testing.T) {
	b := newBench(t)
	b.create("users")
	for i := range 20 {
		b.pushImage("users", fmt.Sprint("v", i), fmt.Sprint(i))
		b.clock.Advance(time.Second)
	}
	b.putPolicy("users", policy("any count 1"))
	ctx, cancel := context.WithCancel(t.Context())
	w := b.store.Watch(ctx, b.store.Revision(), registry.Manifests)
	done := make(chan error)
	go func() {
		_, err := b.reg.ApplyLifecyclePolicies(ctx)
		done <- err
	}()
	if _, err := w.Next(t.Context()); err != nil { // the first one is gone
		t.Fatal(err)
	}
	cancel()
	<-done
	got := b.applyPolicies()
	if left := b.images("users"); len(left) != 1 || left[string(manifestOf("19"))] == nil {
		t.Errorf("%+v, left %v", got, left)
	}
}

// TestLifecycleBesidePushes: images are pushed and tags move while policies are applied all the time. What a tag means at the end is
// there whole, because the rule spares what is tagged.
func TestLifecycleBesidePushes(t *testing.T) {
	b := newBench(t, acceptKey("AKIA", "secret", account)) // a token would age with the clock
	key := basic("AKIA", "secret")
	b.create("users")
	b.putPolicy("users", policy("untagged count 1"))
	ctx, stop := context.WithCancel(t.Context())
	var reconciler, pushers sync.WaitGroup
	reconciler.Go(func() {
		for ctx.Err() == nil {
			if _, err := b.reg.ApplyLifecyclePolicies(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			b.clock.Advance(time.Hour)
		}
	})
	for w := range 3 {
		pushers.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range 40 {
				content, tag := fmt.Sprint(rnd.IntN(5)), fmt.Sprint("w", w)
				for _, part := range []string{configOf(content), content} {
					b.want(201, "POST", "/v2/users/blobs/uploads/?digest="+string(blob.Sum([]byte(part))), part, key)
				}
				m := manifestText(content)
				b.want(201, "PUT", "/v2/users/manifests/"+tag, m, mediaType(ociManifest), key)
				if got := b.want(200, "GET", "/v2/users/manifests/"+tag, nil, key).body; got != m {
					t.Errorf("push %d: %s", i, got)
				}
			}
		})
	}
	pushers.Wait()
	stop()
	reconciler.Wait()
}

// TestPullTimes: they outlive a restart, at the price of one record an hour and image.
func TestPullTimes(t *testing.T) {
	b := newBench(t)
	b.create("users")
	b.pushImage("users", "v1", "1")
	pulled := func() *time.Time {
		return must[ecr.DescribeImagesOutput](b, &ecr.DescribeImagesInput{RepositoryName: new("users")}).ImageDetails[0].LastRecordedPullTime
	}
	restarted := func() *time.Time {
		b.restart()
		return pulled()
	}
	if at := pulled(); at != nil {
		t.Errorf("never pulled, and at %v", at)
	}
	b.clock.Advance(time.Minute)
	first := b.clock.Now()
	b.want(200, "GET", "/v2/users/manifests/v1", nil)
	if err := b.reg.RecordPulls(t.Context()); err != nil {
		t.Fatal(err)
	}
	if at := restarted(); at == nil || !at.Equal(first) {
		t.Errorf("after a restart: %v, want %v", at, first)
	}
	b.clock.Advance(10 * time.Minute) // too soon for another record, not for the answer
	b.want(200, "GET", "/v2/users/manifests/v1", nil)
	revision := b.store.Revision()
	if err := b.reg.RecordPulls(t.Context()); err != nil || b.store.Revision() != revision {
		t.Errorf("recorded again within the hour: %v", err)
	}
	if at := pulled(); !at.Equal(b.clock.Now()) {
		t.Errorf("%v", at)
	}
}

// others are servers that hold nothing, or none.
type others struct {
	ids     []string
	unknown bool
}

func (o *others) Others() ([]string, bool)                  { return o.ids, !o.unknown }
func (o *others) ReportPulls(context.Context, []byte) error { return state.ErrNotLeader }
func (o *others) Spread(context.Context, blob.Digest) error { return nil }
func (o *others) Fetch(context.Context, blob.Digest) error  { return blob.ErrNotFound }
func (o *others) FetchUpload(context.Context, string) error { return blob.ErrNotFound }

// TestPulledElsewhere: while it is not known what other servers have given out, nothing is archived for not having been pulled.
func TestPulledElsewhere(t *testing.T) {
	servers := &others{ids: []string{"second", "third"}}
	b := newBench(t, func(c *registry.Config) { c.Copies = servers })
	b.create("users")
	here := b.pushImage("users", "v1", "1")
	there := b.pushImage("users", "v2", "2")
	b.putPolicy("users", new(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":30},`+
		`"action":{"type":"transition","targetStorageClass":"archive"}}]}`))
	report := func(from string, all bool, pulled ...blob.Digest) {
		t.Helper()
		images := []any{}
		for _, d := range pulled {
			for m := range registry.Manifests.Scan(b.store.View(), state.K()) {
				if m.Digest == string(d) {
					images = append(images, map[string]any{"image": registry.Manifests.Key(m).Parts(), "at": b.clock.Now().Add(time.Hour)}) // its clock is fast
				}
			}
		}
		if err := b.reg.TakePulls(t.Context(), from, []byte(marshal(map[string]any{"pulls": images, "all": all}))); err != nil {
			t.Fatal(err)
		}
	}
	archived := func(when string, want int) {
		t.Helper()
		b.age(25 * time.Hour) // a repository has its turn once a day
		if when == "all have reported" {
			report("second", true)
			report("third", true)
		}
		if got := b.applyPolicies(); got.Archived != want {
			t.Errorf("%s: %+v, want %d archived", when, got, want)
		}
	}
	b.age(31 * 24 * time.Hour)
	archived("nobody has reported", 0)
	report("second", true, there)
	archived("one has reported", 0)
	report("second", true)
	report("third", false)
	archived("one has more to say", 0)
	servers.unknown = true
	archived("nobody knows who there is", 0)
	servers.unknown = false
	archived("all have reported", 1)
	for m := range registry.Manifests.Scan(b.store.View(), state.K()) {
		if m.InArchive != (m.Digest == string(here)) {
			t.Errorf("%s is in the archive: %v", m.Digest, m.InArchive)
		}
	}
	servers.ids = nil
	b.age(31 * 24 * time.Hour)
	archived("alone", 1)
}
