package registry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/registry/scan"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// answers asks by Answer, and as the task's host would without it: where there is an answer it is what the host would be told.
func (b *bench) answers(account, image string, as *api.Identity, want blob.Digest) {
	b.t.Helper()
	got, ok := b.reg.Answer(b.store.View(), account, region, image, as)
	if ok != (want != "") || got != string(want) {
		b.t.Errorf("%s: %q, %v, want %q", image, got, ok, want)
	}
	if !ok {
		return
	}
	user, password, _ := b.reg.PullCredentials(account, region, image, as)
	at, rest, _ := strings.Cut(image, "/")
	name, ref, pinned := strings.Cut(rest, "@")
	if !pinned {
		name, ref, _ = strings.Cut(rest, ":")
	}
	if a := b.want(200, "GET", "/v2/"+name+"/manifests/"+ref, nil, basic(user, password), host(at)); a.Header.Get("Docker-Content-Digest") != got {
		b.t.Errorf("%s: the host would be told %s", image, a.Header.Get("Docker-Content-Digest"))
	}
}

// TestAnswer: what comes with a task's assignment is what its host would be told, and nothing wherever it would be refused, or might be.
func TestAnswer(t *testing.T) {
	b := guarded(t)
	b.create("web")
	one, ana, bob := b.pushImage("web", "v1", "one"), userOf(account, "ana"), userOf(account, "bob")
	image := b.host() + "/web:v1"
	b.answers(account, image, nil, one)
	b.answers(account, image, &ana, one)
	b.answers(account, b.host()+"/web@"+string(one), &ana, one)
	b.answers(account, image, &bob, "")
	for _, unknown := range []string{"docker.io/library/web:v1", b.host() + "/none:v1", b.host() + "/web:v2", b.host() + "/web@" + string(blob.Sum([]byte("x"))), b.host() + "/web:-", b.host() + "/web@sha256:x"} {
		b.answers(account, unknown, nil, "")
	}
	two := b.pushImage("web", "v1", "two")
	b.answers(account, image, &ana, two)
	b.answers(account, b.host()+"/web@"+string(one), &ana, one)

	// Other accounts' tasks, as that account's policies are at the moment.
	theirs := abroad + "/web:v1"
	b.answers(stranger, theirs, nil, "")
	b.setPolicy("web", `{"Effect":"Allow","Principal":{"AWS":"`+stranger+`"},"Action":["ecr:BatchGetImage"]}`)
	b.answers(stranger, theirs, nil, two)
	b.setPolicy("web", `{"Effect":"Allow","Principal":{"AWS":"`+stranger+`"},"Action":["ecr:PutImage"]}`)
	b.answers(stranger, theirs, nil, "")

	// What a policy makes depend on the request is for the registry to say once there is one, whether it lets it or not.
	for condition, status := range map[string]int{
		`"IpAddress":{"aws:SourceIp":"127.0.0.0/8"}`:           403,
		`"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}`:            200,
		`"NotIpAddress":{"aws:SourceIp":"127.0.0.0/8"}`:        200,
		`"Bool":{"aws:SecureTransport":"false"}`:               403,
		`"Bool":{"aws:SecureTransport":"true"}`:                200,
		`"StringLike":{"aws:UserAgent":"Go-http-client*"}`:     403,
		`"StringEquals":{"aws:RequestedRegion":"eu-north-42"}`: 0, // that is known without
	} {
		b.setPolicy("web", `{"Effect":"Deny","Principal":"*","Action":"ecr:BatchGetImage","Condition":{`+condition+`}}`)
		if status == 0 {
			b.answers(account, image, &ana, two)
			continue
		}
		b.answers(account, image, &ana, "")
		user, password, _ := b.reg.PullCredentials(account, region, image, &ana)
		b.want(status, "GET", "/v2/web/manifests/v1", nil, basic(user, password))
	}
}

// TestAnswerOfAnIndex: the host asks for its platform's image too.
func TestAnswerOfAnIndex(t *testing.T) {
	b := newBench(t)
	b.create("web")
	child := b.pushImage("web", "child", "1")
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{desc(ociManifest, child, len(manifestText("1")))}})
	b.want(201, "PUT", "/v2/web/manifests/multi", index, mediaType(ociIndex))
	b.answers(account, b.host()+"/web:multi", nil, blob.Sum([]byte(index)))
	b.setClass("web", "multi", types.TargetStorageClassArchive)
	b.answers(account, b.host()+"/web:multi", nil, "")
	b.answers(account, b.host()+"/web:child", nil, child)
}

// TestAnswerOfTheGate: findings refuse an image to the next task, whatever the one before was told.
func TestAnswerOfTheGate(t *testing.T) {
	s := &scripted{report: reportOf(scan.Medium, "CVE-1-1")}
	b := scanning(t, func(c *registry.Config) { c.Scanner, c.Gate = s, scan.High })
	must[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: new("users"), ImageScanningConfiguration: scanOnPush(true)})
	digest := b.pushLayers("users", "v1", debian("2.36-9"))
	b.answers(account, b.host()+"/users:v1", nil, "")
	b.scan()
	b.answers(account, b.host()+"/users:v1", nil, digest)
	s.report = reportOf(scan.Critical, "CVE-1-2")
	b.clock.Advance(24 * time.Hour)
	b.token = b.login(account, region)
	must[ecr.StartImageScanOutput](b, &ecr.StartImageScanInput{RepositoryName: new("users"), ImageId: tagged("v1")})
	b.scan()
	b.answers(account, b.host()+"/users:v1", nil, "")
}

// TestAnswerCountsAsAPull: else an image of which every host has a copy would be taken for one that nobody uses.
func TestAnswerCountsAsAPull(t *testing.T) {
	b := newBench(t)
	b.create("web")
	digest := b.pushImage("web", "v1", "1")
	pulled := func() *time.Time {
		out := must[ecr.DescribeImagesOutput](b, &ecr.DescribeImagesInput{RepositoryName: new("web")})
		return out.ImageDetails[0].LastRecordedPullTime
	}
	if at := pulled(); at != nil {
		t.Fatalf("pulled at %v", at)
	}
	b.answers(account, b.host()+"/web:v2", nil, "")
	if at := pulled(); at != nil {
		t.Errorf("an image that is not there counts, at %v", at)
	}
	if got, _ := b.reg.Answer(b.store.View(), account, region, b.host()+"/web:v1", nil); got != string(digest) {
		t.Fatalf("the answer is %q", got)
	}
	if at := pulled(); at == nil {
		t.Error("it does not count")
	}
}
