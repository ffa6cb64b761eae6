//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// A task that asks for ephemeral storage has a file system of its own for its writable layers and volumes: an ext4 in a file of its
// folder, whose space is reserved when it is made. So the task gets what it asked for however full the host becomes, and no more.
//
// It is mounted in the shim's mount namespace alone, and the loop device below it clears itself with the last mount. Until the shim has
// it, it is a mount without a place that hangs on a file descriptor. So it goes with its processes, whoever dies when.

const (
	storageImage  = "storage.img" // in the task's folder
	storageFolder = "storage"     // where the shim mounts it
)

// CheckStorage says what this host lacks for tasks with ephemeral storage, one line each.
func (d *Driver) CheckStorage() []string {
	var lacks []string
	if _, err := mkfs(); err != nil {
		lacks = append(lacks, "mkfs.ext4 is missing: install e2fsprogs")
	}
	if f, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		lacks = append(lacks, fmt.Sprintf("there are no loop devices: %v; load the kernel module loop", err))
	} else {
		f.Close()
	}
	if fd, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC); err != nil {
		lacks = append(lacks, fmt.Sprintf("the kernel has no ext4, or is older than 5.8: %v", err))
	} else {
		unix.Close(fd)
	}
	return lacks
}

// mkfs finds the program also where the search path has no folders of the administrator's.
func mkfs() (string, error) {
	path, err := exec.LookPath("mkfs.ext4")
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(dir + "/mkfs.ext4")
		}
	}
	return path, err
}

// makeStorage makes the task's file system with folders for writable layers and volumes. Closing the file unmounts it, unless
// the shim has put it in place.
func (d *Driver) makeStorage(ctx context.Context, t *task) (*os.File, error) {
	mib := int64(t.task.Spec.EphemeralStorageMib)
	if lacks := d.CheckStorage(); len(lacks) > 0 {
		return nil, fmt.Errorf("this host has no ephemeral storage to give: %s", strings.Join(lacks, "; "))
	}
	image, err := os.OpenFile(filepath.Join(t.dir, storageImage), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	switch err := unix.Fallocate(int(image.Fd()), 0, 0, mib<<20); {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EFBIG):
		return nil, fmt.Errorf("this host has no room for the task's ephemeral storage of %d MiB: %w", mib, err)
	case err != nil:
		return nil, fmt.Errorf("reserve %d MiB of ephemeral storage: %w", mib, err)
	}
	program, err := mkfs()
	if err != nil {
		return nil, err
	}
	// No journal: nothing of it outlives a crash of the host. nodiscard: what is reserved stays so.
	format := exec.CommandContext(ctx, program, "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-E", "nodiscard,lazy_itable_init=1,root_owner=0:0", image.Name())
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, out)
	}
	loop, err := attachLoop(image)
	if err != nil {
		return nil, fmt.Errorf("loop device for ephemeral storage: %w", err)
	}
	defer loop.Close() // the mount has it
	mount, err := mountDetached("ext4", loop.Name())
	if err != nil {
		return nil, fmt.Errorf("mount ephemeral storage: %w", err)
	}
	for _, dir := range []string{"containers", "volumes"} {
		if err := os.Mkdir(filepath.Join(descriptor(mount), dir), 0o700); err != nil {
			return nil, errors.Join(err, mount.Close())
		}
	}
	return mount, nil
}

// descriptor is a path to what the file is, also where it has no other.
func descriptor(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// attachLoop puts the file behind a free loop device, which is free again once nobody has it open or mounted.
func attachLoop(image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO}}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], image.Name())
	for tries := 0; ; tries++ {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		loop, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &config); err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) || tries == 100 { // somebody else was faster
			return nil, err
		}
	}
}

// mountDetached mounts a device nowhere.
func mountDetached(kind, device string) (*os.File, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	if err := errors.Join(unix.FsconfigSetString(fs, "source", device), unix.FsconfigSetFlag(fs, "noinit_itable")); err != nil {
		return nil, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOATIME)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), kind), nil
}

// placeStorage puts the task's file system where its containers find it. The shim calls it.
func placeStorage(fd int, dir string) error {
	target := filepath.Join(dir, storageFolder)
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// volumes is the folder of the task's own volumes, as the shim sees it.
func (t *task) volumes() string {
	if t.task.Spec.GetEphemeralStorageMib() > 0 {
		return filepath.Join(t.dir, storageFolder, "volumes")
	}
	return filepath.Join(t.dir, "volumes")
}

// Storage is what a task has reserved and uses of its ephemeral storage; runtime.ErrNotFound: it has none.
func (d *Driver) Storage(ctx context.Context, id string) (runtime.Storage, error) {
	t, err := d.task(id)
	if err != nil {
		return runtime.Storage{}, err
	}
	if t.task.Spec.GetEphemeralStorageMib() == 0 {
		return runtime.Storage{}, fmt.Errorf("ephemeral storage of task %s: %w", id, runtime.ErrNotFound)
	}
	res, err := t.call(ctx, shimRequest{Op: "storage"}, nil)
	if err != nil {
		return runtime.Storage{}, err
	}
	return *res.Storage, nil
}

// storage measures the task's file system from within the mount namespace that has it.
func (s *shim) storage() (res shimResponse) {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Join(s.dir, storageFolder), &st); err != nil {
		res.Error = err.Error()
		return res
	}
	block := uint64(st.Bsize)
	res.Storage = &runtime.Storage{Used: (st.Blocks - st.Bfree) * block, Reserved: st.Blocks * block}
	return res
}
