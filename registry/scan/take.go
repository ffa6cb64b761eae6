package scan

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Layer is one layer of an image, from the bottom up.
type Layer struct {
	Digest string
	Open   func(context.Context) (io.ReadCloser, error)
}

// Limits bound what one image may cost.
type Limits struct {
	Bytes     int64 // that the layers may unpack to
	Entries   int   // in all layers
	Databases int64 // bytes of the files of package managers, all together
	Program   int64 // bytes of a program that is looked into; larger ones are passed over
}

// DefaultLimits are far above real images.
var DefaultLimits = Limits{Bytes: 64 << 30, Entries: 4_000_000, Databases: 256 << 20, Program: 1 << 30}

// found is what a file says, until a later layer replaces or removes the file.
type found struct {
	layer    string
	database []byte    // of a package manager, or os-release
	packages []Package // of a program
}

// Take reads the layers of an image and lists what it has installed. Large programs pass through the folder scratch. A layer that is no
// archive fails it, with a cause that can be shown; so does one beyond the limits. ErrUnsupported: there is nothing that scanners know of.
func Take(ctx context.Context, layers []Layer, limits Limits, scratch string) (*Inventory, error) {
	t := taking{files: map[string]found{}, folders: map[string]bool{}, left: limits, scratch: scratch}
	for _, l := range layers {
		if err := t.layer(ctx, l); err != nil {
			return nil, fmt.Errorf("read layer %s: %w", l.Digest, err)
		}
	}
	return inventory(t.files)
}

// taking is an image being read, from the bottom up.
type taking struct {
	files   map[string]found
	folders map[string]bool // that have, or had, any of files in them
	left    Limits
	scratch string
}

func (t *taking) layer(ctx context.Context, l Layer) error {
	blob, err := l.Open(ctx)
	if err != nil {
		return err
	}
	defer blob.Close()
	plain, err := unpack(blob)
	if err != nil {
		return err
	}
	defer plain.Close()
	mine := map[string]found{} // a whiteout means what lower layers have
	archive := tar.NewReader(&counted{ctx: ctx, r: plain, left: &t.left.Bytes})
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if t.left.Entries--; t.left.Entries < 0 {
			return errors.New("the image has too many files")
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		folder, base := path.Split(name)
		switch {
		case base == ".wh..wh..opq":
			t.removeBelow(strings.TrimSuffix(folder, "/"))
			continue
		case strings.HasPrefix(base, ".wh."):
			t.remove(folder + strings.TrimPrefix(base, ".wh."))
			continue
		}
		if h.Typeflag != tar.TypeDir { // whatever was there before is not any more
			delete(mine, name)
			t.remove(name)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		f, err := t.look(archive, h, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if f != nil {
			f.layer = l.Digest
			mine[name] = *f
		}
	}
	for name, f := range mine {
		t.files[name] = f
		for dir := path.Dir(name); dir != "." && !t.folders[dir]; dir = path.Dir(dir) {
			t.folders[dir] = true
		}
	}
	return nil
}

// remove forgets a file, or a folder with all in it.
func (t *taking) remove(name string) {
	delete(t.files, name)
	t.removeBelow(name)
}

func (t *taking) removeBelow(folder string) {
	switch {
	case folder == "":
		clear(t.files)
	case t.folders[folder]:
		maps.DeleteFunc(t.files, func(name string, _ found) bool { return strings.HasPrefix(name, folder+"/") })
	}
}

// look reads a file that says something; nil: it does not.
func (t *taking) look(r io.Reader, h *tar.Header, name string) (*found, error) {
	switch {
	case isDatabase(name):
		if t.left.Databases -= h.Size; t.left.Databases < 0 {
			return nil, errors.New("the image says too much about what it has installed")
		}
		b, err := io.ReadAll(r)
		return &found{database: b}, err
	case h.Mode&0o111 != 0 && h.Size > 4096 && h.Size <= t.left.Program:
		return program(r, h.Size, t.scratch)
	}
	return nil, nil
}

func isDatabase(name string) bool {
	switch name {
	case "etc/os-release", "usr/lib/os-release", dpkgStatus, apkInstalled, apkInstalledNew:
		return true
	}
	// Distroless images have a file a package.
	return strings.HasPrefix(name, dpkgStatusFolder) && !strings.HasSuffix(name, ".md5sums")
}

var elf = []byte("\x7fELF")

// inMemory is how large a program may be to be looked into without a file.
const inMemory = 4 << 20

// program reads what Go's linker has written into a program about the modules in it. The place of that is told at the program's end.
func program(r io.Reader, size int64, scratch string) (*found, error) {
	b := bufio.NewReaderSize(r, 4096)
	if head, err := b.Peek(len(elf)); err != nil || !bytes.Equal(head, elf) {
		return nil, nil
	}
	var at io.ReaderAt
	if size <= inMemory {
		content, err := io.ReadAll(b)
		if err != nil {
			return nil, err
		}
		at = bytes.NewReader(content)
	} else {
		f, err := os.CreateTemp(scratch, "program-")
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if err := os.Remove(f.Name()); err != nil { // it lives as long as it is open
			return nil, err
		}
		if _, err := io.Copy(f, b); err != nil {
			return nil, err
		}
		at = f
	}
	info, err := buildinfo.Read(at)
	if err != nil {
		return nil, nil // not made by Go, or stripped of it
	}
	return &found{packages: modules(info)}, nil
}

// unpack undoes a layer's compression, by what the bytes are: media types are not always right.
func unpack(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(4)
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		return gzip.NewReader(b)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	}
	return io.NopCloser(b), nil
}

// counted ends a stream that is longer than it may be, or not wanted any more.
type counted struct {
	ctx  context.Context
	r    io.Reader
	left *int64
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if *c.left -= int64(n); *c.left < 0 {
		return 0, errors.New("the image unpacks to too much")
	}
	return n, err
}
