package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// reference reads a manifest's reference: a digest, or a tag.
func (q *request) reference() (digest blob.Digest, tag string, err error) {
	if strings.Contains(q.ref, ":") {
		digest, err = q.digest(q.ref)
		return digest, "", err
	}
	if err := checkTag(q.ref); err != nil {
		return "", "", &ociError{http.StatusBadRequest, "TAG_INVALID", err.(*awserr.Error).Message}
	}
	return "", q.ref, nil
}

// readReference is reference for reads: what cannot be a name is not there.
func (q *request) readReference() (digest blob.Digest, tag string, err error) {
	digest, tag, err = q.reference()
	if err != nil && digest == "" && !strings.Contains(q.ref, ":") {
		return "", "", imageNotFound(q.repo, "", q.ref)
	}
	return digest, tag, err
}

// getManifest sends a manifest as it was pushed, whatever the client accepts: digests do not survive a conversion.
func (f front) getManifest(w http.ResponseWriter, q *request) error {
	digest, tag, err := q.readReference()
	if err != nil {
		return err
	}
	v := f.Store.View()
	m, err := image(v, q.repo, string(digest), tag)
	if err != nil {
		return err
	}
	if err := pullable(q.repo, m); err != nil {
		return err
	}
	if q.pull != "" { // it is for a task
		if err := f.trusted(q.Context(), v, q.repo, m); err != nil {
			return err
		}
		if err := f.gate(v, q.repo, m); err != nil {
			return err
		}
	}
	h := w.Header()
	h.Set("Content-Type", m.MediaType)
	h.Set("Content-Length", strconv.FormatUint(m.Size, 10))
	h.Set(digestHeader, m.Digest)
	h.Set("ETag", `"`+m.Digest+`"`)
	if q.Method == http.MethodHead {
		return nil
	}
	body, err := f.content(q.Context(), m)
	if err != nil {
		return err
	}
	f.notePull(v, m, q.who.ARN)
	w.Write(body)
	return nil
}

func (f front) putManifest(w http.ResponseWriter, q *request) error {
	digest, tag, err := q.reference()
	if err != nil {
		return err
	}
	p := push{mediaType: q.Header.Get("Content-Type"), digest: digest, tags: q.URL.Query()["tag"], maySign: f.maySign(q.Context(), f.call(q.Request, q.caller, signPayload))}
	if tag != "" {
		p.tags = append(p.tags, tag)
	}
	if len(p.tags) > 10 {
		return &ociError{http.StatusRequestURITooLong, "UNSUPPORTED", "At most 10 tags can be pushed at once."}
	}
	p.body, err = io.ReadAll(http.MaxBytesReader(w, q.Body, maxManifestBytes))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); !ok {
			return &ociError{http.StatusBadRequest, "SIZE_INVALID", "The body ended before it was complete."}
		}
		return err
	}
	m, err := f.putImage(q.Context(), q.repo, p)
	if awserr.Is(err, "LayersNotFoundException") {
		return &ociError{http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", err.(*awserr.Error).Message}
	}
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Location", "/v2/"+q.name+"/manifests/"+m.Digest)
	h.Set(digestHeader, m.Digest)
	if m.Subject != "" {
		h.Set("OCI-Subject", m.Subject)
	}
	if digest != "" {
		for _, t := range p.tags {
			h.Add("OCI-Tag", t)
		}
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// deleteManifest deletes a manifest with its tags, or only a tag.
func (f front) deleteManifest(w http.ResponseWriter, q *request) error {
	digest, tag, err := q.readReference()
	if err != nil {
		return err
	}
	if tag != "" {
		_, err = f.removeTag(q.Context(), q.repo, tag, false)
	} else {
		_, _, err = f.removeImage(q.Context(), q.repo, string(digest), nil)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// pageOf reads n and last of a listing. n beyond most is cut, not refused.
func (q *request) pageOf(fallback, most int) (n int, last string, err error) {
	return pageQuery(q.Request, fallback, most)
}

func pageQuery(hr *http.Request, fallback, most int) (n int, last string, err error) {
	n = fallback
	if s := hr.URL.Query().Get("n"); s != "" {
		n, err = strconv.Atoi(s)
		if err != nil || n < 0 {
			return 0, "", &ociError{http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", fmt.Sprintf("n is %q, not a number of items", s)}
		}
	}
	return min(n, most), hr.URL.Query().Get("last"), nil
}
