// Package logs takes what containers write: it keeps it on the host, for `neargate logs` and for who ships it, and sends it where the log
// driver of the container says (output.go).
//
// On the host a log is one line a record, in the CRI format ("2026-01-02T15:04:05.123456789Z stdout F text") or, with the driver
// json-file, in Docker's ({"log":"text\n","stream":"stdout","time":"…"}); other tools read both. A log is a current file and older ones ("name.log",
// "name.log.1", …), each below a limit.
//
// Invariants: a record is written with one write call, so that a reader sees whole records but for the last one;
// a file is only appended to, then renamed, then removed; no two records of a writer have the same time, and later ones have
// later times whatever the clock does: a record's time says how far a log has been read. Nothing grows: what has no room holds up
// who writes, or is dropped and counted, as the driver's mode says.
package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// Writer appends to one container's log. The zero value keeps nothing.
type Writer struct {
	path  string
	limit int64 // of one file
	older int   // files beside the current one
	json  bool
	attrs []byte // of every record, with json

	// shipping: what is in the log goes elsewhere too, and Shipped says how far. With waits no file goes before all of it did.
	shipping, waits bool
	ended           chan struct{} // closed by Ended; nil: never
	endOnce         sync.Once

	mu      sync.Mutex
	file    *os.File
	size    int64
	last    time.Time // of the last record
	begun   bool      // this writer has begun the current file: lastOld is known
	lastOld time.Time // of the last record in the newest of the older files
	dropped int64     // records that were not shipped when their file went; who ships may have it open still
}

// Discard is a log that keeps nothing.
func Discard() *Writer { return &Writer{} }

// Open continues the log at path, which may take limit bytes in all (0: DefaultLimit).
func Open(path string, limit int64) (*Writer, error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	w := &Writer{}
	return w, w.open(path, limit/2, 1)
}

func (w *Writer) open(path string, limit int64, older int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	w.path, w.limit, w.older, w.file, w.size = path, limit, older, f, st.Size()
	return nil
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
			text, behind, goesOn := cutLine(rest, err != nil)
			if text == nil {
				break
			}
			w.record(&out, w.tick(), stderr, text, goesOn)
			rest = behind
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

// cutLine takes the first line of b, or the first part of a long one; nil: there is no whole one. At the end everything is a line.
func cutLine(b []byte, end bool) (text, rest []byte, goesOn bool) {
	switch i := bytes.IndexByte(b, '\n'); {
	case i >= 0 && i <= MaxLine:
		return b[:i:i], b[i+1:], false
	case len(b) > MaxLine:
		return b[:MaxLine:MaxLine], b[MaxLine:], true
	case end && len(b) > 0:
		return b, b[len(b):], false
	}
	return nil, b, false
}

func (w *Writer) record(out *bytes.Buffer, at time.Time, stderr bool, text []byte, partial bool) {
	if w.json {
		jsonRecord(out, at, stderr, text, partial, w.attrs)
		return
	}
	record(out, at, stderr, text, partial)
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
	if !w.mayDrop() {
		return false
	}
	for i := w.older; i > 0; i-- {
		if err := os.Rename(older(w.path, i-1), older(w.path, i)); err != nil && !(i > 1 && errors.Is(err, fs.ErrNotExist)) {
			return false
		}
	}
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return false
	}
	w.file.Close()
	w.file, w.size = f, 0
	w.begun, w.lastOld = true, w.last
	if n := w.dropped; n > 0 {
		w.dropped = 0
		var b bytes.Buffer
		w.record(&b, w.tick(), true, fmt.Appendf(nil, "neargate: log driver awslogs may have lost %d lines: they were not taken in time", n), false)
		k, _ := w.file.Write(b.Bytes())
		w.size += int64(k)
	}
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
