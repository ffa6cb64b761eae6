//go:build linux && cgo

package native

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRoutersSocketIsNoWayOut: what a log router puts in the place of its socket leads the shim nowhere else.
func TestRoutersSocketIsNoWayOut(t *testing.T) {
	s := &shim{dir: filepath.Join(t.TempDir(), strings.Repeat("d", 100))} // longer than a socket's path can be
	folder := filepath.Join(s.dir, routerFolder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	outside, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	path := filepath.Join(folder, routerSocket)
	if _, err := s.dial(t.Context(), "unix", path); err == nil {
		t.Error("there is nothing, and it connects")
	}
	if err := os.Symlink(outside.Addr().String(), path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.dial(t.Context(), "unix", path); err == nil || !strings.Contains(err.Error(), "is none") {
		t.Errorf("a link: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(outside.Addr().String(), path); err != nil { // a socket, with a path of its own
		t.Fatal(err)
	}
	c, err := s.dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
