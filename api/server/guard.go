package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// A server on loopback with well-known credentials is within reach of every web page that its user opens. What protects
// it: browsers send Origin and Sec-Fetch-Site, which pages cannot forge; a page that had its own name resolve to loopback
// (DNS rebinding) still sends that name as Host; and a form cannot send application/json without asking first.

// ecrHost is how images on AWS are named. Agents come with it when an image URI names it and this cluster is meant; its
// domain is not one that an attacker could point elsewhere.
var ecrHost = regexp.MustCompile(`^[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$`)

// refused says why a guarded server does not answer r; empty when it does.
func (s *Server) refused(r *http.Request, registry bool) string {
	if !s.cfg.Guard || isProbe(r.URL.Path) {
		return ""
	}
	host := hostname(r.Host)
	switch {
	case !s.own(withoutStreamPrefix(host)) && !(registry && ecrHost.MatchString(host)):
		return fmt.Sprintf("The host %q is not a name of this server.", host)
	case r.Header.Get("Sec-Fetch-Site") == "cross-site":
		return "Requests from other sites are not answered."
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || u.Host != r.Host {
			return fmt.Sprintf("Requests from the origin %q are not answered.", origin)
		}
	}
	return ""
}

// withoutStreamPrefix is the name of the server that clients put the host prefix of event streams before (logs:StartLiveTail): what they
// say differs with their age.
func withoutStreamPrefix(host string) string {
	for _, prefix := range []string{"stream-", "streaming-"} {
		if name, ok := strings.CutPrefix(host, prefix); ok {
			return name
		}
	}
	return host
}

// own says whether host, as hostname gives it, is one of the server's names. Addresses always are: a name that was made to resolve to us is
// still sent as that name.
func (s *Server) own(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	under := func(name string) bool { return host == name || strings.HasSuffix(host, "."+name) }
	return under("localhost") || slices.ContainsFunc(s.cfg.Names, func(n string) bool { return under(strings.ToLower(n)) })
}

// wellKnownKey is the access key id, and the secret, of the root of a server that only its machine reaches.
const wellKnownKey = "test"

// CheckListen refuses to offer the well-known credentials test/test to anybody but this machine.
func CheckListen(address, accessKeyID, secretAccessKey string) error {
	if accessKeyID != wellKnownKey || secretAccessKey != wellKnownKey || IsLoopback(address) {
		return nil
	}
	return fmt.Errorf("listen on %s with the credentials test/test: everybody who reaches this machine would own it; "+
		"set NEARGATE_ROOT_ACCESS_KEY_ID and NEARGATE_ROOT_SECRET_ACCESS_KEY, or listen on 127.0.0.1", address)
}

// IsLoopback says whether a listen address (host:port) is reachable from this machine only.
func IsLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
