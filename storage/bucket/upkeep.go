package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"strings"

	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/s3"
)

// All lists the blobs in the store, in the order of their digests, page by page.
func (b *Bucket) All(ctx context.Context) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for _, algorithm := range []string{"sha256", "sha512"} {
			for info, err := range b.list(ctx, b.key(algorithm)+"/", algorithm) {
				if !yield(info, err) || err != nil {
					return
				}
			}
		}
	}
}

// list yields the objects below prefix whose last element is a digest's, and leaves out what is not ours.
func (b *Bucket) list(ctx context.Context, prefix, algorithm string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for after, more := "", true; more; {
			page, further, err := b.Objects.List(ctx, prefix, after)
			if err := b.outcome(ctx, err); err != nil {
				yield(blob.Info{}, err)
				return
			}
			for _, o := range page {
				after = o.Key
				d, err := blob.ParseDigest(algorithm + ":" + path.Base(o.Key))
				if err != nil || o.Key != prefix+strings.TrimPrefix(d.Path(), algorithm+"/") {
					continue
				}
				if !yield(blob.Info{Digest: d, Size: o.Size, Modified: o.Modified}, nil) {
					return
				}
			}
			more = further
		}
	}
}

// Delete removes an object that is not young, that no lease holds here (else blob.ErrLeased) and of which unreferenced says, while no lease can be
// taken, that nothing refers to it; and its copy on this disk. It reports whether it did.
func (b *Bucket) Delete(ctx context.Context, d blob.Digest, unreferenced func() (bool, error)) (removed bool, err error) {
	if err := b.own(ctx); err != nil {
		return false, err
	}
	_, err = b.Local.Delete(d, func() (bool, error) {
		o, err := b.Stat(ctx, d) // the listing may be old
		if err != nil {
			return false, ignore(err, blob.ErrNotFound)
		}
		if b.Young(o) {
			return false, nil
		}
		if ok, err := unreferenced(); !ok || err != nil {
			return false, err
		}
		if err := b.outcome(ctx, b.Objects.Delete(ctx, b.blobKey(d))); err != nil {
			return false, fmt.Errorf("delete blob %s: %w", d, err)
		}
		removed = true
		return true, nil
	})
	return removed, err
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// Check reads an object and holds it against its digest. pace is told what was read, and may slow it down. An object that is wrong is from then on not
// believed to be there: Put replaces it.
func (b *Bucket) Check(ctx context.Context, d blob.Digest, pace func(ctx context.Context, n int) error) (wrong bool, err error) {
	body, _, err := b.Objects.Get(ctx, b.blobKey(d), 0)
	if err := b.outcome(ctx, err); err != nil {
		return false, err
	}
	defer body.Close()
	v := d.Verifier()
	buf := make([]byte, small)
	for {
		n, err := body.Read(buf)
		v.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, b.outcome(ctx, fmt.Errorf("check the object of %s: %w", d, err))
		}
		if err := pace(ctx, n); err != nil {
			return false, err
		}
	}
	if v.Verified() {
		return false, nil
	}
	b.markWrong(d, true)
	return true, nil
}

// SetAside moves an object that Check found wrong out of sight, unless it is leased here (blob.ErrLeased): somebody is replacing it.
func (b *Bucket) SetAside(ctx context.Context, d blob.Digest) error {
	if err := b.own(ctx); err != nil {
		return err
	}
	_, err := b.Local.Delete(d, func() (bool, error) { // no: a copy here may be good
		if !b.isWrong(d) {
			return false, nil
		}
		o, err := b.Objects.Head(ctx, b.blobKey(d))
		if err == nil && o.Size <= s3.MaxCopy {
			err = b.Objects.Copy(ctx, o, b.asideKey(d))
		}
		if err == nil {
			err = b.Objects.Delete(ctx, b.blobKey(d))
		}
		if err := ignore(b.outcome(ctx, err), blob.ErrNotFound); err != nil {
			return false, fmt.Errorf("set a wrong object aside: %w", err)
		}
		b.markWrong(d, false)
		return false, nil
	})
	return err
}

func (b *Bucket) asideKey(d blob.Digest) string { return b.key("quarantine", d.Path()) }

// Aside lists the objects that were set aside.
func (b *Bucket) Aside(ctx context.Context) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for _, algorithm := range []string{"sha256", "sha512"} {
			for info, err := range b.list(ctx, b.key("quarantine", algorithm)+"/", algorithm) {
				if !yield(info, err) || err != nil {
					return
				}
			}
		}
	}
}

// Discard removes an object that was set aside.
func (b *Bucket) Discard(ctx context.Context, d blob.Digest) error {
	return b.outcome(ctx, b.Objects.Delete(ctx, b.asideKey(d)))
}

// AbortUploads clears away what processes that ended have left of objects in parts.
func (b *Bucket) AbortUploads(ctx context.Context) (int, error) {
	if err := b.own(ctx); err != nil {
		return 0, err
	}
	prefix := b.Prefix
	if prefix != "" {
		prefix += "/"
	}
	n, err := b.Objects.AbortStale(ctx, prefix, b.Clock.Now().Add(-b.Grace))
	return n, b.outcome(ctx, err)
}
