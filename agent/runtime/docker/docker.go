// Package docker is a driver on a Docker engine. A task is a sandbox container, which owns the network namespace, the
// ports and /etc/hosts and does nothing but wait, and the task's containers, which join its network.
//
// The engine keeps everything: the sandbox's labels hold the task, so a new process finds it there. Only what a container
// wrote is copied to the driver's folder when the task is removed, since the engine forgets it then.
//
// Invariants: every container and volume carries this instance's label; whatever has not is never touched. A task exists
// from its sandbox's creation to its removal, which comes last.
package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/seed-2f228079/neargate/agent/logs"
	linklocal "github.com/seed-2f228079/neargate/agent/network"
	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Labels of all that the driver makes.
const (
	labelInstance = "neargate.instance" // Config.ID
	labelTask     = "neargate.task"     // task id
	labelName     = "neargate.container"
	labelKept     = "neargate.kept" // on sandboxes: the task
)

// Config of a driver. Dir and ID are required.
type Config struct {
	Dir  string // logs of removed tasks
	ID   string // of the data directory: keeps two instances on one engine apart
	Host string // of the engine; empty: $DOCKER_HOST or the default socket
	// AllowMetadata lets tasks reach the host's own 169.254.169.254.
	AllowMetadata bool
	Logger        *slog.Logger // nil: slog.Default
	// Subnet, Zone, NetworkMode, VXLANPort and VXLANID are of tasks with network mode awsvpc; see network.Config.
	Subnet      netip.Prefix
	Zone        string
	NetworkMode string
	VXLANPort   uint16
	VXLANID     uint32
}

// Driver implements runtime.Driver.
type Driver struct {
	cfg Config
	cli *client.Client

	netMu   sync.Mutex // guards what follows, and is held while the network is brought up
	decided bool
	net     *linklocal.Network // nil once decided: there can be none
	adopted bool               // it knows the tasks of former processes

	mu       sync.Mutex
	redirect *linklocal.Redirect            // nil: tasks do not reach the link-local address
	own      *linklocal.Redirect            // the same, for tasks in the instance's own network
	failed   map[string]*runtime.StartError // "task/container" that could not even be created
	secrets  map[string]runtime.Secrets     // "task/container" until it has been started
}

// New makes a driver; the engine is asked for nothing yet.
func New(cfg Config) (*Driver, error) {
	if cfg.Dir == "" || cfg.ID == "" {
		return nil, errors.New("docker driver: Dir and ID are required")
	}
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if cfg.Host != "" {
		opts = append(opts, client.WithHost(cfg.Host))
	}
	cli, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("docker driver: %w", err)
	}
	return &Driver{cfg: cfg, cli: cli, failed: map[string]*runtime.StartError{}}, nil
}

// Name is "docker".
func (d *Driver) Name() string { return "docker" }

// Check asks the engine whether it is there.
func (d *Driver) Check(ctx context.Context) []string {
	if _, err := d.cli.Ping(ctx); err != nil {
		return []string{fmt.Sprintf("no Docker engine answers at %s (%v); start dockerd, or set DOCKER_HOST", d.cli.DaemonHost(), err)}
	}
	return nil
}

// Gateway is that of the engine's default bridge.
func (d *Driver) Gateway(ctx context.Context) (netip.Addr, error) {
	n, err := d.cli.NetworkInspect(ctx, "bridge", network.InspectOptions{})
	if err != nil {
		return netip.Addr{}, err
	}
	for _, c := range n.IPAM.Config {
		if a, err := netip.ParseAddr(c.Gateway); err == nil && a.Is4() {
			return a, nil
		}
		// Before its first container the engine may know the subnet only.
		if p, err := netip.ParsePrefix(c.Subnet); err == nil && p.Addr().Is4() {
			return p.Masked().Addr().Next(), nil
		}
	}
	return netip.Addr{}, nil
}

func (d *Driver) name(taskID, container string) string {
	return "neargate-" + d.cfg.ID[:min(8, len(d.cfg.ID))] + "-" + taskID + "-" + container
}

// sandboxName cannot be a container's: those have no dot.
func (d *Driver) sandboxName(taskID string) string { return d.name(taskID, "sandbox.") }

func (d *Driver) labels(taskID, container string) map[string]string {
	return map[string]string{labelInstance: d.cfg.ID, labelTask: taskID, labelName: container}
}

