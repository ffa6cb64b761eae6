package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
)

// TestUploadSurvivesLeader: an upload that was begun with one leader is finished with the next, once the first one is back as a follower.
func TestUploadSurvivesLeader(t *testing.T) {
	s := startServers(t, 3)
	old, others := s.leader()
	repository := "app"
	if _, err := others[0].ECR.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &repository}); err != nil {
		t.Fatal(err)
	}
	layer := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sum := sha256.Sum256(layer)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	do := func(one *oneServer, method, path string, body []byte) (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), method, one.url+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("test", "test")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode >= 300 {
			err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
		}
		return resp, err
	}
	began, err := do(others[0], "POST", "/v2/app/blobs/uploads/", nil)
	if err != nil {
		t.Fatal(err)
	}
	location := began.Header.Get("Location")
	if _, err := do(others[1], "PATCH", location, layer[:len(layer)/2]); err != nil {
		t.Fatal(err)
	}
	began, err = do(others[0], "POST", "/v2/app/blobs/uploads/", nil) // and one that is in memory
	if err != nil {
		t.Fatal(err)
	}
	small := began.Header.Get("Location")
	if _, err := do(others[1], "PATCH", small, []byte("small")); err != nil {
		t.Fatal(err)
	}
	for _, one := range s.all { // nobody draws it away by asking
		if got, err := do(one, "GET", location, nil); err != nil || got.Header.Get("Range") != fmt.Sprintf("0-%d", len(layer)/2-1) {
			t.Errorf("server %s: %v", one.peers, err)
		}
	}
	if uploads, err := filepath.Glob(filepath.Join(old.dir, "blobs", "uploads", "*")); err != nil || len(uploads) != 1 {
		t.Errorf("the leader has the uploads %v, %v", uploads, err)
	}
	leader := old
	for try := 0; leader == old && try < 10; try++ { // an election may have it lead again
		old.end(syscall.SIGTERM)
		old.process = nil
		s.leader()
		s.start(old, token)
		s.ready(old)
		leader, _ = s.leader()
	}
	if leader == old {
		t.Fatalf("the leader is %s again and again", old.peers)
	}
	eventually(t, func() error {
		got, err := do(leader, "GET", location, nil)
		if err == nil && got.Header.Get("Range") != fmt.Sprintf("0-%d", len(layer)/2-1) {
			err = errors.New("its range is " + got.Header.Get("Range"))
		}
		return err
	})
	if _, err := do(old, "PATCH", location, layer[len(layer)/2:]); err != nil {
		t.Fatal(err)
	}
	if _, err := do(others[0], "PUT", location+"?digest="+digest, nil); err != nil {
		t.Fatal(err)
	}
	sum = sha256.Sum256([]byte("small layer"))
	if _, err := do(others[1], "PUT", small+"?digest=sha256:"+hex.EncodeToString(sum[:]), []byte(" layer")); err != nil {
		t.Errorf("the upload in memory: %v", err)
	}
	for _, one := range s.all {
		if got, err := do(one, "HEAD", "/v2/app/blobs/"+digest, nil); err != nil || got.ContentLength != int64(len(layer)) {
			t.Errorf("server %s: %v", one.peers, err)
		}
	}
}

// TestConformanceOfThreeServers runs the OCI distribution conformance suite (see registry.TestConformance) with each request at the next
// of three servers.
func TestConformanceOfThreeServers(t *testing.T) {
	suite := os.Getenv("OCI_CONFORMANCE")
	if suite == "" {
		t.Skip("OCI_CONFORMANCE does not name the suite's program")
	}
	s := startServers(t, 3)
	var targets []*url.URL
	for _, one := range s.all {
		u, err := url.Parse(one.url)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, u)
	}
	var n atomic.Uint64
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(targets[n.Add(1)%uint64(len(targets))])
		r.Out.Host = r.In.Host
	}})
	t.Cleanup(front.Close)
	repositories := []string{"conformance/one", "conformance/two"}
	for i := range repositories {
		if _, err := s.all[0].ECR.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &repositories[i]}); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), suite)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(),
		"OCI_VERSION=1.1", "OCI_REGISTRY="+strings.TrimPrefix(front.URL, "http://"), "OCI_TLS=disabled", "OCI_REPO1="+repositories[0], "OCI_REPO2="+repositories[1],
		"OCI_USERNAME=test", "OCI_PASSWORD=test", "OCI_RESULTS_DIR="+cmp.Or(os.Getenv("OCI_RESULTS"), "results"),
		"OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_TAG_PARAM=true")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("conformance: %v", err)
	}
}
