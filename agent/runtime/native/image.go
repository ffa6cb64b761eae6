//go:build linux && cgo

package native

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/internal/ociclient"
)

// imageRecord is a pulled image, kept by reference and by manifest digest.
type imageRecord struct {
	Digest   string // of the manifest that was asked for
	Manifest string // digest of this platform's manifest; the same, unless an index was asked for
	// Reference by which it was pulled, in the record that is kept by reference.
	Reference string `json:",omitempty"`
	Config    ociclient.Config
}

// key is the same in all records of an image.
func (r imageRecord) key() string { return cmp.Or(r.Manifest, r.Digest) }

func (r imageRecord) image() runtime.Image {
	out := runtime.Image{Digest: r.Digest, StopSignal: r.Config.StopSignal, ExposedPorts: r.Config.ExposedPorts}
	if out.StopSignal == "" {
		out.StopSignal = "SIGTERM"
	}
	return out
}

// imageStore keeps images and their unpacked layers.
type imageStore struct {
	dir    string // the driver's
	client *ociclient.Client
	cfg    Config

	mu   sync.Mutex
	busy map[string]chan struct{} // by diffID: closed when whoever unpacks it is done
	held map[string]int           // by diffID: who is about to name it in a record
	// holds counts every hold and every release.
	holds uint64

	cleaning sync.Mutex // one clean-up at a time; taken before mu
}

func newImageStore(cfg Config) *imageStore {
	return &imageStore{dir: cfg.Dir, cfg: cfg, busy: map[string]chan struct{}{}, held: map[string]int{}, client: &ociclient.Client{PlainHTTP: cfg.InsecureRegistries, Transport: cfg.Transport}}
}

func (s *imageStore) byReference(image string) string {
	sum := sha256.Sum256([]byte(image))
	return filepath.Join(s.dir, "images", "ref-"+hex.EncodeToString(sum[:]))
}

func (s *imageStore) byDigest(digest string) string {
	return filepath.Join(s.dir, "images", strings.ReplaceAll(digest, ":", "-"))
}

func (s *imageStore) layer(diffID string) string {
	return filepath.Join(s.dir, "layers", strings.TrimPrefix(diffID, "sha256:"))
}

// use finds an image and keeps its layers until release, so that a record can be written that names them.
func (s *imageStore) use(image string) (r imageRecord, release func(), err error) {
	for {
		if _, err := readRecord(s.byReference(image), &r); err != nil {
			return r, nil, err
		}
		release = s.hold(r.Config.DiffIDs)
		// Looked up again, now that it cannot go.
		now, ok, err := s.lookUp(image)
		if err == nil && !ok {
			err = errNotPulled
		}
		if err == nil && now.key() == r.key() {
			return now, release, nil
		}
		release()
		if err != nil {
			return r, nil, err
		}
	}
}

var errNotPulled = errors.New("the image was not pulled")

// lookUp finds what the reference meant when it was last pulled.
func (s *imageStore) lookUp(image string) (imageRecord, bool, error) {
	var r imageRecord
	ok, err := readRecord(s.byReference(image), &r)
	return r, ok && s.complete(r.Config), err
}

func (s *imageStore) complete(c ociclient.Config) bool {
	for _, d := range c.DiffIDs {
		if _, err := os.Stat(s.layer(d)); err != nil {
			return false
		}
	}
	return true
}

// pull asks the registry what the reference means now and fetches what is not here yet. When the registry gives no answer, what it
// meant before serves, as with the ECS agent's default pull behaviour.
func (s *imageStore) pull(ctx context.Context, req runtime.PullRequest) (imageRecord, error) {
	for _, d := range []string{"images", "layers"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			return imageRecord{}, pullError(req.Image, err)
		}
	}
	r, release, err := s.fetch(ctx, req)
	defer release()
	if err != nil {
		var answer *ociclient.Error
		if errors.As(err, &answer) && answer.Retryable() && ctx.Err() == nil {
			if cached, release, err := s.use(req.Image); err == nil {
				release()
				s.used(req.Image)
				s.cfg.Logger.Warn("registry gives no answer: using the image pulled before", "image", req.Image, "digest", cached.Digest, "error", err)
				return cached, nil
			}
		}
		return imageRecord{}, pullError(req.Image, err)
	}
	r.Reference = req.Image
	var known imageRecord
	if ok, err := readRecord(s.byReference(req.Image), &known); ok && err == nil && reflect.DeepEqual(known, r) {
		s.used(req.Image)
		return r, nil
	}
	if err := writeRecord(s.byReference(req.Image), r); err != nil {
		return imageRecord{}, pullError(req.Image, err)
	}
	return r, nil
}

// AtHand implements runtime.Keeping.
func (d *Driver) AtHand(image, digest string) (runtime.Image, bool) {
	r, ok, err := d.images.lookUp(image)
	if err != nil || !ok || r.Digest != digest {
		return runtime.Image{}, false
	}
	d.images.used(image)
	return r.image(), true
}

// used notes that an image is not to be cleaned up soon.
func (s *imageStore) used(image string) {
	now := time.Now()
	if err := os.Chtimes(s.byReference(image), now, now); err != nil {
		s.cfg.Logger.Warn("note the use of an image", "image", image, "error", err)
	}
}

// maxLayers is what overlayfs takes.
const maxLayers = 500

