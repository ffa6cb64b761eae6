package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

// TestPullThroughAnyServer: the first pull of an image that the registry caches from another one works on any server, those that follow too, and
// fetches it once. The leader hears when it was pulled from whom.
func TestPullThroughAnyServer(t *testing.T) {
	_, origin := startControlPlane(t)
	at, err := url.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	blobs := map[string]int{} // how often each was asked for
	upstream := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(at)
		r.Out.SetBasicAuth("test", "test") // everybody may pull
		if r.In.Method == http.MethodGet && strings.Contains(r.In.URL.Path, "/blobs/") {
			mu.Lock()
			defer mu.Unlock()
			blobs[r.In.URL.Path]++
		}
	}})
	t.Cleanup(upstream.Close)
	if _, err := ecrClient(origin, "us-east-1").CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: new("library/web")}); err != nil {
		t.Fatal(err)
	}
	login := ociclient.Credentials{User: "test", Password: "test"}
	for _, tag := range []string{"v1", "v2"} {
		image := ocitest.Image(t, ociclient.Config{}, []ociclient.File{ociclient.Text("large", strings.Repeat(tag+" 0123456789", 1<<18))}, []ociclient.File{ociclient.Text("tag", tag)})
		if _, err := new(ociclient.Client).Push(t.Context(), at.Host+"/library/web:"+tag, login, image); err != nil {
			t.Fatal(err)
		}
	}

	s := startServers(t, 3)
	leader, others := s.leader()
	if _, err := others[0].ECR.CreatePullThroughCacheRule(t.Context(), &ecr.CreatePullThroughCacheRuleInput{
		EcrRepositoryPrefix: new("hub"), UpstreamRegistryUrl: new(strings.TrimPrefix(upstream.URL, "http://")),
	}); err != nil {
		t.Fatal(err)
	}
	// All at once, by those that follow.
	var pulls sync.WaitGroup
	for i := range 6 {
		one := others[i%2]
		pulls.Go(func() {
			if err := pull(t, one.listen+"/hub/library/web:v1", login); err != nil {
				t.Errorf("server %s, which follows: %v", one.peers, err)
			}
		})
	}
	pulls.Wait()
	mu.Lock()
	if len(blobs) != 3 {
		t.Errorf("%d blobs were asked for, want config and two layers", len(blobs))
	}
	for path, n := range blobs {
		if n != 1 {
			t.Errorf("%s was asked for %d times", path, n)
		}
	}
	mu.Unlock()
	// What one server has brought all have; and what has been brought in part.
	if _, err := new(ociclient.Client).Resolve(t.Context(), others[0].listen+"/hub/library/web:v2", login); err != nil {
		t.Error(err)
	}
	if err := pull(t, others[1].listen+"/hub/library/web:v2", login); err != nil {
		t.Error(err)
	}
	upstream.Close()
	for _, one := range s.all {
		for _, tag := range []string{"v1", "v2"} {
			if err := pull(t, one.listen+"/hub/library/web:"+tag, login); err != nil {
				t.Errorf("%s of server %s without the upstream: %v", tag, one.peers, err)
			}
		}
	}

	pulled := func(one *oneServer) (time.Time, error) {
		out, err := one.ECR.DescribeImages(t.Context(), &ecr.DescribeImagesInput{RepositoryName: new("team/job"), ImageIds: []types.ImageIdentifier{{ImageTag: new("v1")}}})
		if err != nil || out.ImageDetails[0].LastRecordedPullTime == nil {
			return time.Time{}, errors.Join(err, errors.New("it was never pulled"))
		}
		return *out.ImageDetails[0].LastRecordedPullTime, nil
	}
	if _, err := leader.ECR.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: new("team/job")}); err != nil {
		t.Fatal(err)
	}
	image := ocitest.Image(t, ociclient.Config{}, []ociclient.File{ociclient.Text("job", "")})
	if _, err := new(ociclient.Client).Push(t.Context(), leader.listen+"/team/job:v1", login, image); err != nil {
		t.Fatal(err)
	}
	if err := pull(t, others[1].listen+"/team/job:v1", login); err != nil {
		t.Fatal(err)
	}
	for _, one := range []*oneServer{leader, others[0]} {
		eventually(t, func() error {
			_, err := pulled(one)
			if err != nil {
				err = fmt.Errorf("server %s, which it was not pulled from: %w", one.peers, err)
			}
			return err
		})
	}
}
