package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent"
	"github.com/seed-2f228079/neargate/agent/metadata"
	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/docker"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	"github.com/seed-2f228079/neargate/agent/runtime/native"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/api/server"
	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/mesh/healthcheck"
	"github.com/seed-2f228079/neargate/mesh/proxy"
	"github.com/seed-2f228079/neargate/servicediscovery/dns"
)

// hostConfig is what a host of tasks is told.
type hostConfig struct {
	dir     *datadir.Dir
	node    string // the node's id
	runtime string
	dns     string // address of the DNS server besides the tasks' gateway; may be empty
	address string // IP at which host ports and load balancers answer, besides loopback
	cluster string
	zone    string // availability zone
	policy  agent.Policy
	upkeep  agent.Upkeep
	images  http.RoundTripper // to registries; nil: the usual one
	log     *slog.Logger
}

// host is everything that serves tasks on this machine: the driver, the agent and the data planes.
type host struct {
	cfg     hostConfig
	driver  runtime.Driver
	gateway netip.Addr // by which tasks reach this host; invalid: none
	asking  metadataPorts
	proxy   *proxy.Proxy
	checker *healthcheck.Checker
	dns     *dns.Server
	agent   *agent.Agent
}

// policyFlags are what the owner of a host lets tasks do.
func policyFlags(f *pflag.FlagSet, p *agent.Policy) {
	f.StringArrayVar(&p.HostPaths, "allow-host-path", nil, "folder below which tasks may mount the host's folders; may be repeated (default: agent/host in the data directory)")
	f.BoolVar(&p.Privileged, "allow-privileged", false, "allow privileged containers, the host's namespaces and devices, and capabilities beyond Docker's default ones")
}

// upkeepFlags are how a host is kept fit to run tasks.
func upkeepFlags(f *pflag.FlagSet, u *agent.Upkeep) {
	u.DiskMinimum = 1 << 30
	f.DurationVar(&u.ImageCleanup, "image-cleanup-interval", 30*time.Minute, "how often images that no task uses are removed; negative: never (native runtime)")
	f.DurationVar(&u.ImageAge, "image-minimum-age", time.Hour, "for how long an image must have been unused before it is removed")
	f.IntVar(&u.ImagesPerCleanup, "images-per-cleanup", 5, "how many images are removed at once")
	f.Var((*mebibytes)(&u.DiskMinimum), "disk-minimum", "`MiB` of disk that must be free: with less, all unused images go, and if that does not help the host takes no new tasks; 0: do not look")
}

// mebibytes is a flag in MiB of a number of bytes.
type mebibytes uint64

func (m *mebibytes) String() string { return strconv.FormatUint(uint64(*m)>>20, 10) }
func (m *mebibytes) Type() string   { return "MiB" }
func (m *mebibytes) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 44)
	if err != nil {
		return fmt.Errorf("%q is not a number of MiB", s)
	}
	*m = mebibytes(n << 20)
	return nil
}

// checkUpkeep refuses what makes no sense.
func checkUpkeep(u agent.Upkeep) error {
	switch {
	case u.ImageAge < 0:
		return errors.New("--image-minimum-age must be positive")
	case u.ImagesPerCleanup < 0:
		return errors.New("--images-per-cleanup must be positive")
	}
	return nil
}

func newHost(ctx context.Context, cfg hostConfig) (*host, error) {
	h := &host{cfg: cfg}
	err := checkUpkeep(cfg.upkeep)
	if err != nil {
		return nil, err
	}
	if h.driver, err = newDriver(cfg); err != nil {
		return nil, err
	}
	if lacks := h.driver.Check(ctx); len(lacks) > 0 {
		return nil, &agent.CheckError{Driver: cfg.runtime, Lacks: lacks}
	}
	if h.gateway, err = h.driver.Gateway(ctx); err != nil {
		return nil, fmt.Errorf("the tasks' network: %w", err)
	}
	if h.asking, err = openMetadata(ctx, h); err != nil {
		return nil, fmt.Errorf("task metadata: %w", err)
	}
	shared := []string{"127.0.0.1"}
	if cfg.address != shared[0] {
		shared = append(shared, cfg.address)
	}
	var names []string
	if cfg.dns != "" {
		names = append(names, cfg.dns)
	}
	if h.gateway.IsValid() && cfg.runtime != "fake" {
		shared = append(shared, h.gateway.String())
		names = append(names, netip.AddrPortFrom(h.gateway, 53).String())
	}
	h.proxy = proxy.New(proxy.Config{Shared: shared, Logger: cfg.log, Drained: func(d *agentapi.Drained) { h.agent.ReportDrained(d) }})
	h.checker = healthcheck.New(healthcheck.Config{Logger: cfg.log, Report: func(t *agentapi.HealthTransition) { h.agent.ReportHealth(t) }})
	h.dns = dns.New(dns.Config{Addresses: names, Logger: cfg.log, Owner: func(a netip.Addr) (string, string, bool) { return h.agent.Owner(a) }})
	return h, nil
}

