//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-2f228079/neargate/agent/logs"
	"github.com/seed-2f228079/neargate/agent/network"
	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/volume"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Create makes the task's sandbox: address, taken host ports, shim with its namespaces, link, forwarding, cgroup. What a crash
// left half-made is made anew.
func (d *Driver) Create(ctx context.Context, in runtime.Task) (runtime.Sandbox, error) {
	if !validTaskID(in.ID) {
		return runtime.Sandbox{}, fmt.Errorf("task id %q is invalid", in.ID)
	}
	d.mu.Lock()
	t := d.tasks[in.ID]
	if t == nil {
		t = d.newTask(in.ID, in.ID)
		d.tasks[in.ID] = t
	}
	d.mu.Unlock()
	defer d.warm.starting()()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return runtime.Sandbox{}, fmt.Errorf("task %s is being removed", in.ID)
	}
	if t.sandbox != nil && t.sandbox.Complete {
		return t.sandbox.sandbox(), nil
	}
	err := d.clear(ctx, t)
	if err == nil {
		err = d.create(ctx, t, in)
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("create task %s: %w", in.ID, err), d.clear(context.WithoutCancel(ctx), t))
		d.forget(t)
		return runtime.Sandbox{}, err
	}
	return t.sandbox.sandbox(), nil
}

func (d *Driver) create(ctx context.Context, t *task, in runtime.Task) error {
	images := map[string]imageRecord{}
	for _, c := range in.Spec.Containers {
		if !validContainerName(c.Name) {
			return fmt.Errorf("container name %q is invalid", c.Name)
		}
		img, release, err := d.images.use(c.Image)
		if err != nil {
			return fmt.Errorf("image %s of container %s: %w", c.Image, c.Name, err)
		}
		defer release() // long after the task's record names it
		images[c.Name] = img
	}
	var err error
	if t.record, t.task, err = newTaskRecord(in, images); err != nil {
		return err
	}
	if d.cfg.Warm > 0 {
		t.shape = shapeOf(t.record, t.task)
	}
	if taken, err := d.takeOver(ctx, t); err != nil || taken {
		return err
	}
	t.box, t.dir = t.id, d.taskFolder(t.id)
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	if err := writeRecord(filepath.Join(t.dir, "record.json"), t.record); err != nil {
		return err
	}
	if err := d.makeSandbox(ctx, t); err != nil {
		return err
	}
	return t.complete()
}

// makeSandbox makes everything of t's sandbox. The folder is there.
func (d *Driver) makeSandbox(ctx context.Context, t *task) error {
	spec := t.task.Spec
	sb := &sandboxRecord{Mode: spec.NetworkMode}
	bridged := false
	switch sb.Mode {
	case "host", "none":
	case "", "bridge", "awsvpc":
		bridged = true
		if err := d.net.Up(ctx); err != nil {
			return err
		}
		a, err := d.net.Allocate(t.box)
		if err != nil {
			return err
		}
		sb.Address, sb.Gateway = a.String(), d.net.Gateway().String()
		if sb.Mode == "awsvpc" {
			sb.Groups = spec.SecurityGroups
			if spec.Ipv6 {
				if six := d.net.IPv6(ctx, a); six.IsValid() {
					sb.IPv6 = six.String()
				}
			}
		}
	default:
		return fmt.Errorf("network mode %q is unknown", sb.Mode)
	}
	reserved, err := d.reservePorts(sb, spec)
	defer func() {
		for _, f := range reserved {
			f.Close() // the shim has its own copy
		}
	}()
	if err != nil {
		return err
	}
	if err := writeRecord(filepath.Join(t.dir, "sandbox.json"), sb); err != nil {
		return err
	}
	t.sandbox = sb
	volumes := t.volumes()
	var storage *os.File
	if spec.EphemeralStorageMib > 0 {
		if storage, err = d.makeStorage(ctx, t); err != nil {
			return err
		}
		defer storage.Close() // the shim has its own
		volumes = filepath.Join(descriptor(storage), "volumes")
	}
	if err := d.makeVolumes(spec, volumes); err != nil {
		return err
	}
	for _, c := range spec.Containers {
		if err := d.makeContainerFolder(t, c); err != nil {
			return err
		}
	}
	pid, err := d.startShim(t, reserved, storage)
	if err != nil {
		return err
	}
	if bridged {
		if err := d.net.Attach(ctx, sb.networkInterface(t.box), pid); err != nil {
			return err
		}
		if err := d.net.Forward(t.box, sb.forwards()); err != nil {
			return err
		}
		if spec.Interception != nil {
			if err := network.Intercept(pid, spec.Interception); err != nil {
				return err
			}
		}
	} else if sb.Mode == "none" {
		if err := network.Loopback(pid); err != nil {
			return err
		}
	}
	return d.makeTaskCgroup(t.box, spec)
}

