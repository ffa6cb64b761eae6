// Package network gives tasks their place in this host's network: one bridge an instance, one address a task, forwarding of
// host ports by nftables. Everything it makes in the kernel carries a name derived from the instance's id, so that two
// instances share a host, and lives on without the agent's process.
//
// Invariants: an address belongs to at most one task; the nftables table is replaced in one transaction, so that forwarding
// never has a gap; host-wide settings are changed under a host-wide lock and put back by the last instance that needs them.
package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Config of an instance's network.
type Config struct {
	// ID of the instance; kernel objects are named by its hash.
	ID string
	// Subnet of the tasks; zero: chosen beside the host's routes, and kept in Folder.
	Subnet netip.Prefix
	Folder string
	// AllowMetadata lets tasks reach the host's own 169.254.169.254.
	AllowMetadata bool
	Logger        *slog.Logger
}

// Network is one instance's network. Methods may be called in parallel.
type Network struct {
	cfg    Config
	short  string // eight hex digits
	bridge string

	mu      sync.Mutex // guards what follows and the kernel objects but for veths
	up      bool
	index   int // of the bridge
	mtu     int
	subnet  netip.Prefix
	used    map[netip.Addr]string // task by address
	last    netip.Addr
	forward map[string][]Forward // by task
}

// Forward is a host port that leads to a task.
type Forward struct {
	Protocol      string // tcp, udp
	HostPort      uint16
	Address       netip.Addr
	ContainerPort uint16
}

// New describes a network; nothing is made before Up.
func New(cfg Config) *Network {
	sum := sha256.Sum256([]byte(cfg.ID))
	short := hex.EncodeToString(sum[:4])
	return &Network{cfg: cfg, short: short, bridge: "ng-" + short, used: map[netip.Addr]string{}, forward: map[string][]Forward{}}
}

// Short is the instance's hash: eight hex digits that name its kernel objects.
func (n *Network) Short() string { return n.short }

// Bridge is the name of the instance's bridge.
func (n *Network) Bridge() string { return n.bridge }

// Up makes the bridge, the settings and the nftables table; a second call changes nothing.
func (n *Network) Up(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.up {
		return nil
	}
	unlock, err := lockHost(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := n.ensureBridge(); err != nil {
		return err
	}
	if err := enableForwarding(n.bridge); err != nil {
		return err
	}
	if err := n.replaceTable(); err != nil {
		return err
	}
	n.up = true
	return nil
}

func (n *Network) ensureBridge() error {
	link, err := netlink.LinkByName(n.bridge)
	if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
		return fmt.Errorf("look for bridge %s: %w", n.bridge, err)
	}
	exists := err == nil
	if err := n.chooseSubnet(exists); err != nil {
		return err
	}
	n.mtu = hostMTU()
	if !exists {
		sum := sha256.Sum256([]byte(n.bridge))
		mac := append(net.HardwareAddr{0x02}, sum[:5]...) // fixed: a bridge otherwise takes the lowest of its ports'
		b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: n.bridge, MTU: n.mtu, HardwareAddr: mac}}
		if err := netlink.LinkAdd(b); err != nil {
			return fmt.Errorf("add bridge %s: %w", n.bridge, err)
		}
		if link, err = netlink.LinkByName(n.bridge); err != nil {
			return fmt.Errorf("add bridge %s: %w", n.bridge, err)
		}
	}
	n.index = link.Attrs().Index
	addr := &netlink.Addr{IPNet: ipNet(n.subnet, n.gateway())}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("address of bridge %s: %w", n.bridge, err)
	}
	local := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(LinkLocal.Addr(), 32), LinkLocal.Addr()), Scope: unix.RT_SCOPE_LINK}
	if err := netlink.AddrReplace(link, local); err != nil {
		return fmt.Errorf("link-local address of bridge %s: %w", n.bridge, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bridge %s up: %w", n.bridge, err)
	}
	// Connections from the host's own loopback leave through the bridge with a loopback source before they are masqueraded.
	// The table's raw chain keeps tasks from using the other direction.
	return writeSysctl("net/ipv4/conf/"+n.bridge+"/route_localnet", "1")
}

// Down removes everything that Up made.
func (n *Network) Down(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	unlock, err := lockHost(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var errs []error
	errs = append(errs, n.deleteTable(), n.leaveFirewall())
	if link, err := netlink.LinkByName(n.bridge); err == nil {
		if err := netlink.LinkDel(link); err != nil {
			errs = append(errs, fmt.Errorf("delete bridge %s: %w", n.bridge, err))
		}
	}
	if err := restoreForwarding(n.bridge); err != nil {
		errs = append(errs, err)
	}
	if err := os.Remove(n.subnetFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	n.up = false
	return errors.Join(errs...)
}

// Gateway is the bridge's address; valid after Up.
func (n *Network) Gateway() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gateway()
}

func (n *Network) gateway() netip.Addr { return n.subnet.Addr().Next() }

// Check says what this host lacks.
func Check() []string {
	var lacks []string
	if _, err := os.Stat("/proc/self/ns/net"); err != nil {
		lacks = append(lacks, "network namespaces are missing: a kernel with CONFIG_NET_NS is needed")
	}
	c, err := nftables.New()
	if err == nil {
		_, err = c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	}
	if err != nil {
		lacks = append(lacks, fmt.Sprintf("nftables cannot be used (%v): CAP_NET_ADMIN and a kernel with CONFIG_NF_TABLES are needed", err))
	}
	return lacks
}
