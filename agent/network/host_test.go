package network

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestForwardingIsOfANamespace: an instance in another network namespace of this host has no part in when routing goes off in this one.
func TestForwardingIsOfANamespace(t *testing.T) {
	one, two := newSpace(t), newSpace(t)
	change := func(s space, f func(*family, string) error, routes string) {
		t.Helper()
		s.do(func() error {
			err := f(ipv4, fmt.Sprint("ng-", s.pid))
			if b, failed := os.ReadFile("/proc/sys/" + ipv4.forward); failed != nil || strings.TrimSpace(string(b)) != routes {
				err = errors.Join(err, failed, fmt.Errorf("it routes: %q, want %s", b, routes))
			}
			return err
		})
	}
	off := func(*family, string) error {
		return errors.Join(os.MkdirAll(hostFolder, 0o755), writeSysctl(ipv4.forward, "0"))
	}
	for _, s := range []space{one, two} {
		change(s, off, "0")
		change(s, enableForwarding, "1")
	}
	change(two, restoreForwarding, "0")
	change(one, restoreForwarding, "0")
}
