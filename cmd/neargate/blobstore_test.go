package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/seed-2f228079/neargate/storage/s3/s3test"
)

// blobStoreOf are the flags by which servers keep their blobs in a store of the tests, and a file with its credentials.
func blobStoreOf(t *testing.T, address string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, fmt.Appendf(nil, "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s3test.AccessKeyID, s3test.SecretAccessKey), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--blob-store", "s3://" + s3test.Bucket + "/neargate", "--blob-store-endpoint", address, "--blob-store-region", s3test.Region,
		"--blob-store-credentials", file, "--blob-cache", "1024"}
}

// image is a push to, and a pull from, any server.
func (one *oneServer) image(t *testing.T, tag string) (name.Reference, remote.Option) {
	t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(one.url, "http://")+"/app:"+tag, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return ref, remote.WithAuth(&authn.Basic{Username: "test", Password: "test"})
}

func (one *oneServer) push(t *testing.T, tag string, size int64) (v1.Image, error) {
	t.Helper()
	img, err := random.Image(size, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref, auth := one.image(t, tag)
	return img, remote.Write(ref, img, auth)
}

// pull fails unless the image is there byte for byte.
func (one *oneServer) pull(t *testing.T, tag string, want v1.Image) error {
	t.Helper()
	ref, auth := one.image(t, tag)
	got, err := remote.Image(ref, auth)
	if err == nil {
		err = validate.Image(got)
	}
	if err != nil {
		return fmt.Errorf("pull %s from %s: %w", tag, one.peers, err)
	}
	w, err := want.Digest()
	if err != nil {
		return err
	}
	if g, err := got.Digest(); err != nil || g != w {
		return fmt.Errorf("pull %s from %s: %s, not %s, %v", tag, one.peers, g, w, err)
	}
	return nil
}

// readyz is what /readyz says.
func (one *oneServer) readyz() (int, string) {
	a, err := http.Get(one.url + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return 0, err.Error()
	}
	return a.StatusCode, string(text)
}

// TestServersShareABucket: three servers keep their blobs in one bucket, of the tests' store and of another's. What any of them has acknowledged is pulled from
// each, also when the one that led is killed amid pushes; nothing is copied between them; with the store away what is cached is pulled.
func TestServersShareABucket(t *testing.T) {
	t.Run("test", func(t *testing.T) {
		store := s3test.Start(t)
		serversShareABucket(t, store.Faults, store.URL)
	})
	t.Run("versitygw", func(t *testing.T) {
		faults, address := s3test.Proxy(t, s3test.StartVersity(t))
		serversShareABucket(t, faults, address)
	})
}

func serversShareABucket(t *testing.T, store *s3test.Faults, address string) {
	s := startServers(t, 3, append(blobStoreOf(t, address), "--blob-copies", "3")...)
	for _, one := range s.all {
		one.says("--blob-copies is of no effect")
	}
	repository := "app"
	if _, err := s.all[0].ECR.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &repository}); err != nil {
		t.Fatal(err)
	}
	images := map[string]v1.Image{}
	img, err := s.all[1].push(t, "first", 17<<20) // layers in parts
	if err != nil {
		t.Fatal(err)
	}
	images["first"] = img
	leader, others := s.leader()
	for _, one := range others {
		if blobs, err := filepath.Glob(filepath.Join(one.dir, "blobs", "sha256", "*", "*")); err != nil || len(blobs) != 0 {
			t.Errorf("a server that nobody pulled from has %d blobs, %v", len(blobs), err)
		}
	}
	for _, one := range s.all {
		if err := one.pull(t, "first", img); err != nil {
			t.Error(err)
		}
		if status, text := one.readyz(); status != http.StatusOK || text != "ok\n" {
			t.Errorf("ready: %d %s", status, text)
		}
	}

	// The leader is killed while images are pushed through the others.
	var mu sync.Mutex
	var pushing sync.WaitGroup
	some := make(chan struct{}, 100)
	const each = 4 // that are acknowledged, however many are not while nobody leads
	for i, one := range others {
		pushing.Go(func() {
			limit := time.Now().Add(2 * time.Minute)
			for n, got := 0, 0; got < each && time.Now().Before(limit); n++ {
				tag := fmt.Sprintf("many-%d-%d", i, n)
				img, err := one.push(t, tag, 1<<20)
				if err != nil {
					continue
				}
				got++
				some <- struct{}{}
				mu.Lock()
				images[tag] = img
				mu.Unlock()
			}
		})
	}
	<-some
	<-some
	dead := leader
	s.kill(dead)
	pushing.Wait()
	if len(images) != 1+len(others)*each {
		t.Errorf("only %d pushes were acknowledged", len(images))
	}
	leader, others = s.leader()
	for tag, img := range images {
		for _, one := range append(others, leader) {
			if err := one.pull(t, tag, img); err != nil {
				t.Error(err)
			}
		}
	}

	store.Down()
	for _, one := range append(others, leader) {
		if err := one.pull(t, "first", images["first"]); err != nil {
			t.Errorf("the store is away: %v", err)
		}
		eventually(t, func() error {
			if status, text := one.readyz(); status != http.StatusOK || !strings.Contains(text, "[!]blob store: ") {
				return fmt.Errorf("ready without the store: %d %s", status, text)
			}
			return nil
		})
	}
	if _, err := others[0].push(t, "refused", 1<<10); err == nil || !strings.Contains(err.Error(), "503") && !strings.Contains(err.Error(), "UNAVAILABLE") {
		t.Errorf("a push without the store: %v", err)
	}
	store.Inject(nil)
	s.start(dead, token)
	s.ready(dead)
	if images["last"], err = dead.push(t, "last", 1<<20); err != nil {
		t.Fatalf("a push when the store is back: %v", err)
	}
	for _, one := range s.all {
		if err := one.pull(t, "last", images["last"]); err != nil {
			t.Error(err)
		}
		eventually(t, func() error {
			if status, text := one.readyz(); status != http.StatusOK || text != "ok\n" {
				return fmt.Errorf("%d %s", status, text)
			}
			return nil
		})
		eventually(t, func() error {
			o, err := one.ObjectStore(t.Context())
			if err == nil && (o.Compared.IsZero() || o.Objects == 0 || o.Lost != nil || o.Error != "") {
				err = fmt.Errorf("%+v", o)
			}
			return err
		})
	}
}

