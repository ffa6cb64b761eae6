package main

import (
	"context"
	"debug/elf"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// settled is how long after a start what it has begun in the background is done.
const settled = 5 * time.Second

// settle waits for that, and then shrinks the process.
func settle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(settled):
		shrink()
	}
}

// shrink lets go of what only the start needed, once it is over: the heap's free pages, and the pages of the program's read-only data that a kernel
// with large folios has mapped whole. What is needed again comes back from the page cache, a few pages at a time. It does what it can.
func shrink() {
	debug.FreeOSMemory()
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return
	}
	defer f.Close()
	if f.Type != elf.ET_EXEC { // otherwise addresses are not those of the file
		return
	}
	page := uint64(unix.Getpagesize())
	for _, p := range f.Progs {
		// Segments that are never written: what the loader makes read-only after its relocations belongs to a writable one.
		if p.Type != elf.PT_LOAD || p.Flags != elf.PF_R {
			continue
		}
		from, to := (p.Vaddr+page-1)&^(page-1), (p.Vaddr+p.Filesz)&^(page-1)
		if from >= to {
			continue
		}
		for _, advice := range []uintptr{unix.MADV_NOHUGEPAGE, unix.MADV_DONTNEED} {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(to-from), advice)
		}
	}
}
