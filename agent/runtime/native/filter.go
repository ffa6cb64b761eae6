//go:build linux && cgo

package native

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Every init of a container, and of a command beside one, is given one file besides what libcontainer gives it: the first after its
// standard streams, in which libseccomp finds the compiled seccomp filter, or leaves it (seccomp.c). It does not reach the container's program.
//
// Invariant: what is loaded follows from the profile alone, whether it comes from the file or not.

const filterFile = 3

// useFilter is called in an init, before libcontainer's part.
func useFilter() {
	unix.CloseOnExec(filterFile)
	cacheFilter(filterFile)
}

// openFilter opens the file for a profile; fresh: it is an empty one in memory, for an init to fill.
func openFilter(folder string, profile *specs.LinuxSeccomp) (f *os.File, path string, fresh bool, err error) {
	if profile == nil || folder == "" {
		f, err = os.Open(os.DevNull)
		return f, "", false, err
	}
	// Another kernel or another build may make something else of it: init would see that, but not make the file anew.
	var kernel unix.Utsname
	var self unix.Stat_t
	if err := errors.Join(unix.Uname(&kernel), unix.Stat(ownProgram, &self)); err != nil {
		return nil, "", false, err
	}
	text, err := json.Marshal([]any{profile, kernel.Release, self.Ino, self.Mtim.Nano(), self.Size})
	if err != nil {
		return nil, "", false, err
	}
	path = filepath.Join(folder, fmt.Sprintf("%x", sha256.Sum256(text)))
	f, err = os.Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, path, false, err
	}
	fd, err := unix.MemfdCreate("filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, path, false, err
	}
	return os.NewFile(uintptr(fd), "filter"), path, true, nil
}

// keepFilter gives the file what an init has left.
func keepFilter(f *os.File, path string) error {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil || len(text) == 0 {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}
