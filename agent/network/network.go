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

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/addressing"
)

// Config of an instance's network.
type Config struct {
	// ID of the instance; kernel objects are named by its hash.
	ID string
	// Subnet of the tasks; zero: chosen beside the host's routes in the block of the Zone, and kept in Folder.
	Subnet netip.Prefix
	Zone   string
	Folder string
	// Mode is how other hosts reach this one's tasks: route, vxlan; empty: by route where the two are neighbours.
	Mode string
	// VXLANPort and VXLANID are the same on all hosts of a cluster; 0: 4789 and 4566.
	VXLANPort uint16
	VXLANID   uint32
	// AllowMetadata lets tasks reach the host's own 169.254.169.254.
	AllowMetadata bool
	Logger        *slog.Logger
}

// Network is one instance's network. Methods may be called in parallel.
type Network struct {
	cfg     Config
	short   string // eight hex digits
	bridge  string
	overlay string // the VXLAN device

	mu      sync.Mutex // guards what follows and the kernel objects but for veths
	up      bool
	index   int // of the bridge
	mtu     int
	subnet  netip.Prefix
	used    map[netip.Addr]string // task by address
	last    netip.Addr
	forward map[string][]Forward // by task

	interfaces map[netip.Addr]Interface // of tasks that were attached
	peers      map[string]*agentapi.Peer
	groups     map[string]*agentapi.SecurityGroup
	learned    chan struct{}        // closed when groups change
	filtering  map[*family]*ruleset // what the kernel has

	up6 bool // IPv6 is there, since the first task that has an address of it

	faults sync.Mutex // one change of faults at a time, of what the kernel has of them
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
	if cfg.VXLANPort == 0 {
		cfg.VXLANPort = 4789
	}
	if cfg.VXLANID == 0 {
		cfg.VXLANID = 4566
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Network{
		cfg: cfg, short: short, bridge: "ng-" + short, overlay: "nx-" + short, used: map[netip.Addr]string{}, forward: map[string][]Forward{},
		interfaces: map[netip.Addr]Interface{}, filtering: map[*family]*ruleset{}, peers: map[string]*agentapi.Peer{}, groups: map[string]*agentapi.SecurityGroup{}, learned: make(chan struct{}),
	}
}

// Short is the instance's hash: eight hex digits that name its kernel objects.
func (n *Network) Short() string { return n.short }

// Bridge is the name of the instance's bridge.
func (n *Network) Bridge() string { return n.bridge }

// Assign says which subnet tasks have their addresses in. It comes before Up.
func (n *Network) Assign(subnet netip.Prefix) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cfg.Subnet = subnet
}

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
	if err := enableForwarding(ipv4, n.bridge); err != nil {
		return err
	}
	if err := n.recall(); err != nil {
		return err
	}
	if err := n.replaceTable(); err != nil {
		return err
	}
	if err := n.guardPorts(); err != nil {
		return err
	}
	if err := n.filter(); err != nil {
		return err
	}
	if err := n.connectPeers(); err != nil {
		return err
	}
	n.resume6()
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
	if err := dropAddresses(link, addr.IPNet); err != nil {
		return fmt.Errorf("addresses of bridge %s: %w", n.bridge, err)
	}
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
	for name, value := range map[string]string{
		// Connections from the host's own loopback leave through the bridge with a loopback source before they are masqueraded.
		// The table's raw chain keeps tasks from using the other direction.
		"conf/" + n.bridge + "/route_localnet": "1",
		// Tasks do not see one another on the bridge (guardPorts): the host answers for their neighbours, at once, and what they send one
		// another is routed, past the filter.
		"conf/" + n.bridge + "/proxy_arp_pvlan": "1",
		"neigh/" + n.bridge + "/proxy_delay":    "0",
	} {
		if err := writeSysctl("net/ipv4/"+name, value); err != nil {
			return err
		}
	}
	return nil
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
	if !n.subnet.IsValid() { // another process made it
		if n.subnet, err = n.keptSubnet(); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, n.EndFaults(""), n.disconnectPeers(), n.deleteTables(), n.leaveFirewall(ipv4))
	if link, err := netlink.LinkByName(n.bridge); err == nil {
		if err := netlink.LinkDel(link); err != nil {
			errs = append(errs, fmt.Errorf("delete bridge %s: %w", n.bridge, err))
		}
	}
	errs = append(errs, restoreForwarding(ipv4, n.bridge), restoreForwarding(ipv6, n.bridge))
	for _, kind := range n.Kinds() {
		if err := os.Remove(n.setFile(kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	n.up, n.up6 = false, false
	clear(n.filtering)
	return errors.Join(errs...)
}

// Gateway is the bridge's address; valid after Up.
func (n *Network) Gateway() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gateway()
}

func (n *Network) gateway() netip.Addr { return addressing.Host(n.subnet) }

// dropAddresses takes the addresses of a network that a link was in before off it.
func dropAddresses(link netlink.Link, keep *net.IPNet) error {
	have, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_V4) })
	if err != nil {
		return err
	}
	for _, a := range have {
		if a.IPNet.String() == keep.String() || LinkLocal.Addr().Compare(addrOf(a.IP)) == 0 {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return err
		}
	}
	return nil
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

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
