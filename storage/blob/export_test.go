package blob

import "github.com/seed-2f228079/neargate/storage/blob/pack"

// Named has files written under a name from the start, as where the file system cannot do otherwise.
func (s *Store) Named() { s.unnamed = false }

// Unnamed says whether files are written without a name.
func (s *Store) Unnamed() bool { return s.unnamed }

// SegmentBytes opens the log of small blobs anew, with segments of this size.
func (s *Store) SegmentBytes(n int64) (err error) {
	s.log.Close()
	s.log, err = pack.Open(s.path("small"), pack.Options{SegmentBytes: n})
	return err
}

// Held is how much memory upload sessions take.
func (s *Store) Held() int64 { return s.memory.used.Load() }
