package plugin

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountsAt lists what is mounted at a folder and below it, the outer ones first, one on top of another as often as there are.
func mountsAt(folder string) ([]string, error) {
	list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(folder))
	if err != nil {
		return nil, fmt.Errorf("mounts at %s: %w", folder, err)
	}
	var at []string
	for _, m := range list {
		at = append(at, m.Mountpoint)
	}
	return at, nil
}

// detach takes off what is mounted at a folder and below. It does not wait for whoever still uses it.
func detach(folder string) error {
	at, err := mountsAt(folder)
	if err != nil {
		return err
	}
	for i := range at { // the last is on top
		m := at[len(at)-1-i]
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", m, err)
		}
	}
	if left, err := mountsAt(folder); err != nil || len(left) > 0 {
		return errors.Join(err, fmt.Errorf("%s is still mounted", strings.Join(left, ", ")))
	}
	return nil
}

// share makes the folder a mount of its own that has peers, unless it is on one already. A task's shim has a copy of all mounts there were when it began; only so
// is what is unmounted below the folder later unmounted in those copies too, instead of living on until the last such task has ended.
func share(folder string) error {
	above, err := mountinfo.GetMounts(mountinfo.ParentsFilter(folder))
	if err != nil {
		return err
	}
	var on *mountinfo.Info // the last of the innermost ones is on top
	for _, m := range above {
		if on == nil || len(m.Mountpoint) >= len(on.Mountpoint) {
			on = m
		}
	}
	if on != nil && strings.Contains(on.Optional, "shared:") {
		return nil
	}
	if on == nil || on.Mountpoint != folder {
		if err := unix.Mount(folder, folder, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return unix.Mount("", folder, "", unix.MS_SHARED, "")
}

// unshare undoes share once nothing is mounted below.
func unshare(folder string) error {
	list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(folder))
	if err != nil || len(list) != 1 || list[0].Mountpoint != folder || list[0].Root == "/" {
		return err // there is none, it is in use, or it is a disk of its own
	}
	if err := unix.Unmount(folder, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount %s: %w", folder, err)
	}
	return nil
}
