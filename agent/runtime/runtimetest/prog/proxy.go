package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
)

// proxy is a small sidecar: what comes in at the one port it sends to the application on loopback, what comes in at the other where it was
// meant to go, and it says each time where that was.
func proxy(ingress, egress string) error {
	for direction, port := range map[string]string{"ingress": ingress, "egress": egress} {
		l, err := net.Listen("tcp4", ":"+port)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go pass(direction, c.(*net.TCPConn))
			}
		}()
	}
	fmt.Println("proxying")
	select {}
}

func pass(direction string, in *net.TCPConn) {
	defer in.Close()
	to, err := meant(in)
	if err != nil {
		fmt.Println(direction, err)
		return
	}
	fmt.Println(direction, "to", to)
	if direction == "ingress" {
		to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
	}
	out, err := net.Dial("tcp4", to.String())
	if err != nil {
		fmt.Println(direction, err)
		return
	}
	defer out.Close()
	go io.Copy(out, in)
	io.Copy(in, out)
}

// meant is where a connection was to go before the kernel led it here.
func meant(c *net.TCPConn) (to netip.AddrPort, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return to, err
	}
	const originalDestination = 80
	cerr := raw.Control(func(fd uintptr) {
		var m *syscall.IPv6Mreq // as large as what is answered, a sockaddr_in
		if m, err = syscall.GetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IP, originalDestination); err == nil {
			to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(m.Multiaddr[4:8])), binary.BigEndian.Uint16(m.Multiaddr[2:4]))
		}
	})
	return to, errors.Join(cerr, err)
}
