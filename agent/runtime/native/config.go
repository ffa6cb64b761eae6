package native

import (
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Config of a driver.
type Config struct {
	// Dir is the driver's own folder. It must be on a file system that overlayfs accepts as upper layer: not overlayfs itself.
	Dir string
	// ID of the data directory: names of kernel objects derive from it. Empty: Dir.
	ID string
	// Logger takes what no caller sees; nil: slog.Default.
	Logger *slog.Logger
	// InsecureRegistries lists hosts, with or without port, that may be spoken to without TLS besides loopback.
	InsecureRegistries []string
	// Transport carries requests to registries; nil: one that trusts the system's authorities.
	Transport http.RoundTripper
	// Subnet of the tasks' addresses; zero: chosen beside the host's routes, in the block of the availability zone.
	Subnet netip.Prefix
	Zone   string
	// NetworkMode, VXLANPort and VXLANID are how other hosts' tasks are reached; see network.Config.
	NetworkMode string
	VXLANPort   uint16
	VXLANID     uint32
	// FirstPort and LastPort bound the host ports given to mappings without one; zero: 49153 to 65535, as in ECS.
	FirstPort, LastPort uint16
	// PidsLimit of a task's processes and threads; 0: 16,384, but a quarter of what the kernel numbers at most, so that a task that
	// does nothing but fork leaves enough to the others and the host.
	PidsLimit int64
	// LogLimit is how much one container's log may take on disk, in bytes; 0: 20 MiB.
	LogLimit int64
	// MaxLayerBytes and MaxLayerEntries bound what one image layer may unpack to; 0: 16 GiB and 1,000,000.
	MaxLayerBytes, MaxLayerEntries int64
	// KeepFree is how many bytes of the disk no pull may take; 0: none.
	KeepFree int64
	// Shim is a program that calls Hook first thing, as content compressed by gzip; empty: this process's own does. A small one starts tasks faster.
	Shim string
	// Warm is how many sandboxes are kept ready for each kind of task that runs here (KeepWarm), containers included; 0: none.
	Warm int
	// WarmMemory bounds what these take together, in bytes; 0: 256 MiB.
	WarmMemory int64
	// AllowMetadata lets tasks reach the host's own 169.254.169.254.
	AllowMetadata bool
}

func (c Config) withDefaults() Config {
	if c.ID == "" {
		c.ID = c.Dir
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.FirstPort == 0 || c.LastPort < c.FirstPort {
		c.FirstPort, c.LastPort = 49153, 65535
	}
	if c.WarmMemory == 0 {
		c.WarmMemory = 256 << 20
	}
	if c.PidsLimit == 0 {
		c.PidsLimit = min(16384, pidMax()/4)
	}
	if c.MaxLayerBytes == 0 {
		c.MaxLayerBytes = 16 << 30
	}
	if c.MaxLayerEntries == 0 {
		c.MaxLayerEntries = 1_000_000
	}
	return c
}

// pidMax is how many processes and threads the kernel numbers.
func pidMax() int64 {
	b, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
			return n
		}
	}
	return 32768
}
