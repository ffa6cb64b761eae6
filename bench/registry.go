package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"golang.org/x/sync/errgroup"
)

const (
	registryClients = 16
	streamCount     = 8
	streamBlocks    = 192 // of 1 MiB
	pullers         = 50
	layerBlocks     = 16
)

// distribution is what distribution's registry is called here.
const distribution = "distribution"

// target is a registry under measurement.
type target struct {
	name     string
	url      string // up to and with the repository's name
	cred     func(*http.Request)
	pid      int
	sequence atomic.Int64 // of what was made for it
}

// registryWork is something that clients do to a registry.
type registryWork struct {
	name  string
	n     int // how often
	setup func(t *target, ctx context.Context) error
	run   func(t *target, ctx context.Context, n int) error
	// alone: distribution has no such thing.
	alone bool
	most  int // rounds; 0: as many as are asked for
}

var registryWorks = []registryWork{
	{name: "1 KiB blob, POST and PUT, 1 client", n: 300, run: (*target).pushBlobs},
	{name: "1 KiB blob, one POST, 1 client", n: 300, run: (*target).postBlobs, alone: true},
	{name: fmt.Sprintf("1 KiB blob, POST and PUT, %d clients", registryClients), n: 100 * registryClients, run: parallel((*target).pushBlobs)},
	{name: fmt.Sprintf("1 KiB blob, one POST, %d clients", registryClients), n: 100 * registryClients, run: parallel((*target).postBlobs), alone: true},
	{name: "manifest put, 1 client", n: 300, setup: pushed("small", smallImage), run: (*target).putManifests},
	{name: fmt.Sprintf("manifest put, %d clients", registryClients), n: 100 * registryClients, setup: pushed("small", smallImage), run: parallel((*target).putManifests)},
	{name: "small image pulled (3 requests), 1 client", n: 300, setup: pushed("small", smallImage), run: (*target).pullSmall},
	{name: fmt.Sprintf("image of %d MiB, %d clients at once", 3*layerBlocks, pullers), n: pullers, setup: pushed("large", largeImage), run: (*target).pullTogether, most: 5},
	{name: fmt.Sprintf("blob of %d MiB, %d streams", streamBlocks, streamCount), n: streamCount, run: (*target).pushStreams, most: 3},
}

// benchRegistry does to the platform's registry what clients do, in turns with distribution's where its program is named. What the clients
// do here costs the machine too; it is the same for both.
func benchRegistry(ctx context.Context, s settings) (err error) {
	dir, err := os.MkdirTemp("", "neargate-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var targets []*target
	for _, b := range []struct{ name, binary string }{{"neargate", s.neargate}, {"before", s.before}} {
		if b.binary == "" {
			continue
		}
		p, err := startPlatform(ctx, b.binary, filepath.Join(dir, b.name), "fake", "--registry-rate", "0") // the limit of one address would be what is measured
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.stop(syscall.SIGINT)) }()
		t, err := registryOf(ctx, p)
		if err != nil {
			return err
		}
		t.name = b.name
		targets = append(targets, t)
	}
	if s.distribution != "" {
		d, url, err := startDistribution(ctx, s.distribution, dir)
		if err != nil {
			return err
		}
		defer d.stop(syscall.SIGKILL)
		targets = append(targets, &target{name: distribution, url: url + "/v2/bench", pid: d.Process.Pid, cred: func(*http.Request) {}})
	}
	for _, w := range registryWorks {
		if !strings.Contains(w.name, s.only) {
			continue
		}
		if err := w.measure(ctx, targets, s.rounds); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	for _, t := range targets {
		m, err := memoryOf(t.pid)
		if err != nil {
			return err
		}
		fmt.Printf("%s: in the end %s; at most %s\n", t.name, m, peakMemory(t.pid))
	}
	fmt.Println(load())
	return nil
}

// registryOf makes a repository in the platform's registry.
func registryOf(ctx context.Context, p *platform) (*target, error) {
	if _, err := p.ECR.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: aws.String("bench")}); err != nil {
		return nil, err
	}
	cred, err := p.credentials(ctx)
	if err != nil {
		return nil, err
	}
	return &target{url: p.Config.Endpoint + "/v2/bench", pid: p.Process.Pid, cred: func(r *http.Request) { r.SetBasicAuth(cred.User, cred.Password) }}, nil
}

