package registry

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// Collected says what a collection removed.
type Collected struct {
	Records int   // of deleted repositories
	Layers  int   // that no manifest of their repository names
	Blobs   int   // to which no record refers
	Bytes   int64 // of those
	Uploads int   // abandoned
	// Compacted is how many bytes came free where small blobs are kept.
	Compacted int64
}

// Collect removes what nothing refers to, while pushes, pulls and deletions go on: first records of deleted repositories, then
// idle layers, then blobs. Each step decides inside a transaction, or under the digest's lease, from what is referenced at
// that moment; there is no mark phase whose result could be out of date.
func (r *Registry) Collect(ctx context.Context) (Collected, error) {
	var c Collected
	if r.Copies != nil || r.Bucket != nil { // the records of a server that lags behind would not tell what is needed
		if _, err := r.Store.Linearizable(ctx); err != nil {
			return c, err
		}
	}
	for _, step := range []func(context.Context, *Collected) error{r.collectRepositories, r.collectReplications, r.collectLayers, r.collectBlobs} {
		// Records are the leader's to delete, blobs each server's.
		if err := step(ctx, &c); err != nil && !errors.Is(err, state.ErrNotLeader) {
			return c, err
		}
	}
	n, err := r.Blobs.ExpireUploads()
	c.Uploads = n
	if err != nil {
		return c, err
	}
	return c, r.collectObjects(ctx, &c)
}

// collectRepositories deletes the records that deleted repositories left, a transaction's worth at a time.
func (r *Registry) collectRepositories(ctx context.Context, c *Collected) error {
	for gone := range RemovedRepositories.Scan(r.Store.View(), state.K()) {
		prefix := state.K(gone.Account, gone.Region, gone.Id)
		for done := false; !done; {
			n := 0
			_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
				n = 0
				if done = deleteBelow(tx, Tags, prefix, &n) && deleteBelow(tx, Manifests, prefix, &n) && deleteBelow(tx, Layers, prefix, &n) &&
					deleteBelow(tx, PullTimes, prefix, &n) && deleteBelow(tx, Scans, prefix, &n) && deleteBelow(tx, ImageSignings, prefix, &n); done {
					RemovedRepositories.Delete(tx, RemovedRepositories.Key(gone))
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("delete what repository %s contained: %w", gone.Id, err)
			}
			c.Records += n
		}
	}
	return nil
}

// deleteBelow deletes records until n has come to what a transaction may hold, less one. It reports whether none is left.
func deleteBelow[T proto.Message](tx *state.Tx, table *state.Table[T], prefix state.Key, n *int) bool {
	for v := range table.Scan(tx, prefix) {
		if *n == state.MaxOps-1 {
			return false
		}
		*n++
		table.Delete(tx, table.Key(v))
	}
	return true
}

// collectLayers takes layers from their repository that no manifest names and that nobody pushed or asked for within the
// grace: a client may still be about to push the manifest.
func (r *Registry) collectLayers(ctx context.Context, c *Collected) error {
	v := r.Store.View()
	idle := r.Clock.Now().Add(-r.LayerGrace)
	for l := range Layers.Scan(v, state.K()) {
		key := Layers.Key(l)
		if l.Counted.AsTime().After(idle) || referenced(v, key) {
			continue
		}
		removed := false
		_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
			now, there := Layers.Get(tx, key)
			if removed = there && !now.Counted.AsTime().After(idle) && !referenced(tx, key); removed {
				Layers.Delete(tx, key)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("remove layer %s: %w", l.Digest, err)
		}
		if removed {
			c.Layers++
		}
	}
	return nil
}

// referenced says whether a manifest of the repository has the digest as config, layer or child.
func referenced(v state.Reader, key state.Key) bool {
	for range ManifestsByReference.Scan(v, key) {
		return true
	}
	return false
}

// collectBlobs deletes blobs that are in no repository. The question is asked anew under the digest's lease: a push that is
// bringing the blob in holds it until its record is committed.
func (r *Registry) collectBlobs(ctx context.Context, c *Collected) error {
	for info, err := range r.Blobs.All() {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.kept(info.Digest) || r.young(info.Digest) {
			continue
		}
		deleted, err := r.Blobs.Delete(info.Digest, func() (bool, error) { return !r.kept(info.Digest) && !r.young(info.Digest), nil })
		if errors.Is(err, blob.ErrLeased) {
			continue
		}
		if err != nil {
			return err
		}
		if deleted && r.Bucket == nil { // else it was only a cached one
			c.Blobs++
			c.Bytes += info.Size
		}
	}
	freed, err := r.Blobs.Compact(ctx)
	c.Compacted = freed
	return err
}

// kept says whether any record refers to the blob.
func (r *Registry) kept(d blob.Digest) bool {
	v := r.Store.View()
	for range LayersByDigest.Scan(v, state.K(string(d))) {
		return true
	}
	for range ManifestsByDigest.Scan(v, state.K(string(d))) {
		return true
	}
	for range ScansByDigest.Scan(v, state.K(string(d))) {
		return true
	}
	return false
}
