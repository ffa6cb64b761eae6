package execute

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"time"
)

// maxSpool is how much of what a session shows is kept for its object.
const maxSpool = 256 << 20

// uploadTime is how long the object of a session is tried to be written once its client has left.
const uploadTime = 2 * time.Minute

// spool is what a session shows, until its end, when it becomes an object: in a file without a name, which goes with the process. Line feeds are
// alone in it, as in logs. Not for use by several goroutines.
type spool struct {
	file    *os.File
	size    int64
	sum     hash.Hash
	pending bool  // a carriage return that may be one of a line's end
	missing int64 // bytes that had no room
	failed  error // why nothing is written any more
}

func newSpool() (*spool, error) {
	f, err := os.CreateTemp("", "neargate-session-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return &spool{file: f, sum: sha256.New()}, nil
}

// add takes a part of the output.
func (s *spool) add(data []byte) {
	if len(data) == 0 {
		return
	}
	if s.pending {
		data = append([]byte("\r"), data...)
	}
	if s.pending = data[len(data)-1] == '\r'; s.pending {
		data = data[:len(data)-1]
	}
	s.write(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
}

func (s *spool) write(data []byte) {
	if s.failed != nil {
		return
	}
	n := min(int64(len(data)), maxSpool-s.size)
	s.missing += int64(len(data)) - n
	if s.missing > int64(len(data))-n { // what comes behind what is missing is missing too
		s.missing, n = s.missing+n, 0
	}
	s.put(data[:n])
}

func (s *spool) put(data []byte) {
	if len(data) == 0 {
		return
	}
	n, err := s.file.Write(data)
	s.size += int64(n)
	s.sum.Write(data[:n])
	s.failed = err
}

// content is all of it, when nothing is added any more.
func (s *spool) content() (c Content, err error) {
	if s.pending {
		s.write([]byte("\r"))
	}
	if s.missing > 0 {
		s.put(fmt.Appendf(nil, "\n[%d bytes of output are missing here: a session's log holds %d]\n", s.missing, int64(maxSpool)))
	}
	if s.failed != nil {
		return c, fmt.Errorf("keep what the session shows: %w", s.failed)
	}
	return Content{Size: s.size, Sum: hex.EncodeToString(s.sum.Sum(nil)), ReaderAt: s.file}, nil
}

func (s *spool) close() { s.file.Close() }

// Content is what a session has shown.
type Content struct {
	Size int64
	Sum  string // SHA-256 in hexadecimal digits
	io.ReaderAt
}
