package scan

import (
	"archive/zip"
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
)

// An index is a file: indexFormat, then advisories as JSON, then a table of where each begins, sorted by the package, then an indexMeta as JSON
// and the length of that in four bytes.
const (
	indexFormat = "neargate osv index 1\n"
	maxRecord   = 32 << 20 // of OSV
)

type indexMeta struct {
	Updated time.Time `json:"updated"` // the latest change of a record
	Table   int64     `json:"table"`   // where it begins
	Entries int64     `json:"entries"`
}

// entry is a line of the table.
type entry struct {
	key    uint64 // of ecosystem and package
	offset uint64
	length uint32
}

const entrySize = 8 + 8 + 4

// keyOf may be the same for two packages: the advisories say which they are about.
func keyOf(ecosystem, name string) uint64 {
	sum := sha256.Sum256([]byte(ecosystem + "\x00" + name))
	return binary.BigEndian.Uint64(sum[:])
}

// index is an open one. What it says does not change.
type index struct {
	version string
	meta    indexMeta
	f       *os.File
	refs    int // of the Database, under its lock
}

func openIndex(path, version string) (*index, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	x := &index{version: version, f: f, refs: 1}
	if err := x.readMeta(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return x, nil
}

func (x *index) readMeta() error {
	st, err := x.f.Stat()
	if err != nil {
		return err
	}
	var length [4]byte
	if _, err := x.f.ReadAt(length[:], st.Size()-4); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(length[:]))
	if n > st.Size()-4 {
		return errors.New("it is damaged")
	}
	meta := make([]byte, n)
	if _, err := x.f.ReadAt(meta, st.Size()-4-n); err != nil {
		return err
	}
	return json.Unmarshal(meta, &x.meta)
}

func (x *index) drop() error {
	if x.refs--; x.refs > 0 {
		return nil
	}
	return x.f.Close()
}

// lookup finds what is known of a package.
func (x *index) lookup(ecosystem, name string) (out []advisory, err error) {
	key := keyOf(ecosystem, name)
	at := func(i int) (e entry) {
		var b [entrySize]byte
		if _, failed := x.f.ReadAt(b[:], x.meta.Table+int64(i)*entrySize); failed != nil {
			err = failed
		}
		return entry{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:])}
	}
	first := sort.Search(int(x.meta.Entries), func(i int) bool { return at(i).key >= key })
	for i := first; i < int(x.meta.Entries) && err == nil; i++ {
		e := at(i)
		if e.key != key || err != nil {
			break
		}
		text := make([]byte, e.length)
		if _, err := x.f.ReadAt(text, int64(e.offset)); err != nil {
			return nil, err
		}
		var a advisory
		if err := json.Unmarshal(text, &a); err != nil {
			return nil, err
		}
		if a.Ecosystem == ecosystem && a.Package == name {
			out = append(out, a)
		}
	}
	return out, err
}

// build makes an index of files at path. It is there whole or not at all.
func build(ctx context.Context, files []string, folder, path string) (err error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(folder, "new-")
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	b := builder{w: bufio.NewWriterSize(f, 1<<20)}
	b.write([]byte(indexFormat))
	for _, name := range files {
		if err := b.add(ctx, name); err != nil {
			return err
		}
	}
	if err := errors.Join(b.finish(), f.Sync()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

type builder struct {
	w     *bufio.Writer
	at    int64
	table []entry
	meta  indexMeta
	err   error // of the first write that failed
}

func (b *builder) write(p []byte) {
	if b.err != nil {
		return
	}
	n, err := b.w.Write(p)
	b.at, b.err = b.at+int64(n), err
}

func (b *builder) add(ctx context.Context, name string) error {
	if strings.EqualFold(filepath.Ext(name), ".json") {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return b.record(ctx, name, f)
	}
	z, err := zip.OpenReader(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer z.Close()
	for _, member := range z.File {
		if !strings.EqualFold(filepath.Ext(member.Name), ".json") {
			continue
		}
		r, err := member.Open()
		if err == nil {
			err = errors.Join(b.record(ctx, name+"!"+member.Name, r), r.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) record(ctx context.Context, name string, r io.Reader) error {
	if err := cmp.Or(ctx.Err(), b.err); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxRecord+1))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > maxRecord {
		return fmt.Errorf("%s has more than %d bytes", name, maxRecord)
	}
	list, modified, err := advisories(text)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if modified.After(b.meta.Updated) {
		b.meta.Updated = modified
	}
	for _, a := range list {
		line, err := json.Marshal(a)
		if err != nil {
			return err
		}
		b.table = append(b.table, entry{keyOf(a.Ecosystem, a.Package), uint64(b.at), uint32(len(line))})
		b.write(line)
	}
	return nil
}

func (b *builder) finish() error {
	slices.SortStableFunc(b.table, func(x, y entry) int { return cmp.Compare(x.key, y.key) })
	b.meta.Table, b.meta.Entries = b.at, int64(len(b.table))
	var line [entrySize]byte
	for _, e := range b.table {
		binary.BigEndian.PutUint64(line[:], e.key)
		binary.BigEndian.PutUint64(line[8:], e.offset)
		binary.BigEndian.PutUint32(line[16:], e.length)
		b.write(line[:])
	}
	meta, err := json.Marshal(b.meta)
	if err != nil {
		return err
	}
	b.write(meta)
	b.write(binary.BigEndian.AppendUint32(nil, uint32(len(meta))))
	return errors.Join(b.err, b.w.Flush())
}
