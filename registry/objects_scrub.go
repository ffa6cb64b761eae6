package registry

import (
	"context"
	"errors"

	"github.com/seed-2f228079/neargate/storage/blob"
)

// passObjects has the leader read the objects of the bucket again, after its disk, and hold them against their digests.
func (s *scrubber) passObjects(ctx context.Context) error {
	for info, err := range s.Bucket.All(ctx) {
		if s.Store.Leadership().Term == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if string(info.Digest) <= s.Registry.Scrub().Object {
			continue
		}
		if err := s.checkObject(ctx, info); err != nil {
			return err
		}
		s.change(func(n *Scrub) { n.Object, n.Blobs, n.Bytes = string(info.Digest), n.Blobs+1, n.Bytes+uint64(info.Size) })
		s.save(false)
	}
	return nil
}

// checkObject replaces an object that is wrong by a good copy, or sets it aside.
func (s *scrubber) checkObject(ctx context.Context, info blob.Info) error {
	d := info.Digest
	wrong, err := s.Bucket.Check(ctx, d, s.pace)
	if errors.Is(err, blob.ErrNotFound) { // deleted meanwhile
		return nil
	}
	if err != nil || !wrong {
		return err
	}
	s.change(func(n *Scrub) { n.Rotten++ })
	s.Log.Error("an object has wrong content", "digest", d, "bytes", info.Size)
	s.save(true)
	lease, err := s.Blobs.Lease(ctx, d)
	if err != nil {
		return err
	}
	if err = s.goodCopy(ctx, d); err == nil {
		err = s.Bucket.Put(ctx, d)
	}
	lease.Release()
	if err == nil {
		s.change(func(n *Scrub) { n.Repaired++ })
		s.Log.Info("a wrong object is replaced", "digest", d)
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.kept(d) {
		s.Log.Error("a blob is nowhere within reach: push its image again", "digest", d, "error", err)
	}
	for {
		err := s.Bucket.SetAside(ctx, d)
		if !errors.Is(err, blob.ErrLeased) {
			return err
		}
		if !s.wait(ctx, scrubRetry) {
			return ctx.Err()
		}
	}
}

// goodCopy makes sure that there is one on this disk.
func (s *scrubber) goodCopy(ctx context.Context, d blob.Digest) error {
	if _, err := s.Blobs.Stat(d); !errors.Is(err, blob.ErrNotFound) {
		return err
	}
	if s.Copies != nil && s.Copies.Fetch(ctx, d) == nil {
		return nil
	}
	return s.repairElsewhere(ctx, d)
}

// restoreCache gives up files of the cache that have rotted: the bucket has what they were, or gets it from elsewhere.
func (s *scrubber) restoreCache(ctx context.Context) error {
	aside, err := s.Blobs.Quarantined()
	if err != nil {
		return err
	}
	for _, d := range aside {
		_, err := s.Bucket.Stat(ctx, d)
		if err != nil && !errors.Is(err, blob.ErrNotFound) {
			return err
		}
		if err != nil && s.kept(d) {
			if err := s.repairElsewhere(ctx, d); err != nil {
				continue // the file is all there is
			}
		}
		s.change(func(n *Scrub) { n.Repaired++ })
		if err := s.Blobs.Discard(d); err != nil {
			return err
		}
	}
	s.change(func(n *Scrub) { n.Lost = s.ObjectStore().Lost })
	return nil
}
