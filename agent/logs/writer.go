// Package logs keeps what containers write, one line a record, in the CRI format ("2026-01-02T15:04:05.123456789Z stdout F
// text"), which other tools read too. A log is a current file and one older one ("name.log", "name.log.1"); together they
// stay below the limit. The writer never blocks a container: what cannot be written is dropped.
//
// Invariants: a record is written with one write call, so that a reader sees whole records but for the last one;
// a file is only appended to, then renamed once, then removed; no two records of a writer have the same time, and later ones have
// later times whatever the clock does: a record's time says how far a log has been read.
package logs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// MaxLine is the longest text of one record; longer lines are stored in parts.
const MaxLine = 16 << 10

// DefaultLimit is how much one container's log may take on disk.
const DefaultLimit = 20 << 20

const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// Writer appends to one container's log.
type Writer struct {
	path  string
	limit int64 // of one file

	mu   sync.Mutex
	file *os.File
	size int64
	last time.Time // of the last record
}

// Discard is a log that keeps nothing.
func Discard() *Writer { return &Writer{} }

// Open continues the log at path, which may take limit bytes in all (0: DefaultLimit).
func Open(path string, limit int64) (*Writer, error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Writer{path: path, limit: limit / 2, file: f, size: st.Size()}, nil
}

// Copy stores what r yields, line by line, until it ends. Lines carry the time at which they were read, or one a little later.
func (w *Writer) Copy(r io.Reader, stderr bool) {
	buf := make([]byte, 0, 2*MaxLine)
	var out bytes.Buffer
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		rest := buf
		w.mu.Lock()
		for {
			i := bytes.IndexByte(rest, '\n')
			switch {
			case i >= 0 && i <= MaxLine:
				record(&out, w.tick(), stderr, rest[:i], false)
				rest = rest[i+1:]
				continue
			case len(rest) > MaxLine:
				record(&out, w.tick(), stderr, rest[:MaxLine], true)
				rest = rest[MaxLine:]
				continue
			}
			break
		}
		if err != nil && len(rest) > 0 {
			record(&out, w.tick(), stderr, rest, false)
		}
		w.write(out.Bytes())
		w.mu.Unlock()
		out.Reset()
		buf = buf[:copy(buf, rest)]
		if err != nil {
			return
		}
	}
}

func record(out *bytes.Buffer, at time.Time, stderr bool, text []byte, partial bool) {
	out.Write(at.AppendFormat(out.AvailableBuffer(), timeFormat))
	if stderr {
		out.WriteString(" stderr ")
	} else {
		out.WriteString(" stdout ")
	}
	if partial {
		out.WriteString("P ")
	} else {
		out.WriteString("F ")
	}
	out.Write(text)
	out.WriteByte('\n')
}

// tick is the next record's time. w.mu is held.
func (w *Writer) tick() time.Time {
	at := time.Now().UTC()
	if !at.After(w.last) {
		at = w.last.Add(1)
	}
	w.last = at
	return at
}

// write appends records. w.mu is held.
func (w *Writer) write(b []byte) {
	if len(b) == 0 || w.file == nil {
		return
	}
	for len(b) > 0 {
		part := b
		if room := w.limit - w.size; int64(len(b)) > room {
			// The records that fit; a file has one at least.
			end := bytes.LastIndexByte(b[:max(room, 0)], '\n') + 1
			if end == 0 && w.size > 0 && w.rotate() {
				continue
			}
			if end == 0 {
				end = bytes.IndexByte(b, '\n') + 1
			}
			part = b[:end]
		}
		n, _ := w.file.Write(part)
		w.size += int64(n)
		b = b[len(part):]
	}
}

// rotate starts a new file, or says that it cannot: then the log goes on in the old one.
func (w *Writer) rotate() bool {
	if err := os.Rename(w.path, w.path+".1"); err != nil {
		return false
	}
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return false
	}
	w.file.Close()
	w.file, w.size = f, 0
	return true
}

// Close ends writing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}