// Create makes the sandbox and the volumes.
func (d *Driver) Create(ctx context.Context, t runtime.Task) (runtime.Sandbox, error) {
	if t.Spec.EphemeralStorageMib > 0 {
		return runtime.Sandbox{}, errors.New("the docker runtime cannot hold a task to its ephemeral storage")
	}
	for _, c := range t.Spec.Containers {
		if c.FireLens != nil || c.GetLog().GetDriver() == logs.DriverFireLens {
			return runtime.Sandbox{}, fmt.Errorf("the docker runtime has no FireLens, which container %s uses: the task needs a host with the native runtime", c.Name)
		}
	}
	if have, err := d.cli.ContainerInspect(ctx, d.sandboxName(t.ID)); err == nil {
		if !have.State.Running {
			if err := d.cli.ContainerStart(ctx, have.ID, container.StartOptions{}); err != nil {
				return runtime.Sandbox{}, err
			}
		}
		return d.enter(ctx, t)
	} else if !errdefs.IsNotFound(err) {
		return runtime.Sandbox{}, err
	}
	own, err := d.network(ctx)
	if err != nil {
		return runtime.Sandbox{}, err
	}
	if own == nil && len(t.Spec.SecurityGroups) > 0 && !t.Spec.DefaultSecurityGroup {
		return runtime.Sandbox{}, errors.New("security groups are not enforced on this host, whose engine is elsewhere or whose network its agent may not change: the task must name none but its VPC's default group")
	}
	if err := d.ensurePause(ctx); err != nil {
		return runtime.Sandbox{}, fmt.Errorf("sandbox image: %w", err)
	}
	if err := d.createVolumes(ctx, t); err != nil {
		return runtime.Sandbox{}, err
	}
	kept, err := keep(t)
	if err != nil {
		return runtime.Sandbox{}, err
	}
	cfg := &container.Config{Image: pauseImage, Labels: d.labels(t.ID, ""), Hostname: hostname(t)}
	cfg.Labels[labelKept] = kept
	host := &container.HostConfig{NetworkMode: "bridge", DNS: t.DNSServers, DNSSearch: t.DNSSearch, ExtraHosts: slices.Clone(t.ExtraHosts)}
	for _, c := range t.Spec.Containers {
		host.ExtraHosts = append(host.ExtraHosts, c.ExtraHosts...)
	}
	switch mode := t.Spec.NetworkMode; mode {
	case "host", "none":
		host.NetworkMode = container.NetworkMode(mode)
	case "awsvpc":
		if own != nil {
			if err := d.reserve(ctx, own, t, cfg, host); err != nil {
				return runtime.Sandbox{}, err
			}
		}
	default:
		if cfg.ExposedPorts, host.PortBindings, err = ports(t); err != nil {
			return runtime.Sandbox{}, err
		}
	}
	if host.NetworkMode == "host" {
		cfg.Hostname = ""
	}
	confineSandbox(t, host)
	d.mountSecretVolumes(t, host)
	if _, err := d.cli.ContainerCreate(ctx, cfg, host, nil, nil, d.sandboxName(t.ID)); err != nil {
		if own != nil {
			own.Release(t.ID)
		}
		return runtime.Sandbox{}, err
	}
	if err := d.cli.ContainerStart(ctx, d.sandboxName(t.ID), container.StartOptions{}); err != nil {
		return runtime.Sandbox{}, err
	}
	return d.enter(ctx, t)
}

// enter completes the network of a sandbox that runs.
func (d *Driver) enter(ctx context.Context, t runtime.Task) (runtime.Sandbox, error) {
	if t.Spec.Interception != nil {
		in, err := d.cli.ContainerInspect(ctx, d.sandboxName(t.ID))
		if err != nil {
			return runtime.Sandbox{}, err
		}
		if err := linklocal.Intercept(in.State.Pid, t.Spec.Interception); err != nil {
			return runtime.Sandbox{}, err
		}
	}
	return d.join(ctx, t)
}

func hostname(t runtime.Task) string {
	for _, c := range t.Spec.Containers {
		if c.Hostname != "" {
			return c.Hostname
		}
	}
	return t.ID[:min(12, len(t.ID))]
}

// ports are the sandbox's mappings. The engine chooses single host ports itself, but not ports in a row: these are looked for here.
func ports(t runtime.Task) (nat.PortSet, nat.PortMap, error) {
	set, bound := nat.PortSet{}, nat.PortMap{}
	for _, c := range t.Spec.Containers {
		for _, p := range c.Ports {
			host := p.HostPort
			if p.Count > 1 {
				var err error
				if host, err = portsInARow(protocolOf(p.Protocol), p.Count); err != nil {
					return nil, nil, err
				}
			}
			for i := range max(p.Count, 1) {
				n := port(p.ContainerPort+i, p.Protocol)
				set[n] = struct{}{}
				b := nat.PortBinding{HostIP: "0.0.0.0"}
				if host != 0 {
					b.HostPort = strconv.Itoa(int(host + i))
				}
				bound[n] = append(bound[n], b)
			}
		}
	}
	return set, bound, nil
}