// TestMoveToABucket: servers that had their blobs on their disks are started again with a bucket, and what they had is there.
func TestMoveToABucket(t *testing.T) {
	store := s3test.Start(t)
	s := startServers(t, 3)
	repository := "app"
	if _, err := s.all[0].ECR.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &repository}); err != nil {
		t.Fatal(err)
	}
	img, err := s.all[0].push(t, "old", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	s.flags = blobStoreOf(t, store.URL)
	for _, one := range s.all { // one after the other: the platform goes on
		one.end(syscall.SIGTERM)
		one.process = nil
		s.leader()
		s.start(one, token)
		s.ready(one)
		if err := one.pull(t, "old", img); err != nil {
			t.Error(err)
		}
	}
	eventually(t, func() error {
		if n := len(store.Keys()); n != 5 {
			return fmt.Errorf("%d objects, want the owner, a manifest, a config and two layers", n)
		}
		return nil
	})
	if err := os.RemoveAll(filepath.Join(s.all[0].dir, "blobs", "sha256")); err != nil {
		t.Fatal(err)
	}
	if err := s.all[0].pull(t, "old", img); err != nil {
		t.Error(err)
	}
}

// TestBlobStoreFlags: what cannot work is refused, and no message shows a secret.
func TestBlobStoreFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = AKIA\naws_secret = canary-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NEARGATE_BLOB_STORE_ACCESS_KEY_ID", "AKIA")
	t.Setenv("NEARGATE_BLOB_STORE_SECRET_ACCESS_KEY", "")
	for _, c := range []struct {
		flags blobStoreFlags
		want  string
	}{
		{blobStoreFlags{endpoint: "http://127.0.0.1:1"}, "--blob-store-endpoint goes with --blob-store"},
		{blobStoreFlags{url: "https://host/bucket"}, "s3://BUCKET/PREFIX"},
		{blobStoreFlags{url: "s3://Bucket"}, "s3://BUCKET/PREFIX"},
		{blobStoreFlags{url: "s3://bucket/a b"}, "s3://BUCKET/PREFIX"},
		{blobStoreFlags{url: "s3://bucket/a/../b"}, `".."`},
		{blobStoreFlags{url: "s3://bucket", cache: 1}, "64 MiB"},
		{blobStoreFlags{url: "s3://bucket", endpoint: "127.0.0.1:9000"}, "--blob-store-endpoint must be like"},
		{blobStoreFlags{url: "s3://bucket"}, "needs credentials"},
		{blobStoreFlags{url: "s3://bucket", credentials: file}, "aws_secret_access_key are expected"},
		{blobStoreFlags{url: "s3://bucket", credentials: file + "none"}, "no such file"},
	} {
		if c.flags.cache == 0 {
			c.flags.cache = 64 << 20
		}
		err := c.flags.check()
		if err == nil {
			_, err = c.flags.open(nil, "us-east-1", "us", nil)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%+v: %v, want %q", c.flags, err, c.want)
		}
	}
}
