package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// push is a manifest on its way in.
type push struct {
	body      []byte
	mediaType string      // as the client declared it; may be empty
	digest    blob.Digest // as the client named it; empty: the sha256
	tags      []string
	// refuseSame makes it ImageAlreadyExistsException to push what is there already: the PutImage operation does so, the
	// distribution protocol is idempotent.
	refuseSame bool
	// maySign says whether whoever pushes may sign with a profile; nil: what is pushed is signed with none.
	maySign func(profile string) error
}

// image finds a manifest by digest, or by tag when digest is empty.
func image(v state.Reader, repo *Repository, digest, tag string) (*Manifest, error) {
	d := digest
	if d == "" {
		t, ok := Tags.Get(v, repo.in(tag))
		if !ok {
			return nil, imageNotFound(repo, digest, tag)
		}
		d = t.Digest
	}
	m, ok := Manifests.Get(v, repo.in(d))
	if !ok {
		return nil, imageNotFound(repo, digest, tag)
	}
	return m, nil
}

// tagsOf lists the tags of a manifest, sorted.
func tagsOf(v state.Reader, m *Manifest) []string {
	var tags []string
	for t := range TagsByDigest.Scan(v, Manifests.Key(m)) {
		tags = append(tags, t.Name)
	}
	return tags
}

// content is a manifest's bytes.
func (r *Registry) content(ctx context.Context, m *Manifest) ([]byte, error) {
	b, err := r.readAll(ctx, blob.Digest(m.Digest), maxManifestBytes)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", m.Digest, err)
	}
	return b, nil
}

// putImage stores a manifest and points its tags at it. The bytes are durable before the record that names them is
// committed, and leased until then.
func (r *Registry) putImage(ctx context.Context, repo *Repository, p push) (*Manifest, error) {
	for _, tag := range p.tags {
		if err := checkTag(tag); err != nil {
			return nil, err
		}
	}
	doc, err := parseManifest(p.mediaType, p.body)
	if err != nil {
		return nil, manifestInvalid(err)
	}
	digest := blob.Sum(p.body)
	if p.digest != "" {
		if digest = blob.SumAs(p.digest, p.body); digest != p.digest {
			return nil, digestDoesNotMatch(p.digest, digest)
		}
	}
	if err := r.layersPresent(ctx, repo, doc); err != nil {
		return nil, err
	}
	lease, err := r.leaseManifest(ctx, repo, digest, p.body)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	if err := r.spread(ctx, digest); err != nil {
		return nil, err
	}
	var m *Manifest
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		m, err = r.commitImage(tx, repo, doc, digest, p)
		return err
	})
	return m, err
}

// leaseManifest leases a manifest's bytes, and makes them durable unless a record says that they are: tags move more often than images change.
func (r *Registry) leaseManifest(ctx context.Context, repo *Repository, digest blob.Digest, body []byte) (*blob.Lease, error) {
	if _, exists := Manifests.Get(r.Store.View(), repo.in(string(digest))); !exists {
		if err := r.roomForImage(repo); err != nil {
			return nil, err
		}
		return r.keepManifest(ctx, digest, body)
	}
	lease, err := r.Blobs.Lease(ctx, digest)
	if err != nil {
		return nil, err
	}
	if there, err := r.Blobs.ReadAll(digest, maxManifestBytes); err == nil && bytes.Equal(there, body) {
		return lease, nil
	}
	defer lease.Release() // it is lost, or has rotted
	return r.keepManifest(ctx, digest, body)
}

// keepManifest makes a manifest's bytes a durable blob, leased to the caller.
func (r *Registry) keepManifest(ctx context.Context, digest blob.Digest, body []byte) (*blob.Lease, error) {
	lease, _, err := r.Blobs.Put(ctx, digest, bytes.NewReader(body))
	return lease, err
}