// complete records that everything of the sandbox is there.
func (t *task) complete() error {
	done := *t.sandbox
	done.Complete = true
	if err := writeRecord(filepath.Join(t.dir, "sandbox.json"), &done); err != nil {
		return err
	}
	t.sandbox = &done
	return nil
}

// reservePorts settles the task's host ports and holds each by a bound socket, which the shim inherits: nobody else on this host
// can take the port while the task lives, and a port that is in use is noticed now.
func (d *Driver) reservePorts(sb *sandboxRecord, spec *agentapi.TaskSpec) (held []*os.File, err error) {
	sb.Ports = map[string][]portRecord{}
	for _, c := range spec.Containers {
		for _, p := range c.Ports {
			proto := p.Protocol
			if proto == "" {
				proto = "tcp"
			}
			if proto != "tcp" && proto != "udp" {
				return held, fmt.Errorf("port %d of container %s: protocol %q is unknown", p.ContainerPort, c.Name, proto)
			}
			if p.ContainerPort == 0 || p.ContainerPort+max(p.Count, 1)-1 > 65535 || p.HostPort > 65535 {
				return held, fmt.Errorf("port mapping %d:%d of container %s is out of range", p.HostPort, p.ContainerPort, c.Name)
			}
			r := portRecord{Container: uint16(p.ContainerPort), Host: uint16(p.HostPort), Count: uint16(p.Count), Protocol: proto}
			switch sb.Mode {
			case "host", "awsvpc":
				r.Host = r.Container // on the host's or the task's own address as it is
			case "none":
				continue
			default:
				take := d.takePort
				if r.Count > 1 {
					take = func(proto string, _ uint16) ([]*os.File, uint16, error) { return d.takePorts(proto, int(r.Count)) }
				}
				files, port, err := take(proto, r.Host)
				if err != nil {
					return held, err
				}
				held = append(held, files...)
				r.Host = port
			}
			sb.Ports[c.Name] = append(sb.Ports[c.Name], r)
		}
	}
	return held, nil
}

// takePort binds a host port without listening; 0 takes a free one of the dynamic range.
func (d *Driver) takePort(proto string, port uint16) ([]*os.File, uint16, error) {
	if port != 0 {
		f, err := bindPort(proto, port)
		if err != nil {
			return nil, 0, fmt.Errorf("driver failed programming external connectivity: Bind for 0.0.0.0:%d failed: port is already allocated: %w", port, err)
		}
		return []*os.File{f}, port, nil
	}
	return d.takePorts(proto, 1)
}

// takePorts binds so many ports in a row of the dynamic range.
func (d *Driver) takePorts(proto string, count int) (held []*os.File, first uint16, err error) {
	span := int(d.cfg.LastPort-d.cfg.FirstPort) + 1 - (count - 1) // of where a row may begin
	for i, start := 0, rand.IntN(max(span, 1)); i < span; i++ {
		first = d.cfg.FirstPort + uint16((start+i)%span)
		for len(held) < count {
			f, err := bindPort(proto, first+uint16(len(held)))
			if err != nil {
				break
			}
			held = append(held, f)
		}
		if len(held) == count {
			return held, first, nil
		}
		closeAll(held)
		i += len(held) // no row that begins before the taken port is free
		held = nil
	}
	return nil, 0, fmt.Errorf("no %d free %s host ports in a row between %d and %d", count, proto, d.cfg.FirstPort, d.cfg.LastPort)
}

func (s *sandboxRecord) forwards() []network.Forward {
	if s.Address == "" || s.Mode == "awsvpc" {
		return nil
	}
	var out []network.Forward
	for _, ports := range s.Ports {
		for _, p := range ports {
			for i := range max(p.Count, 1) {
				out = append(out, network.Forward{Protocol: p.Protocol, HostPort: p.Host + i, ContainerPort: p.Container + i, Address: netip.MustParseAddr(s.Address)})
			}
		}
	}
	return out
}

// networkInterface is the task's place in the network; its address is valid.
func (s *sandboxRecord) networkInterface(task string) network.Interface {
	i := network.Interface{Task: task, Address: netip.MustParseAddr(s.Address), Own: s.Mode == "awsvpc", Groups: s.Groups}
	i.Address6, _ = netip.ParseAddr(s.IPv6) // invalid: none
	return i
}

