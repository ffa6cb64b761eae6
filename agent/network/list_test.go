package network

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestListsWhileLinksComeAndGo: that other links come and go meanwhile, as those of tasks do, keeps nobody from IPv6, and nobody's host routing.
func TestListsWhileLinksComeAndGo(t *testing.T) {
	s := newSpace(t)
	veth := func(name string) *netlink.Veth {
		return &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	}
	s.do(func() error { // more than one piece
		if err := errors.Join(os.MkdirAll(hostFolder, 0o755), writeSysctl(ipv4.forward, "0")); err != nil {
			return err
		}
		for i := range 30 {
			if err := netlink.LinkAdd(veth(fmt.Sprint("v", i))); err != nil {
				return err
			}
		}
		return nil
	})
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		stopped <- s.try(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				if err := errors.Join(netlink.LinkAdd(veth("other")), netlink.LinkDel(veth("other"))); err != nil {
					return err
				}
			}
		})
	}()
	s.do(func() error {
		defer os.Remove(forwardingFile(ipv4))
		end := time.Now().Add(20 * time.Second) // on a kernel that never says so
		for interrupted := 0; interrupted < 3 && time.Now().Before(end); {
			if _, err := netlink.LinkList(); errors.Is(err, netlink.ErrDumpInterrupted) {
				interrupted++
			}
			if _, err := learningLinks(); err != nil {
				return err
			}
			if err := enableForwarding(ipv4, "ng-gone"); err != nil {
				return err
			}
			if err := restoreForwarding(ipv4, "ng-gone"); err != nil {
				return err
			}
			if b, err := os.ReadFile("/proc/sys/" + ipv4.forward); err != nil || strings.TrimSpace(string(b)) != "0" {
				return fmt.Errorf("it routes: %q, %v", b, err)
			}
		}
		return nil
	})
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
