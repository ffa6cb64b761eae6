//go:build linux && cgo

package native

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ownProgram is this process's own.
const ownProgram = "/proc/self/exe"

// program is what shims and the inits of their containers execute. It is unpacked in the background, for the first task to find it there;
// where that fails, this process's own program does it as well, only more slowly.
func (d *Driver) program() string {
	if d.cfg.Shim == "" {
		return ownProgram
	}
	path, err := installProgram(filepath.Join(d.cfg.Dir, "bin"), d.cfg.Shim)
	if err != nil {
		d.cfg.Logger.Warn("tasks start more slowly: the shim's program cannot be used", "error", err)
		return ownProgram
	}
	return path
}

// installProgram keeps one file, named after the program that brought it, so that a start need not read what it carries.
// Programs of earlier versions that still run need their file no more.
func installProgram(dir, compressed string) (string, error) {
	if len(compressed) < 4 {
		return "", io.ErrUnexpectedEOF
	}
	size := int64(binary.LittleEndian.Uint32([]byte(compressed[len(compressed)-4:]))) // how gzip ends
	var self unix.Stat_t
	if err := unix.Stat(ownProgram, &self); err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("shim-%x-%x-%x", self.Ino, self.Mtim.Nano(), size))
	if st, err := os.Stat(path); err == nil && st.Size() == size {
		return path, unix.Access(path, unix.X_OK)
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return "", err
	}
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o700)
	if err != nil {
		return "", err
	}
	// Containers of any user execute it (held.go), by a descriptor: the folder is closed to them.
	err = errors.Join(unpackProgram(f, compressed), f.Chmod(0o755))
	// Synced: a name without its content after a crash of the host would be taken for the program.
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return "", err
	}
	return path, unix.Access(path, unix.X_OK) // not on a file system mounted noexec
}

func unpackProgram(w io.Writer, compressed string) error {
	r, err := gzip.NewReader(strings.NewReader(compressed))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}