func newDriver(cfg hostConfig) (runtime.Driver, error) {
	dir := filepath.Join(cfg.dir.Agent(), cfg.runtime)
	switch cfg.runtime {
	case "native":
		return native.New(native.Config{KeepFree: int64(cfg.upkeep.DiskMinimum / 2), Dir: dir, ID: cfg.dir.ID(), Transport: cfg.images, Logger: cfg.log, Shim: shimProgram})
	case "docker":
		return docker.New(docker.Config{Dir: dir, ID: cfg.dir.ID()})
	case "fake":
		return fake.New(fake.Config{Dir: dir}), nil
	}
	return nil, fmt.Errorf("--runtime is native, docker or fake, not %q", cfg.runtime)
}

// connect makes the agent, which reaches the control plane by client.
func (h *host) connect(client agentapi.DispatcherClient) (err error) {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	resources, err := resources()
	if err != nil {
		return err
	}
	policy := h.cfg.policy
	if len(policy.HostPaths) == 0 {
		policy.HostPaths = []string{filepath.Join(h.cfg.dir.Agent(), "host")}
	}
	cfg := agent.Config{
		Dir: h.cfg.dir.Agent(), Driver: h.driver, Client: client, NodeID: h.cfg.node, NodeName: name, Cluster: h.cfg.cluster,
		Version: version(), Address: h.cfg.address, Resources: resources, Sinks: []agent.Sink{h.proxy, h.checker, h.dns}, Policy: policy, Upkeep: h.cfg.upkeep, Logger: h.cfg.log, Metadata: h.asking.uris,
		Attributes: map[string]string{
			"ecs.os-type": "linux", "ecs.os-family": "LINUX", "ecs.cpu-architecture": architecture(), "ecs.availability-zone": h.cfg.zone,
		},
	}
	if meter, ok := h.driver.(runtime.StorageMeter); ok {
		if lacks := meter.CheckStorage(); len(lacks) > 0 {
			h.cfg.log.Warn("tasks with ephemeralStorage are not placed on this host", "lacks", strings.Join(lacks, "; "))
		} else {
			cfg.Attributes["ecs.capability.extensible-ephemeral-storage"] = ""
		}
	}
	if h.gateway.IsValid() && h.cfg.runtime != "fake" {
		cfg.DNSServers = []string{h.gateway.String()}
	}
	h.agent, err = agent.New(cfg)
	return err
}

// architecture is ECS's word for this machine's.
func architecture() string {
	if goruntime.GOARCH == "amd64" {
		return "x86_64"
	}
	return goruntime.GOARCH
}

// resources are what this machine has: 1,024 CPU units a core, and its memory.
func resources() (*agentapi.NodeResources, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, fmt.Errorf("memory of this machine: %w", err)
	}
	return &agentapi.NodeResources{
		CpuUnits: uint32(goruntime.NumCPU()) * 1024, MemoryMib: uint32(uint64(info.Totalram) * uint64(info.Unit) >> 20),
	}, nil
}

// parts are what runs on a host, in the order it starts.
func (h *host) parts() []part {
	parts := []part{{"proxy", h.proxy.Run}, {"health checks", h.checker.Run}, {"DNS", h.dns.Run}, {"agent", h.agent.Run}}
	if len(h.asking.listeners) > 0 {
		cfg := metadata.Config{Task: h.agent.Metadata, Stats: h.driver.Stats, Zone: h.cfg.zone, Listeners: h.asking.listeners, Logger: h.cfg.log}
		if meter, ok := h.driver.(runtime.StorageMeter); ok {
			cfg.Storage = meter.Storage
		}
		s := metadata.New(cfg)
		parts = append(parts, part{"task metadata", s.Run})
	}
	return parts
}

// loadBalancer is the handler of the load balancer with this name.
func (h *host) loadBalancer(name string) http.Handler {
	if handler, ok := h.proxy.ForHost(name); ok {
		return handler
	}
	return nil
}

// checks are the host's part of readiness.
func (h *host) checks() []server.Check {
	err := errors.New("no session with the control plane")
	if h.agent != nil && h.agent.Connected() {
		err = nil
	}
	return []server.Check{{Name: "agent", Err: err}}
}
