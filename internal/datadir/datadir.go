// Package datadir is the layout of a data directory, its lock, and the sealing key in it:
//
//	FORMAT          what wrote it, and the directory's id
//	LOCK            flocked by the process that uses it; holds that process's id
//	keys/           0700; keys/sealing is 32 random bytes, 0600
//	state/<group>/  the replicated state
//	blobs/ streams/ bulk data
//	agent/          what the agent of this host keeps
//
// Invariants: one process at a time uses a directory; a directory of an unknown format is never touched; FORMAT is written
// last when a directory is made, so a crash in between leaves one that can be made anew.
package datadir

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/internal/id"
	"github.com/seed-2f228079/neargate/internal/seal"
)

// format is the first line of FORMAT.
const format = "neargate data 1"

// Dir is a data directory held by this process.
type Dir struct {
	path string
	id   string
	key  []byte
	lock *os.File
}

// LockedError says that another process uses the directory.
type LockedError struct {
	Path string
	PID  string // of the process that holds it; empty when it has not written it yet
}

func (e *LockedError) Error() string {
	if e.PID == "" {
		return fmt.Sprintf("data directory %s is in use by another process", e.Path)
	}
	return fmt.Sprintf("data directory %s is in use by process %s", e.Path, e.PID)
}

// Open locks the directory at path, making it first where there is none or an empty one.
func Open(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	// Before anything is written there: a mistyped --data must not leave files in somebody's home.
	if err := recognize(path); err != nil {
		return nil, err
	}
	d := &Dir{path: path}
	if d.lock, err = lock(path); err != nil {
		return nil, err
	}
	if err := d.load(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// recognize refuses a directory that is neither empty nor ours and of this format.
func recognize(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	foreign := ""
	for _, e := range entries {
		switch e.Name() {
		case "FORMAT":
			_, err := readFormat(path)
			return err
		case "LOCK", "keys", "FORMAT.new", "lost+found": // one that was being made, or a mount point
		default:
			foreign = e.Name()
		}
	}
	if foreign != "" {
		return fmt.Errorf("%s is not a data directory: it has no FORMAT but holds %s", path, foreign)
	}
	return nil
}

func lock(path string) (*os.File, error) {
	// Close-on-exec, as os opens all files: containers and shims that outlive us do not keep the lock.
	f, err := os.OpenFile(filepath.Join(path, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data directory %s: %w", path, err)
		}
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		return nil, &LockedError{Path: path, PID: strings.TrimSpace(string(holder))}
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), f.Close())
	}
	if _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), f.Close())
	}
	return f, nil
}

// readFormat is what follows the first line of FORMAT, which must be this version's.
func readFormat(path string) (rest string, err error) {
	text, err := os.ReadFile(filepath.Join(path, "FORMAT"))
	if err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	if first != format {
		return "", fmt.Errorf("data directory %s has format %q; this version knows %q: it was written by another version", path, first, format)
	}
	return rest, nil
}

// load reads FORMAT and keys, or makes them.
func (d *Dir) load() error {
	rest, err := readFormat(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return d.create()
	}
	if err != nil {
		return err
	}
	name, ok := strings.CutPrefix(strings.TrimSpace(rest), "id ")
	if !ok || name == "" {
		return fmt.Errorf("data directory %s: FORMAT has no id", d.path)
	}
	d.id = name
	if d.key, err = os.ReadFile(d.join("keys", "sealing")); err != nil {
		return fmt.Errorf("data directory: sealing key: %w", err)
	}
	if len(d.key) != seal.KeySize {
		return fmt.Errorf("data directory %s: sealing key has %d bytes, want %d", d.path, len(d.key), seal.KeySize)
	}
	return nil
}

func (d *Dir) create() error {
	if err := os.MkdirAll(d.join("keys"), 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	d.id = id.Hex(rand.Reader, 16)
	d.key = make([]byte, seal.KeySize)
	rand.Read(d.key) // never fails
	if err := WriteFile(d.join("keys", "sealing"), d.key); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if err := WriteFile(d.join("FORMAT"), fmt.Appendf(nil, "%s\nid %s\n", format, d.id)); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	return nil
}

// Path is the directory's absolute path.
func (d *Dir) Path() string { return d.path }

// ID was drawn at random when the directory was made: 16 hexadecimal digits. Names of kernel objects derive from it.
func (d *Dir) ID() string { return d.id }

// SealingKey is the key for package seal.
func (d *Dir) SealingKey() []byte { return bytes.Clone(d.key) }

// SetSealingKey keeps the key that the servers of a cluster share, in place of the one that was made with the directory.
func (d *Dir) SetSealingKey(key []byte) error {
	if len(key) != seal.KeySize {
		return fmt.Errorf("data directory %s: a sealing key of %d bytes, want %d", d.path, len(key), seal.KeySize)
	}
	if bytes.Equal(d.key, key) {
		return nil
	}
	if err := WriteFile(d.join("keys", "sealing"), key); err != nil {
		return fmt.Errorf("data directory: sealing key: %w", err)
	}
	d.key = bytes.Clone(key)
	return nil
}

// Keys is the folder of private keys; it exists.
func (d *Dir) Keys() string { return d.join("keys") }

// State is the folder of one group of the replicated state. Who uses it makes it; so with those below.
func (d *Dir) State(group string) string { return d.join("state", group) }

// Blobs is the folder of content-addressed data.
func (d *Dir) Blobs() string { return d.join("blobs") }

// Streams is the folder of append-only data.
func (d *Dir) Streams() string { return d.join("streams") }

// Agent is the folder of this host's agent.
func (d *Dir) Agent() string { return d.join("agent") }

// Cache is a folder for what can be made again; whoever uses it creates it.
func (d *Dir) Cache(name string) string { return d.join("cache", name) }

func (d *Dir) join(elem ...string) string { return filepath.Join(append([]string{d.path}, elem...)...) }

// Close gives up the lock. The file stays: removing it would let two processes lock two files of one name.
func (d *Dir) Close() error { return d.lock.Close() }

// WriteFile has name, 0600, complete and durable, or as it was.
func WriteFile(name string, data []byte) error {
	if !holds(name, data) { // a process starts on a full disk as well
		if err := replace(name, data); err != nil {
			return err
		}
	}
	folder, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// holds says whether a file is as it would be written.
func holds(name string, data []byte) bool {
	info, err := os.Lstat(name)
	if err != nil || info.Mode() != 0o600 || info.Size() != int64(len(data)) {
		return false
	}
	kept, err := os.ReadFile(name)
	return err == nil && bytes.Equal(kept, data)
}

func replace(name string, data []byte) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(name+".new", name)
	}
	return err
}
