package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/seed-2f228079/neargate/client"
)

// TestReplicationKilled kills either end of a replication between two clusters with SIGKILL, again and again, while images are pushed: in the end every
// image whose push was acknowledged is at both ends, with the same digest, and pulls byte for byte.
func TestReplicationKilled(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	there := startOn(t, "fake")
	// Its port changes with each start: the other end reaches it by one that stays.
	var target atomic.Pointer[url.URL]
	pointTo := func(endpoint string) {
		u, err := url.Parse(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		target.Store(u)
	}
	pointTo(there.endpoint)
	front := httptest.NewServer(&httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target.Load())
		r.Out.Host = r.In.Host // which is signed
	}})
	defer front.Close()
	file := filepath.Join(t.TempDir(), "remotes.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"eu-far-1": {"endpoint": %q, "accessKeyId": "test", "secretAccessKey": "test"}}`, front.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	here := startWith(t, "fake", []string{"--remote-regions", file})
	ctx := t.Context()
	if _, err := here.client().ECR.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: new("team/web")}); err != nil {
		t.Fatal(err)
	}
	rules := []types.ReplicationRule{{Destinations: []types.ReplicationDestination{{Region: new("eu-far-1"), RegistryId: new("000000000000")}}}}
	if _, err := here.client().ECR.PutReplicationConfiguration(ctx, &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &types.ReplicationConfiguration{Rules: rules}}); err != nil {
		t.Fatal(err)
	}

	credentials := &authn.Basic{Username: "test", Password: "test"}
	reference := func(p *platform, tag string) name.Reference {
		ref, err := name.ParseReference(p.listen + "/team/web:" + tag)
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	digests := map[string]v1.Hash{} // of what was acknowledged, by tag
	for round := range 6 {
		rnd := rand.New(rand.NewPCG(seed, uint64(round)))
		some, stop, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
		due, at, pause := 1+rnd.IntN(4), here.listen, time.Duration(rnd.IntN(300))*time.Millisecond
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				tag := fmt.Sprintf("v%d-%d", round, i)
				image, err := random.Image(1+rnd.Int64N(3<<20), 2) // some layers have an upload session on their way, some go at once
				if err != nil {
					t.Error(err)
					return
				}
				ref, err := name.ParseReference(at + "/team/web:" + tag)
				if err != nil {
					t.Error(err)
					return
				}
				if remote.Write(ref, image, remote.WithAuth(credentials), remote.WithContext(ctx), remote.WithRetryPredicate(func(error) bool { return false })) != nil {
					return // this end is gone
				}
				if digests[tag], err = image.Digest(); err != nil {
					t.Error(err)
					return
				}
				if i+1 == due {
					close(some)
				}
			}
		}()
		select {
		case <-some:
		case <-done:
			t.Fatalf("only %d pushes of round %d succeeded", len(digests), round)
		}
		time.Sleep(pause) // any moment will do
		killed := []*platform{here, there}[round%2]
		if err := killed.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-killed.done
		killed.run()
		pointTo(there.endpoint)
		close(stop)
		<-done
	}

	pull := func(p *platform, tag string, as *authn.Basic) error {
		image, err := remote.Image(reference(p, tag), remote.WithAuth(as), remote.WithContext(ctx))
		if err != nil {
			return err
		}
		if got, err := image.Digest(); err != nil || got != digests[tag] {
			return fmt.Errorf("it has the digest %s, not %s (%v)", got, digests[tag], err)
		}
		return validate.Image(image)
	}
	far := &authn.Basic{Username: "AWS", Password: there.passwordIn("eu-far-1")}
	for tag := range digests {
		if err := pull(here, tag, credentials); err != nil {
			t.Errorf("%s here: %v", tag, err)
		}
		eventually(t, 2*time.Minute, tag+" to be replicated", func() (bool, string) {
			out, err := here.client().ECR.DescribeImageReplicationStatus(ctx, &ecr.DescribeImageReplicationStatusInput{RepositoryName: new("team/web"), ImageId: &types.ImageIdentifier{ImageTag: &tag}})
			if err != nil {
				return false, err.Error()
			}
			return len(out.ReplicationStatuses) == 1 && out.ReplicationStatuses[0].Status == types.ReplicationStatusComplete, fmt.Sprint(out.ReplicationStatuses)
		})
		if err := pull(there, tag, far); err != nil {
			t.Errorf("%s there: %v", tag, err)
		}
	}
	t.Logf("%d pushes acknowledged", len(digests))
}

// passwordIn is what GetAuthorizationToken gives in a region.
func (p *platform) passwordIn(region string) string {
	p.t.Helper()
	c, err := client.New(client.Config{Endpoint: p.endpoint, Region: region, AccessKey: "test", SecretKey: "test"})
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := c.ECR.GetAuthorizationToken(p.t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		p.t.Fatal(err)
	}
	pair, err := base64.StdEncoding.DecodeString(*out.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimPrefix(string(pair), "AWS:")
}
