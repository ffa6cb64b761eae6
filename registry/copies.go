package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// Copies are the other servers and their blobs. They have the same records.
type Copies interface {
	// Spread returns once enough servers hold the blob. They keep it for LayerGrace although no record refers to it yet.
	Spread(ctx context.Context, d blob.Digest) error
	// Others are the other servers; not known while nobody has told yet.
	Others() (ids []string, known bool)
	// ReportPulls brings to the leader, whose TakePulls it calls, when images were pulled from this server.
	ReportPulls(ctx context.Context, report []byte) error
	// Fetch brings a blob here from a server that has it; blob.ErrNotFound: none within reach does.
	Fetch(ctx context.Context, d blob.Digest) error
	// FetchUpload brings an upload (blob.UploadName) here that was begun on another server; blob.ErrNotFound: none within reach has it.
	FetchUpload(ctx context.Context, name string) error
}

// spread makes sure that the blob outlives this server, before a record refers to it.
func (r *Registry) spread(ctx context.Context, d blob.Digest) error {
	if r.Bucket != nil {
		return r.Bucket.Put(ctx, d)
	}
	if r.Copies == nil {
		return nil
	}
	if err := r.Copies.Spread(ctx, d); err != nil {
		return fmt.Errorf("%w: %w", errTooFewCopies, err)
	}
	return nil
}

var errTooFewCopies = errors.New("too few servers can be reached that could keep a copy")

// here brings the blob to this server if it is missing; blob.ErrNotFound: it is nowhere.
func (r *Registry) here(ctx context.Context, d blob.Digest) error {
	_, err := r.Blobs.Stat(d)
	if r.Bucket != nil && errors.Is(err, blob.ErrNotFound) {
		return r.fetchObject(ctx, d)
	}
	if r.Copies == nil || !errors.Is(err, blob.ErrNotFound) {
		return err
	}
	return r.Copies.Fetch(ctx, d)
}

// upload takes an upload of the repository up, from the server that led before where it was begun there.
func (r *Registry) upload(ctx context.Context, repo *Repository, id string) (*blob.Upload, error) {
	u, err := r.Blobs.Resume(repo.uploadOwner(), id)
	if r.Copies == nil || !errors.Is(err, blob.ErrNotFound) {
		return u, err
	}
	if r.Store.Leadership().Term == 0 { // who only asks for its place must not draw it here
		return nil, state.ErrNotLeader
	}
	if err := r.Copies.FetchUpload(ctx, blob.UploadName(repo.uploadOwner(), id)); err != nil {
		return nil, err
	}
	return r.Blobs.Resume(repo.uploadOwner(), id)
}

// mirrors is how many blobs are fetched at a time.
const mirrors = 3

// mirror brings here what records refer to and this server does not have: the pushes of every day, and everything to a server that is new.
func (r *Registry) mirror(ctx context.Context) error {
	if r.Copies == nil || r.Bucket != nil { // which all servers have
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		v := r.Store.View()
		w := r.Store.Watch(ctx, v.Revision(), Layers, Manifests)
		complete := r.mirrorAll(ctx, v)
		for {
			limit, cancel := ctx, context.CancelFunc(func() {})
			if !complete { // somebody could not be reached
				limit, cancel = context.WithTimeout(ctx, mirrorRetry)
			}
			b, err := w.Next(limit)
			cancel()
			if err != nil {
				break // all anew: the history was lost, or it is time to try again
			}
			complete = r.mirrorNew(ctx, b) && complete
		}
	}
	return nil
}

// mirrorRetry is when what could not be fetched is tried again.
const mirrorRetry = time.Minute

// mirrorAll says whether everything is here.
func (r *Registry) mirrorAll(ctx context.Context, v *state.View) bool {
	var missing []blob.Digest
	note := func(digest string) {
		d := blob.Digest(digest)
		if _, err := r.Blobs.Stat(d); errors.Is(err, blob.ErrNotFound) {
			missing = append(missing, d)
		}
	}
	for l := range Layers.Scan(v, state.K()) {
		note(l.Digest)
	}
	for m := range Manifests.Scan(v, state.K()) {
		note(m.Digest)
	}
	return r.fetchAll(ctx, missing)
}

func (r *Registry) mirrorNew(ctx context.Context, b state.Batch) bool {
	var missing []blob.Digest
	for _, e := range b.Events {
		switch now := e.New.(type) {
		case *Layer:
			missing = append(missing, blob.Digest(now.Digest))
		case *Manifest:
			missing = append(missing, blob.Digest(now.Digest))
		}
	}
	return r.fetchAll(ctx, missing)
}

func (r *Registry) fetchAll(ctx context.Context, digests []blob.Digest) bool {
	var g errgroup.Group
	g.SetLimit(mirrors)
	for _, d := range digests {
		g.Go(func() error {
			err := r.here(ctx, d)
			if err != nil && r.kept(d) && ctx.Err() == nil {
				r.Log.Warn("cannot copy a blob from another server; trying again", "digest", d, "error", err)
				return err
			}
			return nil
		})
	}
	return g.Wait() == nil
}

// young says that a blob was written, or counted on by another server, so lately that the record which is to refer to it may still come.
func (r *Registry) young(d blob.Digest) bool {
	if r.Copies == nil {
		return false // whoever is about to write the record holds a lease, here
	}
	info, err := r.Blobs.Stat(d)
	return err == nil && r.Clock.Now().Sub(info.Modified) < r.LayerGrace
}
