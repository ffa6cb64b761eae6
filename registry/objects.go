package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/bucket"
)

// Where blobs live in an object store (Config.Bucket), a server's disk is a cache of it, and what is said of references and leases holds for objects: only
// the leader deletes them. It compares the bucket's listing with the records: what nothing refers to goes, and what is missing is put there from
// wherever it is. So a cluster that had its blobs on disks before moves by being started with a bucket, and an interrupted move goes on by itself.

// there says whether the blob is anywhere within reach; blob.ErrNotFound: it is not. Without a bucket it is here then.
func (r *Registry) there(ctx context.Context, d blob.Digest) (blob.Info, error) {
	if r.Bucket != nil {
		info, err := r.Bucket.Has(ctx, d)
		if err == nil {
			return info, nil
		}
		if err := r.fetchCopy(ctx, d, err); err != nil {
			return blob.Info{}, err
		}
	} else if err := r.here(ctx, d); err != nil {
		return blob.Info{}, err
	}
	return r.Blobs.Stat(d)
}

// open reads a blob, wherever it is.
func (r *Registry) open(ctx context.Context, d blob.Digest) (io.ReadSeekCloser, error) {
	if r.Bucket != nil {
		f, _, err := r.Bucket.Open(ctx, d)
		if err == nil {
			return f, nil
		}
		if err := r.fetchCopy(ctx, d, err); err != nil {
			return nil, err
		}
	} else if err := r.here(ctx, d); err != nil {
		return nil, err
	}
	f, _, err := r.Blobs.Open(d)
	return f, err
}

// readAll is the content of a blob of at most limit bytes, wherever it is.
func (r *Registry) readAll(ctx context.Context, d blob.Digest, limit int64) ([]byte, error) {
	lease, err := r.Blobs.Lease(ctx, d) // it stays here until it is read
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	if err := r.here(ctx, d); err != nil {
		return nil, err
	}
	return r.Blobs.ReadAll(d, limit)
}

// fetchObject brings a blob from the bucket, or from another server's disk.
func (r *Registry) fetchObject(ctx context.Context, d blob.Digest) error {
	if err := r.Bucket.Fetch(ctx, d); err != nil {
		return r.fetchCopy(ctx, d, err)
	}
	return nil
}

// fetchCopy brings a blob that the bucket does not give, for the reason it gave, from another server's disk: it may have the blob still, or have it right.
func (r *Registry) fetchCopy(ctx context.Context, d blob.Digest, reason error) error {
	wrong := errors.Is(reason, bucket.ErrWrong)
	if ctx.Err() != nil || r.Copies == nil || r.Copies.Fetch(ctx, d) != nil {
		if wrong && r.Store.Leadership().Term != 0 { // so that the next push brings it
			if err := r.Bucket.SetAside(ctx, d); err != nil && !errors.Is(err, blob.ErrLeased) {
				r.Log.Warn("cannot set a wrong object aside", "digest", d, "error", err)
			}
		}
		return reason
	}
	if !wrong {
		return nil
	}
	lease, lerr := r.Blobs.Lease(ctx, d)
	if lerr != nil {
		return lerr
	}
	defer lease.Release()
	if err := r.Bucket.Put(ctx, d); err != nil { // in place of the wrong one
		r.Log.Warn("cannot replace a wrong object", "digest", d, "error", err)
	}
	return nil
}

// sendObject answers with a blob while it comes from the bucket. Ranges are given of what was held against its digest: of less than all nobody else can
// tell that it is wrong.
func (f front) sendObject(w http.ResponseWriter, q *request, d blob.Digest, l *Layer) error {
	switch {
	case q.Method == http.MethodHead:
		blobHeader(w, d)
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Length", strconv.FormatUint(l.Size, 10))
		return nil
	case q.Header.Get("Range") != "":
		if err := f.here(q.Context(), d); err != nil {
			return err
		}
	}
	r, err := f.open(q.Context(), d)
	if err != nil {
		return err
	}
	defer r.Close()
	blobHeader(w, d)
	http.ServeContent(w, q.Request, "", time.Time{}, r)
	if s, ok := r.(interface{ Err() error }); ok && s.Err() != nil {
		if q.Context().Err() == nil {
			f.Log.Error("a blob that was to come from the object store ended early", "digest", d, "error", s.Err())
			_ = f.fetchCopy(q.Context(), d, s.Err()) // for whoever asks again
		}
		panic(http.ErrAbortHandler) // a cut answer must not look whole
	}
	return nil
}
