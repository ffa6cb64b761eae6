package registry

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// layer finds a layer that the repository has and whose blob is there. A blob that got lost reads as absent, so that the next
// push brings it again.
func (r *Registry) layer(ctx context.Context, v state.Reader, repo *Repository, d blob.Digest) (*Layer, error) {
	l, ok := Layers.Get(v, repo.in(string(d)))
	if !ok {
		return nil, layerNotFound(repo, string(d))
	}
	switch _, err := r.there(ctx, d); {
	case errors.Is(err, blob.ErrNotFound):
		r.Log.Error("a layer's blob is missing", "digest", d, "repository", repo.Name)
		return nil, layerNotFound(repo, string(d))
	case err != nil:
		return nil, err
	}
	return l, nil
}

// addLayer commits that the repository has the blob, which the caller holds a lease on.
func (r *Registry) addLayer(ctx context.Context, repo *Repository, info blob.Info) error {
	if err := r.spread(ctx, info.Digest); err != nil {
		return err
	}
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		now, err := repo.still(tx)
		if err != nil {
			return err
		}
		r.putLayer(tx, now, string(info.Digest), uint64(info.Size))
		return nil
	})
	return err
}

// putLayer writes the record, unless it is there and fresh.
func (r *Registry) putLayer(tx *state.Tx, repo *Repository, digest string, size uint64) {
	if l, ok := Layers.Get(tx, repo.in(digest)); ok && r.fresh(l) {
		return
	}
	Layers.Put(tx, &Layer{Account: repo.Account, Region: repo.Region, Repository: repo.Id, Digest: digest, Size: size, Counted: timestamppb.New(r.Clock.Now())})
}

// fresh says that collection will not look at the layer for some time, so that a client may count on it.
func (r *Registry) fresh(l *Layer) bool {
	return r.Clock.Now().Sub(l.Counted.AsTime()) < r.LayerGrace/2
}

// keepLayer notes, when the last note is not fresh, that a client counts on the layer.
func (r *Registry) keepLayer(ctx context.Context, repo *Repository, l *Layer) error {
	if r.fresh(l) {
		return nil
	}
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		if _, ok := Layers.Get(tx, Layers.Key(l)); !ok {
			return layerNotFound(repo, l.Digest)
		}
		r.putLayer(tx, repo, l.Digest, l.Size)
		return nil
	})
	return err
}

// mount adds a layer that another repository of the account and region has: the one called from, or any when that is empty.
// It reports false when there is none; the client then uploads.
func (r *Registry) mount(ctx context.Context, repo *Repository, from string, d blob.Digest) (bool, error) {
	lease, err := r.Blobs.Lease(ctx, d)
	if err != nil {
		return false, err
	}
	defer lease.Release()
	info, err := r.there(ctx, d)
	if errors.Is(err, blob.ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	mounted := false
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		now, err := repo.still(tx)
		if err != nil {
			return err
		}
		mounted = registryRecord(tx, now.Account, now.Region).setting(blobMounting) == "ENABLED" && mountable(tx, now, from, d)
		if mounted {
			r.putLayer(tx, now, string(d), uint64(info.Size))
		}
		return nil
	})
	return mounted, err
}

func mountable(tx *state.Tx, repo *Repository, from string, d blob.Digest) bool {
	if from != "" {
		source, err := repository(tx, repo.Account, repo.Region, from)
		if err != nil {
			return false
		}
		_, ok := Layers.Get(tx, source.in(string(d)))
		return ok
	}
	for l := range LayersByDigest.Scan(tx, state.K(string(d))) {
		if l.Account == repo.Account && l.Region == repo.Region {
			return true
		}
	}
	return false
}

// removeLayer takes a layer from the repository. A manifest that needs it keeps it.
func (r *Registry) removeLayer(ctx context.Context, repo *Repository, d blob.Digest) error {
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		if _, err := repo.still(tx); err != nil {
			return err
		}
		key := repo.in(string(d))
		if _, ok := Layers.Get(tx, key); !ok {
			return layerNotFound(repo, string(d))
		}
		for m := range ManifestsByReference.Scan(tx, key) {
			return fmt.Errorf("%w: the manifest %s needs it", errLayerInUse, m.Digest)
		}
		Layers.Delete(tx, key)
		return nil
	})
	return err
}

var errLayerInUse = errors.New("the layer is in use")
