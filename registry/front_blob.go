package registry

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/blob"
)

const digestHeader = "Docker-Content-Digest"

// digest reads the request's reference as a digest.
func (q *request) digest(s string) (blob.Digest, error) {
	d, err := blob.ParseDigest(s)
	if err != nil {
		return "", &ociError{http.StatusBadRequest, "DIGEST_INVALID", err.Error()}
	}
	return d, nil
}

func (q *request) blobPath(d blob.Digest) string { return "/v2/" + q.name + "/blobs/" + string(d) }
func (q *request) uploadPath(id string) string   { return "/v2/" + q.name + "/blobs/uploads/" + id }

// getBlob sends a layer or a config, whole or in ranges.
func (f front) getBlob(w http.ResponseWriter, q *request) error {
	d, err := q.digest(q.ref)
	if err != nil {
		return err
	}
	l, err := f.layer(q.Context(), f.Store.View(), q.repo, d)
	if awserr.Is(err, "LayersNotFoundException") {
		done, cerr := f.cacheBlob(w, q, d)
		if done || cerr != nil {
			return cerr
		}
		l, err = f.layer(q.Context(), f.Store.View(), q.repo, d)
	}
	if err != nil {
		return err
	}
	if q.Method == http.MethodHead { // what a client asks before it leaves a layer out of its push
		if err := f.keepLayer(q.Context(), q.repo, l); err != nil {
			return err
		}
	}
	if f.Bucket != nil {
		return f.sendObject(w, q, d, l)
	}
	r, _, err := f.Blobs.Open(d)
	if err != nil {
		return err
	}
	defer r.Close()
	blobHeader(w, d)
	http.ServeContent(w, q.Request, "", time.Time{}, r)
	return nil
}

// cacheBlob brings a blob from the upstream if an image that is cached here names it. A plain GET gets the bytes as they come
// (done); for anything else they are then here.
func (f front) cacheBlob(w http.ResponseWriter, q *request, d blob.Digest) (done bool, err error) {
	u, ok := upstreamOf(f.Store.View(), q.account, q.region, q.name)
	if !ok {
		return false, nil
	}
	size, ok, err := f.cachedBlob(q.Context(), q.repo, d)
	if !ok || err != nil {
		return false, err
	}
	if f.Store.Leadership().Term == 0 { // before the first byte: it could not be kept here, and the client would get a cut answer
		return false, state.ErrNotLeader
	}
	release, err := f.upstreams.alone(q.Context(), string(q.repo.in(string(d))))
	if err != nil {
		return false, err
	}
	defer release()
	if _, err := f.layer(q.Context(), f.Store.View(), q.repo, d); err == nil {
		return false, nil // it came while we waited
	}
	if q.Method != http.MethodGet || q.Header.Get("Range") != "" {
		return false, f.fetchBlob(q.Context(), u, q.repo, d, io.Discard)
	}
	sink := &blobSink{w: w, digest: d, size: size}
	if err := f.fetchBlob(q.Context(), u, q.repo, d, sink); err != nil {
		if !sink.begun {
			return false, err
		}
		f.Log.Warn("a blob of an upstream ended early or was not kept", "digest", d, "repository", q.name, "error", err)
		panic(http.ErrAbortHandler) // a cut answer must not look whole
	}
	sink.begin() // an empty blob has no bytes to do it
	return true, nil
}

// blobSink is a blob's answer that begins with its first byte: until then an error can be answered.
type blobSink struct {
	w      http.ResponseWriter
	digest blob.Digest
	size   int64
	begun  bool
}

func (s *blobSink) begin() {
	if s.begun {
		return
	}
	s.begun = true
	blobHeader(s.w, s.digest)
	s.w.Header().Set("Content-Length", strconv.FormatInt(s.size, 10))
}

func (s *blobSink) Write(b []byte) (int, error) {
	s.begin()
	return s.w.Write(b)
}

func blobHeader(w http.ResponseWriter, d blob.Digest) {
	h := w.Header()
	h.Set(digestHeader, string(d))
	h.Set("ETag", `"`+string(d)+`"`)
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "max-age=31536000")
}

