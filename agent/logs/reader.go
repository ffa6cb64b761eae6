package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// A follower looks for a new line soon after the last one, and less often the longer none comes: many are followed, to be shipped.
const (
	pollInterval = 40 * time.Millisecond
	idleInterval = 320 * time.Millisecond
)

// Reader reads one log.
type Reader struct {
	ctx  context.Context
	path string
	opt  runtime.LogOptions
	// ended is closed once the container has ended and everything it wrote is in the file; nil when not following.
	ended <-chan struct{}

	file    *os.File
	in      *bufio.Reader
	part    []byte // of a record whose end is not written yet
	pending []runtime.LogLine
}

// Read opens the log at path. Following ends when ended is closed and all was read, or ctx is done.
func Read(ctx context.Context, path string, opt runtime.LogOptions, ended <-chan struct{}) (*Reader, error) {
	r := &Reader{ctx: ctx, path: path, opt: opt}
	if err := r.open(); err != nil {
		return nil, err
	}
	if opt.Tail > 0 {
		if err := r.tail(); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	if opt.Follow {
		r.ended = ended
	}
	return r, nil
}

// open begins with the oldest file. While it looks the files may be given their next names: then it looks again, or it would begin with a newer one.
func (r *Reader) open() error {
	for {
		n, err := oldest(r.path)
		if err != nil {
			return err
		}
		f, failed := os.Open(older(r.path, n))
		now, err := oldest(r.path)
		switch {
		case failed == nil && err == nil && now == n:
			r.use(f)
			return nil
		case failed == nil:
			f.Close()
		case n == 0 && now == 0, !errors.Is(failed, fs.ErrNotExist):
			return failed
		}
		if err != nil {
			return err
		}
	}
}

// oldest is the number of the oldest file; 0: there is the current one at most. Numbers may be missing for a moment.
func oldest(path string) (n int, err error) {
	base := filepath.Base(path)
	entries, err := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		if number, ok := strings.CutPrefix(e.Name(), base+"."); ok {
			if i, err := strconv.Atoi(number); err == nil {
				n = max(n, i)
			}
		}
	}
	return n, err
}

// older is the name of the n-th of the older files, the newest being 1; of 0 it is the current one.
func older(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

func (r *Reader) use(f *os.File) {
	if r.file != nil {
		r.file.Close()
	}
	r.file, r.in, r.part = f, bufio.NewReaderSize(f, 64<<10), nil
}

// tail reads to the end and keeps the last lines; the parts of a long line count as one.
func (r *Reader) tail() error {
	var keep []runtime.LogLine
	whole := 0
	for {
		l, err := r.stored()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		keep = append(keep, l)
		if !l.Partial {
			whole++
		}
		for whole > r.opt.Tail {
			for keep[0].Partial {
				keep = keep[1:]
			}
			keep, whole = keep[1:], whole-1
		}
	}
	r.pending = keep
	return nil
}

// Next yields the next line, or io.EOF.
func (r *Reader) Next() (runtime.LogLine, error) {
	if len(r.pending) > 0 {
		l := r.pending[0]
		r.pending = r.pending[1:]
		return l, nil
	}
	last := false
	for wait := pollInterval; ; wait = min(2*wait, idleInterval) {
		l, err := r.stored()
		if !errors.Is(err, io.EOF) || r.ended == nil || last {
			return l, err
		}
		select {
		case <-r.ctx.Done():
			return runtime.LogLine{}, io.EOF
		case <-r.ended:
			last = true // one more look: the last lines may have come since
		case <-time.After(wait):
		}
	}
}

// stored yields the next record on disk that was asked for, or io.EOF.
func (r *Reader) stored() (runtime.LogLine, error) {
	for {
		b, err := r.in.ReadSlice('\n')
		r.part = append(r.part, b...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			if err := r.advance(); err != nil {
				return runtime.LogLine{}, err
			}
			continue
		case err != nil:
			return runtime.LogLine{}, err
		}
		l, ok := parse(bytes.TrimSuffix(r.part, []byte("\n")))
		r.part = r.part[:0]
		if ok && !l.At.Before(r.opt.Since) {
			return l, nil
		}
	}
}

// advance goes from a finished file to its successor; io.EOF when there is none.
func (r *Reader) advance() error {
	have, err := r.file.Stat()
	if err != nil {
		return err
	}
	next, err := r.successor(have)
	if err != nil {
		return err
	}
	// The file was renamed after we had read to its end: whatever was appended in between comes first.
	if pos, err := r.file.Seek(0, io.SeekCurrent); err != nil || pos < have.Size() {
		next.Close()
		return err
	}
	r.use(next)
	return nil
}

// successor opens the file that follows the one that is read; the oldest if that is gone.
func (r *Reader) successor(have os.FileInfo) (*os.File, error) {
	var newer *os.File
	for n := 0; ; n++ {
		f, err := os.Open(older(r.path, n))
		if errors.Is(err, fs.ErrNotExist) {
			if newer == nil {
				return nil, io.EOF
			}
			return newer, nil
		}
		if err == nil {
			var st os.FileInfo
			if st, err = f.Stat(); err == nil && os.SameFile(have, st) {
				f.Close()
				if newer == nil {
					return nil, io.EOF
				}
				return newer, nil
			}
		}
		if newer != nil {
			newer.Close()
		}
		if newer = f; err != nil {
			return nil, err
		}
	}
}

// Close releases the file.
func (r *Reader) Close() error { return r.file.Close() }

func parse(b []byte) (runtime.LogLine, bool) {
	if len(b) > 0 && b[0] == '{' {
		return parseJSON(b)
	}
	f := bytes.SplitN(b, []byte(" "), 4)
	if len(f) != 4 {
		return runtime.LogLine{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(f[0]))
	return runtime.LogLine{At: at, Stderr: string(f[1]) == "stderr", Partial: string(f[2]) == "P", Text: string(f[3])}, err == nil
}
