package blob

import (
	"os"

	"golang.org/x/sys/unix"
)

// space is how many bytes of the disk with this folder are free, and how many it has.
func space(dir string) (free, size int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, nil
}

// uncache has the kernel forget what it has read of a file, so that the disk is read, and forget it again.
func uncache(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // advice
}