// layersPresent refuses before anything is written what commitImage would refuse, and, beyond the records, looks at the disk.
func (r *Registry) layersPresent(ctx context.Context, repo *Repository, doc *document) error {
	v := r.Store.View()
	var missing []string
	for _, d := range doc.blobs() {
		_, err := r.layer(ctx, v, repo, blob.Digest(d.Digest))
		switch {
		case err == nil || d.foreign():
		case awserr.Is(err, "LayersNotFoundException"):
			missing = append(missing, d.Digest)
		default:
			return err
		}
	}
	if missing != nil {
		return layerNotFound(repo, missing...)
	}
	return nil
}

func (r *Registry) commitImage(tx *state.Tx, repo *Repository, doc *document, digest blob.Digest, p push) (*Manifest, error) {
	repo, err := repo.still(tx)
	if err != nil {
		return nil, err
	}
	m, exists := Manifests.Get(tx, repo.in(string(digest)))
	if !exists {
		if m, err = r.describe(tx, repo, doc, digest, p.body); err != nil {
			return nil, err
		}
		Manifests.Put(tx, m)
	}
	changed := !exists
	if m.InArchive { // pushed again: it comes back
		m = r.withClass(m, false)
		Manifests.Put(tx, m)
		changed = true
	}
	for _, tag := range p.tags {
		old, ok := Tags.Get(tx, repo.in(tag))
		if ok && old.Digest == m.Digest {
			continue
		}
		if ok && repo.immutable(tag) {
			return nil, tagImmutable(repo, tag)
		}
		if err := r.roomForTag(repo, m); err != nil {
			return nil, err
		}
		changed = true
		Tags.Put(tx, &Tag{Account: repo.Account, Region: repo.Region, Repository: repo.Id, Name: tag, Digest: m.Digest, Moved: timestamppb.New(r.Clock.Now())})
	}
	if changed {
		r.queueReplication(tx, repo, m.Digest)
		r.queueScan(tx, repo, m)
	}
	if p.maySign != nil {
		r.queueSigning(tx, repo, m, p.maySign)
	}
	if !changed && p.refuseSame {
		tag := "null"
		if len(p.tags) > 0 {
			tag = p.tags[0]
		}
		return nil, awserr.New("ImageAlreadyExistsException", "Image with digest '%s' and tag '%s' already exists in the repository with name '%s' in registry with id '%s'", m.Digest, tag, repo.Name, repo.Account)
	}
	return m, nil
}

// describe makes a manifest's record, reading those of everything it refers to: should one of them be deleted meanwhile, the
// transaction fails and is run again.
func (r *Registry) describe(tx *state.Tx, repo *Repository, doc *document, digest blob.Digest, body []byte) (*Manifest, error) {
	m := newDescriptor(repo, doc, digest, body, r.Clock.Now())
	var missing []string
	for _, d := range doc.blobs() {
		m.ImageSize += uint64(d.Size)
		l, ok := Layers.Get(tx, repo.in(d.Digest))
		switch {
		case ok && l.Size != uint64(d.Size):
			return nil, manifestInvalid(fmt.Errorf("layer %s has %d bytes, not %d", d.Digest, l.Size, d.Size))
		case ok:
			m.Blobs = appendNew(m.Blobs, d.Digest)
		case !ok && !d.foreign():
			missing = append(missing, d.Digest)
		}
	}
	if missing != nil {
		return nil, layerNotFound(repo, missing...)
	}
	for _, d := range doc.Manifests {
		child, ok := Manifests.Get(tx, repo.in(d.Digest))
		if !ok {
			missing = append(missing, d.Digest)
			continue
		}
		m.ImageSize = max(m.ImageSize, child.ImageSize)
		m.Manifests = appendNew(m.Manifests, d.Digest)
	}
	if missing != nil {
		return nil, childrenNotFound(repo, missing)
	}
	return m, nil
}

