package blob

import (
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"strings"
)

// Follow opens what an upload has so far, for readers beside the one who writes. The file stays readable whatever becomes of the upload.
func (u *Upload) Follow() (*os.File, error) {
	if err := u.settle(); err != nil {
		return nil, err
	}
	f, err := os.Open(u.store.path("uploads", u.name))
	if err != nil {
		return nil, notFound("follow upload", err)
	}
	return f, nil
}

// CancelUploads removes the uploads of an owner that nobody is writing to.
func (s *Store) CancelUploads(owner string) error {
	entries, err := os.ReadDir(s.path("uploads"))
	if err != nil {
		return fmt.Errorf("list uploads: %w", err)
	}
	suffix := UploadName(owner, "")
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		s.mu.Lock()
		ses := s.sessions[e.Name()]
		busy := ses != nil && !ses.mu.TryLock()
		if !busy {
			delete(s.sessions, e.Name())
			err = os.Remove(s.path("uploads", e.Name()))
		}
		s.mu.Unlock()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cancel upload: %w", err)
		}
	}
	return nil
}

// Verifier holds what is written to it against a digest.
type Verifier struct {
	hash.Hash
	want Digest
}

// Verifier begins with no content.
func (d Digest) Verifier() *Verifier { return &Verifier{d.newHash(), d} }

// Verified says whether all that was written is the digest's content.
func (v *Verifier) Verified() bool { return digestOf(v.want.algorithm(), v.Hash) == v.want }

// Path is the digest as a path: ALGORITHM/xx/HEX.
func (d Digest) Path() string { return d.algorithm() + "/" + d.hex()[:2] + "/" + d.hex() }