// volumePath finds a volume; own is the folder of the task's own ones.
func (d *Driver) volumePath(own string, v *agentapi.VolumeSpec) (string, error) {
	return volume.Path(filepath.Join(d.cfg.Dir, "volumes"), own, v)
}

func (d *Driver) makeVolumes(spec *agentapi.TaskSpec, own string) error {
	for _, v := range spec.Volumes {
		path, err := d.volumePath(own, v)
		if err != nil {
			return err
		}
		// A missing host folder is made, as Docker does, but not one of a volume with options; a file may be there too.
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && v.HostPath == "" && v.DriverOptions["type"] != "tmpfs" && len(v.DriverOptions) > 0 {
			return fmt.Errorf("volume %s: failed to mount local volume: mount %s: no such file or directory", v.Name, path)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = os.MkdirAll(path, 0o755)
			if err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// makeContainerFolder writes the files that are mounted into the container, and its empty log.
func (d *Driver) makeContainerFolder(t *task, c *agentapi.ContainerSpec) error {
	dir := t.container(c.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	host := hostname(t, c)
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, e := range append(append([]string{}, t.task.ExtraHosts...), c.ExtraHosts...) {
		name, addr, ok := strings.Cut(e, ":")
		if !ok || net.ParseIP(strings.Trim(addr, "[]")) == nil {
			return fmt.Errorf("extra host %q of container %s is not name:address", e, c.Name)
		}
		fmt.Fprintf(&hosts, "%s\t%s\n", strings.Trim(addr, "[]"), name)
	}
	if a := t.sandbox.Address; a != "" {
		fmt.Fprintf(&hosts, "%s\t%s\n", a, host)
		if six := t.sandbox.IPv6; six != "" {
			fmt.Fprintf(&hosts, "%s\t%s\n", six, host)
		}
	} else if t.sandbox.Mode == "none" {
		fmt.Fprintf(&hosts, "127.0.0.1\t%s\n", host)
	}
	resolver := t.task
	if len(c.DnsServers) > 0 {
		resolver.DNSServers = c.DnsServers
	}
	if len(c.DnsSearch) > 0 {
		resolver.DNSSearch = c.DnsSearch
	}
	resolv, err := d.resolvConf(resolver)
	if err != nil {
		return err
	}
	files := map[string]string{"hosts": hosts.String(), "resolv.conf": resolv, "hostname": host + "\n"}
	if c.FireLens != nil {
		if err := os.MkdirAll(t.routerFolder(), 0o700); err != nil {
			return err
		}
		files[routerConfig] = c.FireLens.Config
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if was, err := os.ReadFile(path); err == nil && string(was) == text {
			continue // made ahead
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o644); err != nil { // whatever the umask is
			return err
		}
	}
	if c.GetLog().GetDriver() == logs.DriverNone {
		return nil
	}
	log := d.logPath(t.id, c.Name)
	if os.Rename(t.logAhead(c.Name), filepath.Dir(log)) == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func hostname(t *task, c *agentapi.ContainerSpec) string {
	if c.Hostname != "" {
		return c.Hostname
	}
	if a := t.sandbox.Address; a != "" {
		return "ip-" + strings.ReplaceAll(a, ".", "-") // as Fargate names its tasks' hosts
	}
	if t.sandbox.Mode == "host" {
		if h, err := os.Hostname(); err == nil {
			return h
		}
	}
	return t.id[:min(12, len(t.id))]
}

// resolvConf gives the task's DNS servers, else the host's. Servers on the host's loopback are of no use in another namespace.
func (d *Driver) resolvConf(t runtime.Task) (string, error) {
	servers, search, options := t.DNSServers, t.DNSSearch, []string(nil)
	if len(servers) == 0 || len(search) == 0 {
		b, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			switch {
			case f[0] == "nameserver" && len(t.DNSServers) == 0:
				if ip := net.ParseIP(f[1]); t.Spec.NetworkMode == "host" || ip == nil || !ip.IsLoopback() {
					servers = append(servers, f[1])
				}
			case f[0] == "search" && len(t.DNSServers) == 0 && len(t.DNSSearch) == 0:
				search = f[1:]
			case f[0] == "options" && len(t.DNSServers) == 0:
				options = f[1:]
			}
		}
	}
	var out strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&out, "nameserver %s\n", s)
	}
	if len(search) > 0 {
		fmt.Fprintf(&out, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&out, "options %s\n", strings.Join(options, " "))
	}
	return out.String(), nil
}