func (f front) deleteBlob(w http.ResponseWriter, q *request) error {
	d, err := q.digest(q.ref)
	if err != nil {
		return err
	}
	if err := f.removeLayer(q.Context(), q.repo, d); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// beginUpload mounts a layer of another repository, takes a whole one, or opens a session.
func (f front) beginUpload(w http.ResponseWriter, q *request) error {
	query := q.URL.Query()
	if m := query.Get("mount"); m != "" {
		d, err := q.digest(m)
		if err != nil {
			return err
		}
		// Who may not read where the layer is uploads it; so does who names no place and may not read all of them.
		from := query.Get("from")
		if q.region == publicRegion {
			from = strings.TrimPrefix(from, aliasOf(q.account)+"/")
		}
		if f.may(q.Request, q.caller, "mount", cmp.Or(from, "*")) == nil {
			ok, err := f.mount(q.Context(), q.repo, from, d)
			if err != nil {
				return err
			}
			if ok {
				blobCreated(w, q, d)
				return nil
			}
		}
	}
	if s := query.Get("digest"); s != "" {
		if err := f.may(q.Request, q.caller, "PUT uploads/id", q.repo.Name); err != nil {
			return err
		}
		d, err := q.digest(s)
		if err != nil {
			return err
		}
		lease, info, err := f.Blobs.Put(q.Context(), d, q.Body)
		if err != nil {
			return received(err)
		}
		defer lease.Release()
		if err := f.addLayer(q.Context(), q.repo, info); err != nil {
			return err
		}
		blobCreated(w, q, d)
		return nil
	}
	switch a := query.Get("digest-algorithm"); a {
	case "", "sha256", "sha512":
	default:
		return &ociError{http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("digest algorithm %q is not supported; sha256 and sha512 are", a)}
	}
	u, err := f.Blobs.Begin(q.repo.uploadOwner())
	if err != nil {
		return err
	}
	defer u.Release()
	uploadAnswer(w, q, u, http.StatusAccepted)
	return nil
}

func blobCreated(w http.ResponseWriter, q *request, d blob.Digest) {
	h := w.Header()
	h.Set("Location", q.blobPath(d))
	h.Set(digestHeader, string(d))
	w.WriteHeader(http.StatusCreated)
}

// uploadOwner binds upload sessions to the repository.
func (r *Repository) uploadOwner() string { return string(r.in()) }

// uploadAnswer tells where the session is and how far it got.
func uploadAnswer(w http.ResponseWriter, q *request, u *blob.Upload, status int) {
	h := w.Header()
	h.Set("Location", q.uploadPath(u.ID()))
	h.Set("Docker-Upload-UUID", u.ID())
	h.Set("Range", "0-"+strconv.FormatInt(max(u.Size()-1, 0), 10))
	w.WriteHeader(status)
}

func (f front) resume(q *request) (*blob.Upload, error) {
	u, err := f.upload(q.Context(), q.repo, q.ref)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, &ociError{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", fmt.Sprintf("Layer upload with id '%s' does not exist within the repository with name '%s'", q.ref, q.name)}
	}
	return u, err
}

func (f front) statUpload(w http.ResponseWriter, q *request) error {
	u, err := f.resume(q)
	if err != nil {
		return err
	}
	defer u.Release()
	uploadAnswer(w, q, u, http.StatusNoContent)
	return nil
}

func (f front) cancelUpload(w http.ResponseWriter, q *request) error {
	u, err := f.resume(q)
	if err != nil {
		return err
	}
	if err := u.Cancel(); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (f front) patchUpload(w http.ResponseWriter, q *request) error {
	u, err := f.resume(q)
	if err != nil {
		return err
	}
	defer u.Release()
	if done, err := appendBody(w, q, u); done || err != nil {
		return err
	}
	uploadAnswer(w, q, u, http.StatusAccepted)
	return nil
}

// appendBody adds the body, which a Content-Range must place at the session's end. done: the answer, 416 with where to go on,
// is given.
func appendBody(w http.ResponseWriter, q *request, u *blob.Upload) (done bool, err error) {
	if cr := q.Header.Get("Content-Range"); cr != "" {
		first, last, ok := contentRange(cr)
		if !ok {
			return false, &ociError{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", fmt.Sprintf("Content-Range %q is not START-END", cr)}
		}
		if first != u.Size() {
			uploadAnswer(w, q, u, http.StatusRequestedRangeNotSatisfiable)
			return true, nil
		}
		if q.ContentLength >= 0 && q.ContentLength != last-first+1 {
			return false, &ociError{http.StatusBadRequest, "SIZE_INVALID", fmt.Sprintf("Content-Range %q and Content-Length %d differ", cr, q.ContentLength)}
		}
	}
	_, err = u.Append(q.Body)
	return false, received(err)
}

// contentRange reads "START-END", both inclusive; "bytes START-END/TOTAL" as HTTP spells it is understood as well.
func contentRange(s string) (first, last int64, ok bool) {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	a, b, ok := strings.Cut(s, "-")
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	return first, last, ok && err1 == nil && err2 == nil && first >= 0 && last >= first
}

// finishUpload adds what the body still brings and makes the session a layer.
func (f front) finishUpload(w http.ResponseWriter, q *request) error {
	d, err := q.digest(q.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	u, err := f.resume(q)
	if err != nil {
		return err
	}
	defer u.Release()
	if done, err := appendBody(w, q, u); done || err != nil {
		return err
	}
	lease, info, err := u.Commit(q.Context(), d)
	if err != nil {
		return err
	}
	defer lease.Release()
	if err := f.addLayer(q.Context(), q.repo, info); err != nil {
		return err
	}
	blobCreated(w, q, d)
	return nil
}

// received tells a body that ended early from a failure of ours.
func received(err error) error {
	if errors.Is(err, blob.ErrReceive) {
		return &ociError{http.StatusBadRequest, "SIZE_INVALID", "The body ended before it was complete."}
	}
	return err
}