func (w registryWork) measure(ctx context.Context, targets []*target, rounds int) error {
	cpu, wall := make([]samples, len(targets)), make([]samples, len(targets))
	if w.most > 0 {
		rounds = min(rounds, w.most)
	}
	for i := range rounds + 1 {
		for k, t := range targets {
			if w.alone && t.name == distribution {
				continue
			}
			if i == 0 && w.setup != nil {
				if err := w.setup(t, ctx); err != nil {
					return fmt.Errorf("%s: %w", t.name, err)
				}
			}
			before, began := cpuOf(t.pid), time.Now()
			if err := w.run(t, ctx, w.n); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			if i > 0 { // the first round warms up
				n := time.Duration(w.n)
				cpu[k], wall[k] = append(cpu[k], (cpuOf(t.pid)-before)/n), append(wall[k], time.Since(began)/n)
			}
		}
	}
	for k, t := range targets {
		if cpu[k] != nil {
			fmt.Printf("%-42s %-12s CPU %s (%s to %s), %.1f/s, memory until then at most %s\n", w.name, t.name, us(cpu[k].median()), us(cpu[k].quantile(0.25)), us(cpu[k].quantile(0.75)), 1/wall[k].median().Seconds(), peakMemory(t.pid))
		}
	}
	return nil
}

// startDistribution starts the registry of distribution v3, as it comes, with its logs and traces off. It asks for no credentials.
func startDistribution(ctx context.Context, binary, dir string) (*program, string, error) {
	listen, err := freePort()
	if err != nil {
		return nil, "", err
	}
	config := filepath.Join(dir, "distribution.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n",
		filepath.Join(dir, "distribution"), listen)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, "", err
	}
	if err := os.Setenv("OTEL_TRACES_EXPORTER", "none"); err != nil {
		return nil, "", err
	}
	d, err := startProgram(binary, "serve", config)
	if err != nil {
		return nil, "", err
	}
	for {
		resp, err := http.Get("http://" + listen + "/v2/")
		if err == nil {
			resp.Body.Close()
			return d, "http://" + listen, nil
		}
		select {
		case err := <-d.ended:
			return nil, "", fmt.Errorf("distribution ended: %w\n%s", err, d.output.String())
		case <-ctx.Done():
			return nil, "", errors.Join(ctx.Err(), d.stop(syscall.SIGKILL))
		case <-time.After(time.Millisecond):
		}
	}
}

// peakMemory is the most that was ever resident.
func peakMemory(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return fmt.Sprintf("%.1f MB", float64(kb)/1024)
		}
	}
	return "unknown"
}

// registryClient keeps as many connections as there are clients.
var registryClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: pullers, DisableCompression: true}}

const octets = "application/octet-stream"

