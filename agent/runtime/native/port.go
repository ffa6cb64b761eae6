//go:build linux && cgo

package native

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// bindPort binds a port on all IPv4 addresses and does nothing more with it. Without SO_REUSEADDR, which would let two such
// sockets have one port.
func bindPort(proto string, port uint16) (*os.File, error) {
	kind := unix.SOCK_STREAM
	if proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("%s port %d", proto, port))
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
