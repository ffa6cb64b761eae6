// Package egress is how servers reach addresses that users of the API name: registries to pull through, webhooks.
//
// Invariant: no connection goes to a link-local or a cloud's metadata address, whatever name stands for it: the check is of the
// address that is dialed. Other private addresses are allowed, as they are where most upstreams are. A proxy of the environment
// (HTTPS_PROXY) resolves names itself, so it has to make that check for them.
package egress

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// metadata are addresses of clouds' metadata services that are not link-local.
var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200")}

// Check refuses addresses of metadata services.
func Check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	if a.IsLinkLocalUnicast() {
		return fmt.Errorf("%s is a link-local address", a)
	}
	for _, m := range metadata {
		if a == m {
			return fmt.Errorf("%s is the address of a metadata service", a)
		}
	}
	return nil
}

func control(_, address string, _ syscall.RawConn) error {
	if ap, err := netip.ParseAddrPort(address); err == nil {
		return Check(ap.Addr())
	}
	return nil
}

// Transport makes a transport whose connections are checked; the caller may set more of it.
func Transport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: control}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
		IdleConnTimeout: time.Minute,
	}
}