// portsInARow finds free ones of ECS's dynamic range on this host. Who takes one before the engine does makes the task fail to start.
func portsInARow(protocol string, count uint32) (first uint32, err error) {
	const least, most = 49153, 65535
	span := most - least + 1 - (count - 1)
	for i, start := uint32(0), rand.Uint32N(span); i < span; i++ {
		first = least + (start+i)%span
		n := uint32(0)
		for n < count && free(protocol, first+n) {
			n++
		}
		if n == count {
			return first, nil
		}
		i += n
	}
	return 0, fmt.Errorf("no %d free %s host ports in a row between %d and %d", count, protocol, least, most)
}

func free(protocol string, port uint32) bool {
	address := fmt.Sprintf("0.0.0.0:%d", port)
	if protocol == "udp" {
		c, err := net.ListenPacket("udp4", address)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func protocolOf(protocol string) string { return port(1, protocol).Proto() }

func port(n uint32, protocol string) nat.Port {
	if protocol == "" {
		protocol = "tcp"
	}
	return nat.Port(fmt.Sprintf("%d/%s", n, protocol))
}

// sandbox reads the task's place in the network from the engine.
func (d *Driver) sandbox(ctx context.Context, t runtime.Task) (runtime.Sandbox, error) {
	in, err := d.cli.ContainerInspect(ctx, d.sandboxName(t.ID))
	if err != nil {
		return runtime.Sandbox{}, err
	}
	box := runtime.Sandbox{Ports: map[string][]*agentapi.PortBinding{}}
	if n := in.NetworkSettings.Networks["bridge"]; n != nil {
		box.Address, box.Gateway = n.IPAddress, n.Gateway
	}
	if i, ok := interfaceOf(t, in.Config.Labels); ok {
		box.Address, box.IPv6, box.MAC = i.Address.String(), in.Config.Labels[labelIPv6], i.MAC().String()
		if own, err := d.network(ctx); err == nil && own != nil {
			box.Gateway = own.Gateway().String()
		}
	}
	taken := map[string]bool{}
	for _, c := range t.Spec.Containers {
		for _, p := range c.Ports {
			b := &agentapi.PortBinding{ContainerPort: p.ContainerPort, HostPort: p.ContainerPort, Count: p.Count, Protocol: protocolOf(p.Protocol), BindIp: "0.0.0.0"}
			for _, have := range in.NetworkSettings.Ports[port(p.ContainerPort, p.Protocol)] {
				n, err := strconv.ParseUint(have.HostPort, 10, 16)
				key := have.HostPort + "/" + b.Protocol
				if err != nil || net.ParseIP(have.HostIP).To4() == nil || taken[key] || p.HostPort != 0 && p.HostPort != uint32(n) {
					continue
				}
				taken[key] = true
				b.HostPort = uint32(n)
				break
			}
			box.Ports[c.Name] = append(box.Ports[c.Name], b)
		}
	}
	return box, nil
}

// keptTask is a sandbox's label.
type keptTask struct {
	Spec                  json.RawMessage
	DNSServers, DNSSearch []string          `json:",omitempty"`
	ExtraHosts            []string          `json:",omitempty"`
	Environment           map[string]string `json:",omitempty"`
}

func keep(t runtime.Task) (string, error) {
	spec, err := protojson.Marshal(t.Spec)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(keptTask{spec, t.DNSServers, t.DNSSearch, t.ExtraHosts, t.Environment})
	return string(b), err
}

func unkeep(id, label string) (runtime.Task, error) {
	var k keptTask
	spec := &agentapi.TaskSpec{}
	if err := json.Unmarshal([]byte(label), &k); err != nil {
		return runtime.Task{}, err
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(k.Spec, spec); err != nil {
		return runtime.Task{}, err
	}
	return runtime.Task{ID: id, Spec: spec, DNSServers: k.DNSServers, DNSSearch: k.DNSSearch, ExtraHosts: k.ExtraHosts, Environment: k.Environment}, nil
}

// task reads a task back from its sandbox.
func (d *Driver) task(ctx context.Context, id string) (runtime.Task, error) {
	in, err := d.cli.ContainerInspect(ctx, d.sandboxName(id))
	if errdefs.IsNotFound(err) {
		return runtime.Task{}, runtime.ErrNotFound
	}
	if err != nil {
		return runtime.Task{}, err
	}
	return unkeep(id, in.Config.Labels[labelKept])
}

// Recover lists the tasks of this instance that the engine has.
func (d *Driver) Recover(ctx context.Context) ([]runtime.Recovered, error) {
	list, err := d.list(ctx, "")
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(list, func(c container.Summary) bool { return c.Labels[labelAddress] != "" }) {
		own, err := d.network(ctx)
		if err == nil && own != nil {
			err = d.networkUp(ctx, own)
		}
		if err != nil {
			return nil, err
		}
	}
	found := map[string]*runtime.Recovered{}
	for _, c := range list {
		if c.Labels[labelName] != "" {
			continue
		}
		t, err := unkeep(c.Labels[labelTask], c.Labels[labelKept])
		if err != nil {
			return nil, fmt.Errorf("sandbox %s: %w", c.ID, err)
		}
		if c.State != container.StateRunning {
			// The engine or the host was restarted: the task's network is gone, and with it the task.
			if err := d.Remove(ctx, t.ID); err != nil {
				return nil, err
			}
			continue
		}
		box, err := d.sandbox(ctx, t)
		if errdefs.IsNotFound(err) {
			continue // the engine has just ended a removal that a process before this one had begun
		}
		if err != nil {
			return nil, err
		}
		found[t.ID] = &runtime.Recovered{Task: t, Sandbox: box, Containers: map[string]runtime.RecoveredContainer{}}
	}
	for _, c := range list {
		name, r := c.Labels[labelName], found[c.Labels[labelTask]]
		if name == "" {
			continue
		}
		if r == nil { // its sandbox is gone: a removal was cut short
			if err := d.Remove(ctx, c.Labels[labelTask]); err != nil {
				return nil, err
			}
			continue
		}
		in, err := d.cli.ContainerInspect(ctx, c.ID)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if in.State.Status == container.StateCreated && in.State.Error == "" {
			continue // created and not yet started: Start goes on from there
		}
		rc := runtime.RecoveredContainer{Started: started(in)}
		if !in.State.Running {
			e := exit(in)
			rc.Exit = &e
		}
		r.Containers[name] = rc
	}
	out := make([]runtime.Recovered, 0, len(found))
	for _, id := range slices.Sorted(maps.Keys(found)) {
		out = append(out, *found[id])
	}
	return out, nil
}

// list lists this instance's containers, of one task if named.
func (d *Driver) list(ctx context.Context, taskID string) ([]container.Summary, error) {
	f := filters.NewArgs(filters.Arg("label", labelInstance+"="+d.cfg.ID))
	if taskID != "" {
		f.Add("label", labelTask+"="+taskID)
	}
	return d.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: f})
}

// Remove keeps the logs, then removes containers, volumes and, last, the sandbox.
func (d *Driver) Remove(ctx context.Context, taskID string) error {
	list, err := d.list(ctx, taskID)
	if err != nil {
		return err
	}
	release := func() {}
	slices.SortFunc(list, func(a, b container.Summary) int { return strings.Compare(b.Labels[labelName], a.Labels[labelName]) }) // the sandbox's is empty
	for _, c := range list {
		if name := c.Labels[labelName]; name != "" {
			if c.State == container.StateRunning {
				if err := d.cli.ContainerKill(ctx, c.ID, "SIGKILL"); err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
					return err
				}
			}
			if err := d.keepLog(ctx, taskID, name); err != nil {
				return err
			}
		} else if err := errors.Join(d.removeVolumes(ctx, taskID), d.leave(c)); err != nil {
			return err
		} else if c.Labels[labelAddress] != "" {
			if release, err = d.detach(ctx, taskID); err != nil {
				return err
			}
		}
		if err := d.removeContainer(ctx, c.ID); err != nil {
			return err
		}
	}
	release()
	if err := d.endFaults(ctx, taskID); err != nil {
		return err
	}
	if err := os.RemoveAll(d.filesDir(taskID)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.failed, func(k string, _ *runtime.StartError) bool { return strings.HasPrefix(k, taskID+"/") })
	maps.DeleteFunc(d.secrets, func(k string, _ runtime.Secrets) bool { return strings.HasPrefix(k, taskID+"/") })
	return nil
}

// removeContainer waits out a removal that somebody else has begun.
func (d *Driver) removeContainer(ctx context.Context, id string) error {
	for {
		err := d.cli.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		if err == nil || errdefs.IsNotFound(err) {
			return nil
		}
		if !errdefs.IsConflict(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Close lets go of the engine; with everything, it removes all tasks, and the sandbox's image unless another instance
// uses it.
func (d *Driver) Close(ctx context.Context, everything bool) error {
	var errs []error
	if everything {
		list, err := d.list(ctx, "")
		errs = append(errs, err)
		done := map[string]bool{}
		for _, c := range list {
			if id := c.Labels[labelTask]; !done[id] {
				done[id] = true
				errs = append(errs, d.Remove(ctx, id))
			}
		}
		errs = append(errs, d.removePause(ctx), d.endRedirect())
		if own, err := d.network(ctx); err != nil {
			errs = append(errs, err)
		} else if own != nil {
			errs = append(errs, own.Down(ctx))
		}
	}
	return errors.Join(append(errs, d.cli.Close())...)
}

func (d *Driver) logDir(taskID string) string { return filepath.Join(d.cfg.Dir, "logs", taskID) }