// fetch brings the image here. Its layers are held until release, which is never nil.
func (s *imageStore) fetch(ctx context.Context, req runtime.PullRequest) (r imageRecord, release func(), err error) {
	release = func() {}
	img, err := s.client.Resolve(ctx, req.Image, ociclient.Credentials{User: req.User, Password: req.Password})
	if err != nil {
		return r, release, err
	}
	var known imageRecord
	if ok, err := readRecord(s.byDigest(img.ManifestDigest), &known); err == nil && ok {
		release = s.hold(known.Config.DiffIDs)
		if s.complete(known.Config) {
			known.Digest = img.Digest
			return known, release, nil
		}
		release()
		release = func() {}
	}
	r = imageRecord{Digest: img.Digest, Manifest: img.ManifestDigest}
	if r.Config, err = img.Config(); err != nil {
		return r, release, err
	}
	if n := len(r.Config.DiffIDs); n > maxLayers {
		return r, release, &layerError{fmt.Sprintf("the image has %d layers, at most %d can be mounted", n, maxLayers)}
	}
	layers, err := img.Layers()
	if err != nil {
		return r, release, err
	}
	release = s.hold(r.Config.DiffIDs)
	var total int64
	for _, l := range layers {
		total += l.Size
	}
	var done atomic.Int64
	progress := func(n int64) {
		if d := done.Add(n); req.Progress != nil {
			req.Progress(d, total)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	for _, l := range layers {
		g.Go(func() error { return s.ensureLayer(gctx, l, progress) })
	}
	if err := g.Wait(); err != nil {
		return r, release, err
	}
	return r, release, writeRecord(s.byDigest(img.ManifestDigest), r)
}

// ensureLayer unpacks the layer unless it is there. Of several that want the same one, the others wait; should the first fail,
// the next tries with its own credentials and deadline.
func (s *imageStore) ensureLayer(ctx context.Context, l ociclient.Layer, progress func(int64)) error {
	if !strings.HasPrefix(l.DiffID, "sha256:") || len(l.DiffID) != 7+64 {
		return fmt.Errorf("layer %s: unsupported digest", l.DiffID)
	}
	for {
		if _, err := os.Stat(s.layer(l.DiffID)); err == nil {
			progress(l.Size)
			return nil
		}
		s.mu.Lock()
		other, taken := s.busy[l.DiffID]
		if !taken {
			s.busy[l.DiffID] = make(chan struct{})
		}
		s.mu.Unlock()
		if !taken {
			break
		}
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() {
		s.mu.Lock()
		close(s.busy[l.DiffID])
		delete(s.busy, l.DiffID)
		s.mu.Unlock()
	}()
	if _, err := os.Stat(s.layer(l.DiffID)); err == nil { // done between our look and our turn
		progress(l.Size)
		return nil
	}
	return s.unpackLayer(ctx, l, progress)
}

func (s *imageStore) unpackLayer(ctx context.Context, l ociclient.Layer, progress func(int64)) error {
	tmp, err := os.MkdirTemp(filepath.Join(s.dir, "layers"), ".tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	blob, err := l.Open()
	if err != nil {
		return err
	}
	defer blob.Close()
	diffID, err := unpack(ctx, root, &counted{blob, progress}, s.cfg.MaxLayerBytes, s.cfg.MaxLayerEntries, s.cfg.KeepFree)
	if err != nil {
		return fmt.Errorf("failed to unpack layer %s: %w", l.Digest, err)
	}
	if diffID != l.DiffID {
		return fmt.Errorf("layer %s unpacks to %s, its image says %s", l.Digest, diffID, l.DiffID)
	}
	// On disk before it gets its name: a layer that is there is whole, whatever happened to the host.
	dir, err := os.Open(root)
	if err != nil {
		return err
	}
	err = errors.Join(unix.Syncfs(int(dir.Fd())), dir.Close())
	if err != nil {
		return fmt.Errorf("sync layer: %w", err)
	}
	if err := os.Rename(root, s.layer(l.DiffID)); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Join(s.dir, "layers"))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// clean removes what interrupted pulls, clean-ups and trials of overlayfs left. An unpacker whose agent was killed may write a moment longer: until it notices
// that nothing more comes.
func (s *imageStore) clean() error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var errs []error
		for _, pattern := range []string{"layers/.tmp-*", "images/.tmp-*", ".overlay-*"} {
			left, err := filepath.Glob(filepath.Join(s.dir, pattern))
			errs = append(errs, err)
			for _, l := range left {
				errs = append(errs, os.RemoveAll(l))
			}
		}
		if err := errors.Join(errs...); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

type counted struct {
	io.Reader
	add func(int64)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.add(int64(n))
	return n, err
}

// pullError words a failure as ECS does.
func pullError(image string, err error) error {
	e := &runtime.PullError{Err: err, Retryable: true}
	var answer *ociclient.Error
	switch {
	case errors.As(err, &answer) && answer.Kind == ociclient.NoPlatform:
		e.Retryable = false
		e.Reason = "CannotPullContainerError: pull image manifest has been retried 1 time(s): " + answer.Error()
	case errors.As(err, &answer):
		e.Retryable = answer.Retryable()
		ref := answer.Ref
		if ref == "" {
			ref = image
		}
		e.Reason = fmt.Sprintf("CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref %s: %s", ref, answer)
	case errors.As(err, new(*layerError)):
		e.Retryable = false
		fallthrough
	default:
		e.Reason = fmt.Sprintf("CannotPullContainerError: %s: %v", image, err)
	}
	return e
}
