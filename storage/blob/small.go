package blob

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/seed-2f228079/neargate/storage/blob/pack"
)

// Small blobs are kept together in a log of segments (package pack) rather than in a file each: one that arrives costs an append to a file that is
// open, and an fsync that it shares with all that arrive just then. Those that have files, from before there was a log, are served from
// them until they are pushed again.

// defaultSmall is the size up to which a blob is small.
const defaultSmall = 64 << 10

// key is the digest as package pack knows it.
func (d Digest) key() []byte {
	b, err := hex.DecodeString(d.hex())
	if err != nil {
		panic(err) // a Digest is only made by ParseDigest or by hashing
	}
	return b
}

// digestOfKey is the digest of a hash, which is its key.
func digestOfKey(algorithm string, key []byte) Digest {
	var d [len("sha512:") + 2*sha512.Size]byte
	n := copy(d[:], algorithm)
	d[n] = ':'
	n++
	return Digest(d[:n+hex.Encode(d[n:], key)])
}

// statSmall is Stat of the log.
func (s *Store) statSmall(d Digest) (Info, bool) {
	info, ok := s.log.Stat(d.key())
	return Info{d, info.Size, info.Modified}, ok
}

// readSmall is the content of a blob in the log. One that has rotted is put aside, unless it is leased; it is ErrNotFound or an error, never
// wrong bytes.
func (s *Store) readSmall(d Digest) ([]byte, Info, error) {
	data, info, err := s.log.Get(d.key())
	switch {
	case errors.Is(err, pack.ErrNotFound):
		return nil, Info{}, ErrNotFound
	case errors.Is(err, pack.ErrRotten):
		if done, qerr := s.quarantineSmall(d, data, info); !done {
			return nil, Info{}, fmt.Errorf("open blob: %w", errors.Join(err, qerr))
		}
		return nil, Info{}, ErrNotFound
	case err != nil:
		return nil, Info{}, fmt.Errorf("open blob: %w", err)
	}
	return data, Info{d, info.Size, info.Modified}, nil
}

// inMemory is a small blob that is open.
type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// putSmall makes b, whose digest was compared, the blob d: lease, append and sync. A file of that blob goes.
func (s *Store) putSmall(ctx context.Context, d Digest, b []byte) (*Lease, Info, error) {
	lease, err := s.Lease(ctx, d)
	if err != nil {
		return nil, Info{}, err
	}
	info, err := s.log.Put(d.key(), b)
	if err != nil {
		lease.Release()
		return nil, Info{}, noSpace("keep a small blob", err)
	}
	if s.folder(d).Load() {
		// Nothing is lost if it stays: All, Stat and Open ask the log first, Delete removes both.
		_ = os.Remove(s.blobPath(d))
	}
	return lease, Info{d, info.Size, info.Modified}, nil
}

// readUpTo reads r up to its end, or until there are more than limit bytes in buf. Its error is ErrReceive.
func readUpTo(r io.Reader, buf []byte, limit int64) (n int, ended bool, err error) {
	for int64(n) <= limit {
		m, err := r.Read(buf[n : limit+1])
		n += m
		if err == io.EOF {
			return n, int64(n) <= limit, nil
		}
		if err != nil {
			return n, false, fmt.Errorf("%w: %w", ErrReceive, err)
		}
	}
	return n, false, nil
}

// touchSmall reports whether the blob is in the log.
func (s *Store) touchSmall(d Digest) (bool, error) {
	err := s.log.Touch(d.key())
	if errors.Is(err, pack.ErrNotFound) || errors.Is(err, pack.ErrRotten) { // a rotten one is to be brought again
		return false, nil
	}
	if err != nil {
		return false, noSpace("touch blob", err)
	}
	return true, nil
}

// deleteSmall removes the blob from the log, if it is there. Nobody holds a lease.
func (s *Store) deleteSmall(d Digest) (bool, error) {
	info, ok := s.log.Stat(d.key())
	for ok {
		removed, err := s.log.Remove(d.key(), info)
		if removed || err != nil {
			return removed, err
		}
		info, ok = s.log.Stat(d.key()) // a compaction has moved it
	}
	return false, nil
}

// checkSmall is Check of the log.
func (s *Store) checkSmall(ctx context.Context, d Digest, pace func(ctx context.Context, n int) error) (rotten bool, err error) {
	data, info, err := s.log.Check(d.key(), uncacheRange)
	if err != nil && !errors.Is(err, pack.ErrRotten) {
		return false, fmt.Errorf("check blob: %w", err)
	}
	if perr := pace(ctx, len(data)); perr != nil {
		return false, perr
	}
	if err == nil && (data == nil && info.Size > 0 || SumAs(d, data) == d) {
		return false, nil // good, or no more what it was
	}
	return s.quarantineSmall(d, data, info)
}

// quarantineSmall puts what was seen in the log aside, unless another has taken its place by now.
func (s *Store) quarantineSmall(d Digest, data []byte, seen pack.Info) (done bool, err error) {
	err = s.exclusively(d, func() error {
		if now, ok := s.log.Stat(d.key()); !ok || now != seen {
			return nil
		}
		folder := s.path("quarantine")
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(s.quarantinePath(d), data, 0o600); err != nil {
			return err
		}
		if err := errors.Join(syncDir(folder), syncDir(filepath.Dir(folder))); err != nil {
			return err
		}
		done, err = s.log.Remove(d.key(), seen)
		return err
	})
	if err != nil && !errors.Is(err, ErrLeased) {
		err = fmt.Errorf("put a rotten blob aside: %w", err)
	}
	return done, err
}

// Compact gives back the room of small blobs that were deleted, beside everything else.
func (s *Store) Compact(ctx context.Context) (freed int64, err error) {
	freed, err = s.log.Compact(ctx)
	if err != nil {
		err = noSpace("compact the small blobs", err)
	}
	return freed, err
}
