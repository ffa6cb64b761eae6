package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed-2f228079/neargate/agent"
)

// metadataPorts are where tasks ask about themselves.
type metadataPorts struct {
	uris      agent.MetadataURIs
	listeners []net.Listener
}

// openMetadata opens the link-local address that programs expect, or else a port of the tasks' gateway; and one of loopback for
// tasks with network mode host. Containers keep the URIs for their lives, so the port stays the same from one process to the next.
func openMetadata(ctx context.Context, h *host) (p metadataPorts, err error) {
	if h.cfg.runtime == "fake" {
		return p, nil
	}
	linkLocal, err := h.driver.LinkLocal(ctx)
	if err != nil {
		h.cfg.log.Warn("tasks do not reach 169.254.170.2: they ask about themselves and call the API at their gateway, where SDKs take no credentials of a role from", "error", err)
	}
	addresses := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if linkLocal != nil {
		p.listeners = append(p.listeners, linkLocal)
	}
	// Containers of an earlier process, which could not have the link-local address, know the gateway's.
	if h.gateway.IsValid() && (linkLocal == nil || h.cfg.runtime == "docker") {
		addresses = append(addresses, h.gateway)
	}
	listeners, port, err := listenKept(filepath.Join(h.cfg.dir.Agent(), "metadata-port"), addresses)
	if err != nil {
		return p, err
	}
	p.listeners = append(p.listeners, listeners...)
	p.uris.Host = fmt.Sprintf("http://%s:%d", addresses[0], port)
	switch {
	case linkLocal != nil:
		p.uris.Bridged = agent.LinkLocalURI
	case len(addresses) > 1:
		p.uris.Bridged = fmt.Sprintf("http://%s:%d", addresses[1], port)
	}
	return p, nil
}

// listenKept listens on one port of all addresses: the one that the file names, or else a free one, which is then kept there.
func listenKept(file string, addresses []netip.Addr) ([]net.Listener, uint16, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, 0, err
	}
	kept, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	port, _ := strconv.ParseUint(strings.TrimSpace(string(kept)), 10, 16) // 0: none, any will do
	for tries := 0; ; tries++ {
		listeners, got, err := listenOn(uint16(port), addresses)
		switch {
		case err == nil && uint64(got) == port:
			return listeners, got, nil
		case err == nil:
			return listeners, got, os.WriteFile(file, []byte(strconv.Itoa(int(got))+"\n"), 0o600)
		case tries == 20:
			return nil, 0, err
		}
		port = 0 // somebody else has it now
	}
}

func listenOn(port uint16, addresses []netip.Addr) (all []net.Listener, _ uint16, err error) {
	for _, a := range addresses {
		l, err := net.Listen("tcp", netip.AddrPortFrom(a, port).String())
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, 0, err
		}
		all = append(all, l)
		port = uint16(l.Addr().(*net.TCPAddr).Port)
	}
	return all, port, nil
}
