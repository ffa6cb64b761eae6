package server

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is the state of one part of the server.
type Check struct {
	Name string
	Err  error // nil: in order
	// Shared: what all servers have in common, and do without for a while. That it is out of order is said, and none is less ready than another.
	Shared bool
}

// isProbe says whether path is asked by whoever watches over the process, under whatever name.
func isProbe(path string) bool {
	return path == "/healthz" || path == "/livez" || path == "/readyz"
}

// health answers the exact paths /livez (the process answers), /readyz and /healthz (its parts are in order; with
// ?verbose one line for each) and /metrics. It says whether the path was one of them.
func (s *Server) health(x *exchange, path string) bool {
	switch {
	case path == "/metrics":
		promhttp.HandlerFor(s.cfg.Metrics, promhttp.HandlerOpts{}).ServeHTTP(x.w, x.r)
		return true
	case path == "/livez":
		x.text(http.StatusOK, "ok\n")
		return true
	case !isProbe(path):
		return false
	}
	var checks []Check
	if s.cfg.Ready != nil {
		checks = s.cfg.Ready(x.r.Context())
	}
	status, shared, all := http.StatusOK, false, strings.Builder{}
	for _, c := range checks {
		if c.Err != nil && c.Shared {
			shared = true
			fmt.Fprintf(&all, "[!]%s: %v\n", c.Name, c.Err)
			continue
		}
		if c.Err != nil {
			status = http.StatusServiceUnavailable
			fmt.Fprintf(&all, "[-]%s: %v\n", c.Name, c.Err)
			continue
		}
		fmt.Fprintf(&all, "[+]%s ok\n", c.Name)
	}
	switch {
	case status != http.StatusOK:
		x.text(status, all.String()+"not ready\n")
	case shared || x.r.URL.Query().Has("verbose"):
		x.text(status, all.String()+"ok\n")
	default:
		x.text(status, "ok\n")
	}
	return true
}
