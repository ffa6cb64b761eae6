package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
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
	"github.com/seed-2f228079/neargate/agent/forward"
	"github.com/seed-2f228079/neargate/agent/imds"
	"github.com/seed-2f228079/neargate/agent/metadata"
	"github.com/seed-2f228079/neargate/agent/network"
	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/docker"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	"github.com/seed-2f228079/neargate/agent/runtime/native"
	"github.com/seed-2f228079/neargate/agent/volume/plugin"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/api/server"
	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/internal/trust"
	"github.com/seed-2f228079/neargate/mesh/healthcheck"
	"github.com/seed-2f228079/neargate/mesh/proxy"
	"github.com/seed-2f228079/neargate/servicediscovery/dns"
)

// hostConfig is what a host of tasks is told.
type hostConfig struct {
	dir      *datadir.Dir
	node     string // the node's id
	runtime  string
	dns      string // address of the DNS server besides the tasks' gateway; may be empty
	address  string // IP at which host ports and load balancers answer, besides loopback
	cluster  string
	zone     string // availability zone
	instance imds.Instance
	policy   agent.Policy
	reach    reach
	upkeep   agent.Upkeep
	gear     gear
	warm     warm
	// client reaches the servers that give this host's tasks their network; nil: the host chooses it, being the only one.
	client agentapi.DispatcherClient
	images http.RoundTripper // to registries; nil: the usual one
	// credential is this host's; nil: it is the servers' own, and needs none.
	credential *trust.Credential
	log        *slog.Logger
}

// host is everything that serves tasks on this machine: the driver, the agent and the data planes.
type host struct {
	cfg     hostConfig
	driver  runtime.Driver
	network *network.Network // nil: the driver has none that other hosts reach
	gateway netip.Addr       // by which tasks reach this host; invalid: none
	asking  metadataPorts
	gpus    []agent.GPU
	volumes *plugin.Plugin
	proxy   *proxy.Proxy
	checker *healthcheck.Checker
	dns     *dns.Server
	agent   *agent.Agent
	api     *forward.Forwarder // of the tasks
}

// reach is how tasks of other hosts reach this one's.
type reach struct {
	mode string
	port uint16
	id   uint32
}

func reachFlags(f *pflag.FlagSet, r *reach) {
	f.StringVar(&r.mode, "network-mode", "auto", "how tasks on other hosts reach this one's: route (by plain routes, for hosts on one link), vxlan, or auto (whichever the two hosts allow)")
	f.Uint16Var(&r.port, "vxlan-port", 4789, "UDP port of VXLAN, the same on all hosts")
	f.Uint32Var(&r.id, "vxlan-id", 4566, "network identifier of VXLAN, the same on all hosts")
}

func (r reach) check() error {
	switch {
	case r.mode != "auto" && r.mode != network.ModeRoute && r.mode != network.ModeVXLAN:
		return fmt.Errorf("--network-mode is auto, route or vxlan, not %q", r.mode)
	case r.port == 0:
		return errors.New("--vxlan-port is between 1 and 65535, not 0")
	case r.id == 0 || r.id >= 1<<24:
		return fmt.Errorf("--vxlan-id is between 1 and 16777215, not %d", r.id)
	}
	return nil
}

// policyFlags are what the owner of a host lets tasks do.
func policyFlags(f *pflag.FlagSet, p *agent.Policy) {
	f.StringArrayVar(&p.HostPaths, "allow-host-path", nil, "folder below which tasks may mount the host's folders; may be repeated (default: agent/host in the data directory)")
	f.BoolVar(&p.Privileged, "allow-privileged", false, "allow privileged containers, the host's namespaces and devices, and capabilities beyond Docker's default ones")
	f.BoolVar(&p.InstanceMetadata, "allow-instance-metadata", false, "let tasks reach this host's own metadata and credentials at 169.254.169.254")
}

// upkeepFlags are how a host is kept fit to run tasks.
func upkeepFlags(f *pflag.FlagSet, u *agent.Upkeep) {
	u.DiskMinimum = 1 << 30
	f.DurationVar(&u.ImageCleanup, "image-cleanup-interval", 30*time.Minute, "how often images that no task uses are removed; negative: never (native runtime)")
	f.DurationVar(&u.ImageAge, "image-minimum-age", time.Hour, "for how long an image must have been unused before it is removed")
	f.IntVar(&u.ImagesPerCleanup, "images-per-cleanup", 5, "how many images are removed at once")
	f.Var((*mebibytes)(&u.DiskMinimum), "disk-minimum", "`MiB` of disk that must be free: with less, all unused images go, and if that does not help the host takes no new tasks; 0: do not look")
}

