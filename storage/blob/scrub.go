package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Check reads a blob again and holds it against its digest. What has rotted, or cannot be read any more, is put aside at once (see
// Quarantined), so that it reads as absent and the next copy that comes takes its place. pace is told what was read, and may slow it down.
//
// A blob that is leased just then is ErrLeased: somebody is about to refer to it.
func (s *Store) Check(ctx context.Context, d Digest, pace func(ctx context.Context, n int) error) (rotten bool, err error) {
	if _, ok := s.statSmall(d); ok {
		return s.checkSmall(ctx, d, pace)
	}
	f, err := os.Open(s.blobPath(d))
	if err != nil {
		return false, notFound("check blob", err)
	}
	defer f.Close()
	seen, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("check blob: %w", err)
	}
	uncacheRange(f, 0, 0)
	defer uncacheRange(f, 0, 0)
	h := d.newHash()
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	for {
		n, err := f.Read(buf[:])
		h.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if errors.Is(err, syscall.EIO) { // the disk has lost it
			return s.quarantine(d, seen)
		}
		if err != nil {
			return false, fmt.Errorf("check blob: %w", err)
		}
		if err := pace(ctx, n); err != nil {
			return false, err
		}
	}
	if digestOf(d.algorithm(), h) == d {
		return false, nil
	}
	return s.quarantine(d, seen)
}

// quarantine puts the file that was seen aside, unless another has taken its place by now.
func (s *Store) quarantine(d Digest, seen fs.FileInfo) (done bool, err error) {
	err = s.exclusively(d, func() error {
		now, err := os.Stat(s.blobPath(d))
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(seen, now) {
			return nil
		}
		if err != nil {
			return err
		}
		folder := s.path("quarantine")
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		if err := os.Rename(s.blobPath(d), s.quarantinePath(d)); err != nil {
			return err
		}
		done = true
		return errors.Join(syncDir(folder), syncDir(filepath.Dir(s.blobPath(d))))
	})
	if err != nil && !errors.Is(err, ErrLeased) {
		err = fmt.Errorf("put a rotten blob aside: %w", err)
	}
	return done, err
}

func (s *Store) quarantinePath(d Digest) string {
	return s.path("quarantine", d.algorithm()+"-"+d.hex())
}

// Quarantined are the digests whose rotten files are put aside.
func (s *Store) Quarantined() ([]Digest, error) {
	entries, err := os.ReadDir(s.path("quarantine"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list rotten blobs: %w", err)
	}
	var list []Digest
	for _, e := range entries {
		algorithm, hex, _ := strings.Cut(e.Name(), "-")
		if d, err := ParseDigest(algorithm + ":" + hex); err == nil {
			list = append(list, d)
		}
	}
	return list, nil
}

// Discard removes a rotten file that is put aside.
func (s *Store) Discard(d Digest) error {
	if err := os.Remove(s.quarantinePath(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a rotten blob: %w", err)
	}
	return nil
}
