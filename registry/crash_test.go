package registry_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/internal/seal"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/bucket"
	"github.com/seed-2f228079/neargate/storage/s3"
	"github.com/seed-2f228079/neargate/storage/s3/s3test"
)

// TestMain turns the test binary into the registry that TestKilled kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("REGISTRY_TEST_SERVE"); dir != "" {
		fmt.Fprintln(os.Stderr, serveForever(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serveForever runs a registry on the raft engine below dir, collecting garbage all the time and replicating all images to another
// region, and prints where it listens.
func serveForever(dir string) error {
	engine, err := raft.Open(raft.Options{Dir: filepath.Join(dir, "state"), NodeID: "one", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	store, err := state.New(engine, append(controlplane.Schema[:len(controlplane.Schema):len(controlplane.Schema)], registry.Schema...), state.Options{})
	if err != nil {
		return err
	}
	blobs, err := blob.Open(filepath.Join(dir, "blobs"), blob.Options{})
	if err != nil {
		return err
	}
	sealer, err := seal.New(make([]byte, seal.KeySize), "test")
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var objects *bucket.Bucket
	if address := os.Getenv("REGISTRY_TEST_BUCKET"); address != "" {
		if objects, err = crashBucket(address, blobs); err != nil {
			return err
		}
	}
	reg, err := registry.New(registry.Config{Store: store, Blobs: blobs, Bucket: objects, Seal: sealer, Region: region, CreateOnPush: true, Credentials: crashCredentials,
		PublicName: func(string, string) string { return listener.Addr().String() }, ScrubFile: os.Getenv("REGISTRY_TEST_SCRUB"), ScrubRate: 8 << 20})
	if err != nil {
		return err
	}
	if _, err := store.Update(context.Background(), func(tx *state.Tx) error {
		registry.Registries.Put(tx, &registry.RegistrySettings{Account: account, Region: region,
			ReplicationJson: `{"rules":[{"destinations":[{"region":"` + elsewhere + `","registryId":"` + account + `"}]}]}`})
		return nil
	}); err != nil {
		return err
	}
	go reg.Run(context.Background())
	go func() {
		for {
			if _, err := reg.Collect(context.Background()); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}()
	fmt.Println(listener.Addr())
	return http.Serve(listener, reg.Handler())
}

// child is a registry in a process of its own.
type child struct {
	cmd  *exec.Cmd
	base string
	host string // that requests are for, where it is not base's
}

// crashBucket has no grace: leases alone keep what is on its way.
func crashBucket(address string, local *blob.Store) (*bucket.Bucket, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	store := s3.New(s3.Config{Endpoint: u, Region: s3test.Region, Bucket: s3test.Bucket, Credentials: s3.FixedCredentials(s3test.AccessKeyID, s3test.SecretAccessKey, "")})
	return bucket.New(bucket.Config{Local: local, Objects: store, Owner: "us", Grace: time.Nanosecond, CacheBytes: 1 << 20})
}

func startChild(t *testing.T, dir string, env ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "REGISTRY_TEST_SERVE="+dir), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd}
	t.Cleanup(c.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the registry did not start: %v", err)
	}
	c.base = "http://" + strings.TrimSpace(line)
	return c
}

func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	}
}

func crashCredentials(_ context.Context, key, secret string) (api.Identity, bool) {
	return api.Identity{Account: account}, key == "AKIA" && secret == "secret"
}

// do sends a request; err is the connection's, which ends when the process is killed.
func (c *child) do(method, path, body, contentType string) (status int, got string, err error) {
	req, err := http.NewRequest(method, c.base+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.SetBasicAuth("AKIA", "secret")
	req.Header.Set("Content-Type", contentType)
	req.Host = c.host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if resp.Header.Get("Location") != "" && resp.StatusCode == http.StatusAccepted {
		return resp.StatusCode, resp.Header.Get("Location"), err
	}
	return resp.StatusCode, string(b), err
}

// pushed is what one push consists of.
type pushed struct {
	tag, manifest string
	blobs         []string
}

func randomImage(rnd *rand.Rand, tag string) pushed {
	p := pushed{tag: tag}
	var ds []any
	for range 3 {
		b := make([]byte, 1+rnd.IntN(100<<10))
		for i := range b {
			b[i] = byte('a' + rnd.IntN(26))
		}
		p.blobs = append(p.blobs, string(b))
		ds = append(ds, desc(ociLayer, blob.Sum(b), len(b)))
	}
	p.manifest = marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": ds[0], "layers": ds[1:]})
	return p
}

// push is true once the image is acknowledged. It stops at the first connection error.
func (c *child) push(t *testing.T, repo string, p pushed) bool {
	for i, content := range p.blobs {
		query := "?digest=" + string(blob.Sum([]byte(content)))
		if i == 0 { // in one request
			status, got, err := c.do("POST", "/v2/"+repo+"/blobs/uploads/"+query, content, "")
			if !c.acknowledged(t, 201, status, got, err) {
				return false
			}
			continue
		}
		status, at, err := c.do("POST", "/v2/"+repo+"/blobs/uploads/", "", "")
		if !c.acknowledged(t, 202, status, at, err) {
			return false
		}
		half := len(content) / 2
		status, at, err = c.do("PATCH", at, content[:half], "")
		if !c.acknowledged(t, 202, status, at, err) {
			return false
		}
		status, got, err := c.do("PUT", at+query, content[half:], "")
		if !c.acknowledged(t, 201, status, got, err) {
			return false
		}
	}
	status, got, err := c.do("PUT", "/v2/"+repo+"/manifests/"+p.tag, p.manifest, ociManifest)
	return c.acknowledged(t, 201, status, got, err)
}

func (c *child) acknowledged(t *testing.T, want, status int, got string, err error) bool {
	if err == nil && status != want {
		t.Errorf("%d, want %d: %s", status, want, got)
	}
	return err == nil && status == want
}

// TestKilled kills a registry with SIGKILL, again and again, while images are pushed, tags moved and garbage collected: after
// each restart every acknowledged image pulls byte for byte, here and, replicated, in the other region, every tag that is listed
// pulls whole, and an upload under way goes on where it was.
func TestKilled(t *testing.T) { killed(t, t.TempDir()) }

func killed(t *testing.T, dir string, env ...string) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const workers = 3
	acknowledged := make([]map[string]pushed, workers) // by tag
	inFlight := make([]map[string][]pushed, workers)   // pushes whose answer was lost: their tag may have moved
	for w := range workers {
		acknowledged[w], inFlight[w] = map[string]pushed{}, map[string][]pushed{}
	}
	total := 0
	firstHalf := strings.Repeat("first half,", 10<<10) // what is smaller than a small blob begins anew
	for round := range 4 {
		c := startChild(t, dir, env...)
		_, at, err := c.do("POST", "/v2/resumed/blobs/uploads/", "", "")
		if err != nil {
			t.Fatal(err)
		}
		if status, got, err := c.do("PATCH", at, firstHalf, ""); !c.acknowledged(t, 202, status, got, err) {
			t.Fatal(status, got, err)
		}
		var wg sync.WaitGroup
		acks := make(chan bool, 1000)
		for w := range workers {
			rnd := rand.New(rand.NewPCG(seed, uint64(1+round*workers+w)))
			wg.Go(func() {
				for {
					p := randomImage(rnd, fmt.Sprint("v", rnd.IntN(5)))
					if !c.push(t, fmt.Sprint("repo", w), p) {
						inFlight[w][p.tag] = append(inFlight[w][p.tag], p)
						return
					}
					acknowledged[w][p.tag], inFlight[w][p.tag] = p, nil
					acks <- true
				}
			})
		}
		go func() { wg.Wait(); close(acks) }() // should they end by themselves
		for range 1 + rnd.IntN(20) {
			<-acks
			total++
		}
		time.AfterFunc(time.Duration(rnd.IntN(20))*time.Millisecond, func() { c.cmd.Process.Kill() })
		wg.Wait()
		c.kill()
		if t.Failed() {
			return
		}

		c = startChild(t, dir, env...)
		for w := range workers {
			repo := fmt.Sprint("repo", w)
			for tag, p := range acknowledged[w] {
				c.pulls(t, repo, "manifests/"+string(blob.Sum([]byte(p.manifest))), p)
				_, got, err := c.do("GET", "/v2/"+repo+"/manifests/"+tag, "", "")
				if err != nil {
					t.Fatal(err)
				}
				for _, lost := range inFlight[w][tag] {
					if got == lost.manifest { // the push was done, only its answer was lost
						p = lost
					}
				}
				c.pulls(t, repo, "manifests/"+tag, p)
			}
		}
		status, got, err := c.do("PUT", at+"?digest="+string(blob.Sum([]byte(firstHalf+" second half"))), " second half", "")
		c.acknowledged(t, 201, status, got, err)
		there := &child{cmd: c.cmd, base: c.base, host: account + ".dkr.ecr." + elsewhere + ".localhost"}
		for w := range workers {
			for tag, p := range acknowledged[w] {
				there.replicated(t, fmt.Sprint("repo", w), p)
				if inFlight[w][tag] == nil {
					there.pulls(t, fmt.Sprint("repo", w), "manifests/"+tag, p)
				}
			}
		}
		c.kill()
	}
	t.Logf("%d pushes acknowledged before the kills", total)
}

// replicated waits until an image has come, and pulls it.
func (c *child) replicated(t *testing.T, repo string, p pushed) {
	t.Helper()
	path := "manifests/" + string(blob.Sum([]byte(p.manifest)))
	for {
		status, _, err := c.do("HEAD", "/v2/"+repo+"/"+path, "", "")
		if err != nil || t.Context().Err() != nil {
			t.Fatalf("%s %s: %v", repo, path, err)
		}
		if status == http.StatusOK {
			break
		}
	}
	c.pulls(t, repo, path, p)
}

// pulls fails unless the image is there byte for byte.
func (c *child) pulls(t *testing.T, repo, path string, p pushed) {
	t.Helper()
	status, got, err := c.do("GET", "/v2/"+repo+"/"+path, "", "")
	if err != nil || status != 200 || got != p.manifest {
		t.Errorf("%s %s: %d %v %.200s", repo, path, status, err, got)
	}
	for _, content := range p.blobs {
		d := blob.Sum([]byte(content))
		if status, got, err := c.do("GET", "/v2/"+repo+"/blobs/"+string(d), "", ""); err != nil || status != 200 || got != content {
			t.Errorf("%s %s: blob %s: %d %v", repo, path, d, status, err)
		}
	}
}