// newDescriptor is what a manifest says by itself.
func newDescriptor(repo *Repository, doc *document, digest blob.Digest, body []byte, now time.Time) *Manifest {
	m := &Manifest{
		Account: repo.Account, Region: repo.Region, Repository: repo.Id, Digest: string(digest),
		Size: uint64(len(body)), MediaType: doc.MediaType, ArtifactType: doc.ArtifactType, Pushed: timestamppb.New(now),
	}
	if doc.Config != nil {
		m.ConfigType = doc.Config.MediaType
		if m.ArtifactType == "" {
			m.ArtifactType = doc.Config.MediaType
		}
	}
	if doc.Subject != nil {
		m.Subject, m.Annotations = doc.Subject.Digest, doc.Annotations
	}
	return m
}

// appendNew appends what is not there.
func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// errInIndex says that a manifest stays because indexes name it.
type errInIndex struct{ indexes []string }

func (e *errInIndex) Error() string {
	return fmt.Sprintf("Requested image referenced by manifest list: %v", e.indexes)
}

// tagsPerTransaction leaves room for the manifest itself, its pull time, its scan and its signings.
const tagsPerTransaction = state.MaxOps - 3 - maxSigningRules

// removeImage deletes a manifest and its tags, in several transactions when it has very many of them; the manifest goes last.
// check, unless nil, can refuse in the first of them.
func (r *Registry) removeImage(ctx context.Context, repo *Repository, digest string, check func(*state.Tx, *Manifest) error) (removed *Manifest, tags []string, err error) {
	for done := false; !done && err == nil; {
		var batch []string
		var found *Manifest
		_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
			batch, done = nil, true
			if _, err := repo.still(tx); err != nil {
				return err
			}
			m, err := image(tx, repo, digest, "")
			if err != nil {
				return err
			}
			var in errInIndex
			for parent := range ManifestsByReference.Scan(tx, Manifests.Key(m)) {
				in.indexes = append(in.indexes, parent.Digest)
			}
			if in.indexes != nil {
				return &in
			}
			if check != nil && removed == nil {
				if err := check(tx, m); err != nil {
					return err
				}
			}
			for t := range TagsByDigest.Scan(tx, Manifests.Key(m)) {
				if len(batch) == tagsPerTransaction {
					done = false
					break
				}
				batch = append(batch, t.Name)
				Tags.Delete(tx, Tags.Key(t))
			}
			if done {
				deleteManifest(tx, m)
			}
			found = m
			return nil
		})
		if err == nil {
			removed, tags = found, append(tags, batch...)
		}
	}
	return removed, tags, err
}

func deleteManifest(tx *state.Tx, m *Manifest) {
	Manifests.Delete(tx, Manifests.Key(m))
	PullTimes.Delete(tx, Manifests.Key(m))
	Scans.Delete(tx, Manifests.Key(m))
	for s := range ImageSignings.Scan(tx, Manifests.Key(m)) {
		ImageSignings.Delete(tx, ImageSignings.Key(s))
	}
}

// removeTag takes a tag away and says what it pointed at. The manifest stays unless andImage is set and it was the last tag,
// as ECR's BatchDeleteImage wants it; should an index name the manifest then, nothing happens.
func (r *Registry) removeTag(ctx context.Context, repo *Repository, tag string, andImage bool) (digest string, err error) {
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		if _, err := repo.still(tx); err != nil {
			return err
		}
		m, err := image(tx, repo, "", tag)
		if err != nil {
			return err
		}
		digest = m.Digest
		Tags.Delete(tx, repo.in(tag))
		if !andImage || len(tagsOf(tx, m)) > 0 {
			return nil
		}
		for parent := range ManifestsByReference.Scan(tx, Manifests.Key(m)) {
			return &errInIndex{[]string{parent.Digest}}
		}
		deleteManifest(tx, m)
		return nil
	})
	return digest, err
}

func isInIndex(err error) bool {
	var in *errInIndex
	return errors.As(err, &in)
}
