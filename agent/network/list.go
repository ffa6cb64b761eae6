package network

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// listTries is how often a list is asked for while the kernel says that it was not whole.
const listTries = 100

// whole is a list of the kernel's as it was at one time. A longer one comes in pieces: when other programs, or other tasks' starts, change it in
// between, it is asked for again.
func whole[T any](list func() ([]T, error)) (have []T, err error) {
	for range listTries {
		if have, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return have, err
}
