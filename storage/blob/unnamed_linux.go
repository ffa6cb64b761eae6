package blob

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// createUnnamed makes a file that has no name until linkUnnamed gives it one: on ext4 half the work of a file that is created
// under one name and renamed to another, and nothing is left of it after a crash.
func createUnnamed(folder string) (*os.File, error) {
	fd, err := unix.Open(folder, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create unnamed file", Path: folder, Err: err}
	}
	return os.NewFile(uintptr(fd), folder+"/(unnamed)"), nil
}

// linkUnnamed fails with fs.ErrExist where something has the name.
func linkUnnamed(f *os.File, name string) error {
	err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return nil
}