// do sends a request; a path is below the repository.
func (t *target) do(ctx context.Context, method, url, contentType string, body io.Reader, size int64, want int) (*http.Response, error) {
	if strings.HasPrefix(url, "/") {
		url = t.url + url
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", contentType)
	t.cred(req)
	resp, err := registryClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// upload pushes a blob as docker does, but in one piece.
func (t *target) upload(ctx context.Context, content io.Reader, size int64, digest string) error {
	resp, err := t.do(ctx, http.MethodPost, "/blobs/uploads/", octets, nil, 0, http.StatusAccepted)
	if err != nil {
		return err
	}
	to, err := resp.Location()
	if err != nil {
		return err
	}
	query := to.Query()
	query.Set("digest", digest)
	to.RawQuery = query.Encode()
	_, err = t.do(ctx, http.MethodPut, to.String(), octets, content, size, http.StatusCreated)
	return err
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// another is a small blob that was not there.
func (t *target) another() []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%016d", t.sequence.Add(1)), blobSize/16)
}

func (t *target) pushBlobs(ctx context.Context, n int) error {
	for range n {
		b := t.another()
		if err := t.upload(ctx, bytes.NewReader(b), blobSize, digestOf(b)); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) postBlobs(ctx context.Context, n int) error {
	for range n {
		b := t.another()
		if _, err := t.do(ctx, http.MethodPost, "/blobs/uploads/?digest="+digestOf(b), octets, bytes.NewReader(b), blobSize, http.StatusCreated); err != nil {
			return err
		}
	}
	return nil
}

// parallel has several clients do a part each.
func parallel(run func(*target, context.Context, int) error) func(*target, context.Context, int) error {
	return func(t *target, ctx context.Context, n int) error {
		g, ctx := errgroup.WithContext(ctx)
		for range registryClients {
			g.Go(func() error { return run(t, ctx, n/registryClients) })
		}
		return g.Wait()
	}
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// manifest is of an image with these blobs, the first of which is its config; n tells it from others.
func manifest(n int64, blobs [][]byte) []byte {
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int    `json:"size"`
	}
	var all []descriptor
	for _, b := range blobs {
		all = append(all, descriptor{"application/vnd.oci.image.layer.v1.tar", digestOf(b), len(b)})
	}
	all[0].MediaType = "application/vnd.oci.image.config.v1+json"
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": all[0], "layers": all[1:],
		"annotations": map[string]string{"n": strconv.FormatInt(n, 10)}})
	if err != nil {
		panic(err) // plain data
	}
	return b
}

func smallImage() [][]byte { return [][]byte{[]byte("{}"), bytes.Repeat([]byte("layer "), 170)} }

var largeImage = sync.OnceValue(func() [][]byte {
	list := [][]byte{[]byte(`{"large":true}`)}
	for i := range 3 {
		list = append(list, bytes.Repeat(block(byte(i)), layerBlocks))
	}
	return list
})

// block is 1 MiB that does not compress.
func block(seed byte) []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// pushed pushes an image with its tag.
func pushed(tag string, image func() [][]byte) func(*target, context.Context) error {
	return func(t *target, ctx context.Context) error {
		for _, b := range image() {
			if err := t.upload(ctx, bytes.NewReader(b), int64(len(b)), digestOf(b)); err != nil {
				return err
			}
		}
		return t.putManifest(ctx, tag, manifest(0, image()))
	}
}

func (t *target) putManifest(ctx context.Context, tag string, m []byte) error {
	_, err := t.do(ctx, http.MethodPut, "/manifests/"+tag, manifestType, bytes.NewReader(m), int64(len(m)), http.StatusCreated)
	return err
}

func (t *target) putManifests(ctx context.Context, n int) error {
	for range n {
		i := t.sequence.Add(1)
		if err := t.putManifest(ctx, fmt.Sprint("v", i), manifest(i, smallImage())); err != nil {
			return err
		}
	}
	return nil
}

// pull gets a manifest and the blobs that are known to be in it.
func (t *target) pull(ctx context.Context, tag string, digests []string) error {
	if _, err := t.do(ctx, http.MethodGet, "/manifests/"+tag, manifestType, nil, 0, http.StatusOK); err != nil {
		return err
	}
	for _, d := range digests {
		if _, err := t.do(ctx, http.MethodGet, "/blobs/"+d, octets, nil, 0, http.StatusOK); err != nil {
			return err
		}
	}
	return nil
}

func digestsOf(blobs [][]byte) (list []string) {
	for _, b := range blobs {
		list = append(list, digestOf(b))
	}
	return list
}

var smallDigests, largeDigests = sync.OnceValue(func() []string { return digestsOf(smallImage()) }), sync.OnceValue(func() []string { return digestsOf(largeImage()) })

func (t *target) pullSmall(ctx context.Context, n int) error {
	for range n {
		if err := t.pull(ctx, "small", smallDigests()); err != nil {
			return err
		}
	}
	return nil
}

// pullTogether has n clients pull one image at once.
func (t *target) pullTogether(ctx context.Context, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	for range n {
		g.Go(func() error { return t.pull(ctx, "large", largeDigests()) })
	}
	return g.Wait()
}

// stream is a large blob: a block again and again.
func stream(i int) io.Reader {
	b := block(byte(100 + i))
	readers := make([]io.Reader, streamBlocks)
	for k := range readers {
		readers[k] = bytes.NewReader(b)
	}
	return struct{ io.Reader }{io.MultiReader(readers...)}
}

var streamDigests = sync.OnceValue(func() (list []string) {
	for i := range streamCount {
		h := sha256.New()
		io.Copy(h, stream(i))
		list = append(list, fmt.Sprintf("sha256:%x", h.Sum(nil)))
	}
	return list
})

// pushStreams pushes n large blobs at once; each round pushes the same ones, which are written again.
func (t *target) pushStreams(ctx context.Context, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range n {
		g.Go(func() error { return t.upload(ctx, stream(i), streamBlocks<<20, streamDigests()[i]) })
	}
	return g.Wait()
}
