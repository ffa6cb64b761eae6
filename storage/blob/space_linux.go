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

// uncacheRange has the kernel forget what it has read of a part of a file (n 0: of all from the offset on), so that the disk is read, and forget
// it again. It forgets whole pages.
func uncacheRange(f *os.File, offset, n int64) {
	first := offset &^ (pageSize - 1)
	if n > 0 {
		n = (offset+n+pageSize-1)&^(pageSize-1) - first
	}
	_ = unix.Fadvise(int(f.Fd()), first, n, unix.FADV_DONTNEED) // advice
}

const pageSize = 64 << 10 // of the machines that there are, the largest