// gear is what a host has for tasks beside processors and memory.
type gear struct {
	gpus    string
	volumes string // program
}

func gearFlags(f *pflag.FlagSet, g *gear) {
	f.StringVar(&g.gpus, "gpus", "auto", "GPUs of this host: auto (those that NVIDIA's driver has made /dev/nvidia0, … of), how many, or a list of ID=DEVICE,...")
	f.StringVar(&g.volumes, "volume-command", "", "`PROGRAM` that mounts the file systems of EFS and NFS that volumes name; without one, tasks that have such volumes are not placed on this host")
}

// warm is what the host has ready for tasks that are to come.
type warm struct {
	most   int
	memory uint64
}

func warmFlags(f *pflag.FlagSet, w *warm) {
	w.memory = 256 << 20
	f.IntVar(&w.most, "warm", 0, "how many sandboxes with their containers to keep ready for each kind of task that runs here, so that the next ones start within milliseconds; 0: none (native runtime)")
	f.Var((*mebibytes)(&w.memory), "warm-memory", "`MiB` of memory that these may take together")
}

func (w warm) check() error {
	switch {
	case w.most < 0 || w.most > 100:
		return fmt.Errorf("--warm is between 0 and 100, not %d", w.most)
	case w.most > 0 && w.memory == 0:
		return errors.New("--warm-memory must be positive; --warm 0 keeps none")
	}
	return nil
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

// newHost makes the host's parts. With an error it may have a driver, which is to be closed where something of the host's is to go.
func newHost(ctx context.Context, cfg hostConfig) (*host, error) {
	h := &host{cfg: cfg}
	err := errors.Join(checkUpkeep(cfg.upkeep), cfg.warm.check())
	if err != nil {
		return nil, err
	}
	if h.gpus, err = agent.GPUs(cfg.gear.gpus); err != nil {
		return nil, fmt.Errorf("--gpus: %w", err)
	}
	if h.volumes, err = plugin.New(plugin.Config{Program: cfg.gear.volumes, Dir: filepath.Join(cfg.dir.Agent(), "mounts"), Logger: cfg.log}); err != nil {
		return nil, fmt.Errorf("--volume-command: %w", err)
	}
	if h.driver, err = newDriver(cfg); err != nil {
		return nil, err
	}
	if lacks := h.driver.Check(ctx); len(lacks) > 0 {
		return h, &agent.CheckError{Driver: cfg.runtime, Lacks: lacks}
	}
	if d, ok := h.driver.(interface{ Network() *network.Network }); ok {
		h.network = d.Network()
	}
	if h.network != nil && cfg.client != nil {
		c, err := h.config(cfg.client)
		if err != nil {
			return h, err
		}
		block, err := agent.Claim(ctx, c)
		if err != nil {
			return h, fmt.Errorf("the tasks' network: %w", err)
		}
		h.network.Assign(block)
	}
	if h.gateway, err = h.driver.Gateway(ctx); err != nil {
		return h, fmt.Errorf("the tasks' network: %w", err)
	}
	if h.asking, err = openMetadata(ctx, h); err != nil {
		return h, fmt.Errorf("task metadata: %w", err)
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
	mode := cfg.reach.mode
	if mode == "auto" {
		mode = ""
	}
	switch cfg.runtime {
	case "native":
		return native.New(native.Config{Dir: dir, ID: cfg.dir.ID(), Transport: cfg.images, Logger: cfg.log, Shim: shimProgram, AllowMetadata: cfg.policy.InstanceMetadata,
			Warm: cfg.warm.most, WarmMemory: int64(cfg.warm.memory),
			KeepFree: int64(cfg.upkeep.DiskMinimum / 2), Zone: cfg.zone, NetworkMode: mode, VXLANPort: cfg.reach.port, VXLANID: cfg.reach.id})
	case "docker":
		return docker.New(docker.Config{Dir: dir, ID: cfg.dir.ID(), AllowMetadata: cfg.policy.InstanceMetadata, Logger: cfg.log,
			Zone: cfg.zone, NetworkMode: mode, VXLANPort: cfg.reach.port, VXLANID: cfg.reach.id})
	case "fake":
		return fake.New(fake.Config{Dir: dir}), nil
	}
	return nil, fmt.Errorf("--runtime is native, docker or fake, not %q", cfg.runtime)
}

// connect makes the agent, which reaches the control plane by client, and lets tasks call the API by dial.
func (h *host) connect(client agentapi.DispatcherClient, dial func(context.Context) (net.Conn, error)) error {
	h.api = forward.New(forward.Config{Dial: dial, Allowed: func(a netip.Addr) bool { return h.agent.HasTask(a) }, Logger: h.cfg.log})
	cfg, err := h.config(client)
	if err != nil {
		return err
	}
	cfg.Sinks = []agent.Sink{h.proxy, h.checker, h.dns}
	if h.network != nil {
		cfg.Sinks = append(cfg.Sinks, h.network)
	}
	if h.gateway.IsValid() && h.cfg.runtime != "fake" {
		cfg.DNSServers = []string{h.gateway.String()}
	}
	h.agent, err = agent.New(cfg)
	return err
}

// config is what the agent is told but for its data planes.
func (h *host) config(client agentapi.DispatcherClient) (agent.Config, error) {
	name, err := os.Hostname()
	if err != nil {
		return agent.Config{}, err
	}
	resources, err := resources()
	if err != nil {
		return agent.Config{}, err
	}
	policy := h.cfg.policy
	if len(policy.HostPaths) == 0 {
		policy.HostPaths = []string{filepath.Join(h.cfg.dir.Agent(), "host")}
	}
	for _, g := range h.gpus {
		resources.Gpus = append(resources.Gpus, g.ID)
	}
	cfg := agent.Config{
		Dir: h.cfg.dir.Agent(), Driver: h.driver, Client: client, NodeID: h.cfg.node, NodeName: name, Cluster: h.cfg.cluster,
		Version: version(), Address: h.cfg.address, Resources: resources, Policy: policy, Upkeep: h.cfg.upkeep, GPUs: h.gpus, Volumes: h.volumes, Logger: h.cfg.log, Metadata: h.asking.uris,
		Attributes: map[string]string{
			"ecs.os-type": "linux", "ecs.os-family": "LINUX", "ecs.cpu-architecture": architecture(), "ecs.availability-zone": h.cfg.zone,
		},
	}
	maps.Copy(cfg.Attributes, h.cfg.instance.Attributes())
	if c := h.cfg.credential; c != nil {
		cfg.Papers, cfg.Renew = papersOf(c), renewing(c)
	}
	if h.network != nil {
		cfg.Network = h.network.Offer
		if lacks := h.network.LacksIPv6(); lacks != "" {
			h.cfg.log.Info("tasks on this host have no IPv6 addresses", "reason", lacks)
		} else {
			cfg.Attributes["ecs.capability.task-eni.ipv6"] = ""
		}
	}
	if h.cfg.runtime != "fake" {
		cfg.Attributes["ecs.capability.aws-appmesh"] = ""
	}
	if h.volumes.Available() {
		for _, name := range plugin.Capabilities {
			cfg.Attributes[name] = ""
		}
	}
	if _, ok := h.driver.(runtime.LogRouting); ok {
		cfg.Attributes["ecs.capability.firelens.fluentbit"], cfg.Attributes["ecs.capability.firelens.fluentd"] = "", ""
	}
	if some, ok := h.driver.(runtime.LogDrivers); ok {
		for _, driver := range some.LogDrivers(context.Background()) {
			cfg.Attributes["com.amazonaws.ecs.capability.logging-driver."+driver] = ""
		}
	}
	if injector, ok := h.driver.(runtime.FaultInjector); ok && len(injector.CheckFaults(context.Background())) == 0 {
		cfg.Attributes["ecs.capability.fault-injection"] = ""
		if network.HasNetem() {
			cfg.Attributes["neargate.capability.netem"] = ""
		}
	}
	if meter, ok := h.driver.(runtime.StorageMeter); ok {
		if lacks := meter.CheckStorage(); len(lacks) > 0 {
			h.cfg.log.Warn("tasks with ephemeralStorage are not placed on this host", "lacks", strings.Join(lacks, "; "))
		} else {
			cfg.Attributes["ecs.capability.extensible-ephemeral-storage"] = ""
		}
	}
	return cfg, nil
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
		cfg := metadata.Config{
			Task: h.agent.Metadata, Stats: h.driver.Stats, Zone: h.cfg.zone, Named: h.agent.Named, Credentials: h.agent.Credentials, API: h.api,
			Listeners: h.asking.listeners, Logger: h.cfg.log, Endpoint: h.asking.uris.Endpoint,
		}
		if injector, ok := h.driver.(runtime.FaultInjector); ok {
			cfg.Faults = injector
		}
		if meter, ok := h.driver.(runtime.StorageMeter); ok {
			cfg.Storage = meter.Storage
		}
		s := metadata.New(cfg)
		parts = append(parts, part{"what tasks ask", func(ctx context.Context) error {
			defer h.api.Close()
			return s.Run(ctx)
		}})
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
