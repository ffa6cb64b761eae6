//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Stats reads the container's cgroup and its network namespace.
func (d *Driver) Stats(_ context.Context, taskID, container string) (runtime.Stats, error) {
	var s runtime.Stats
	t, err := d.task(taskID)
	if err != nil {
		return s, err
	}
	started, exit, err := t.state(container)
	switch {
	case err != nil:
		return s, err
	case started == nil || exit != nil:
		return s, fmt.Errorf("container %s of task %s does not run: %w", container, taskID, runtime.ErrNotFound)
	}
	m, err := manager.New(&cgroups.Cgroup{Path: d.taskCgroup(t.box) + "/" + container, Resources: &cgroups.Resources{SkipDevices: true}})
	if err != nil {
		return s, fmt.Errorf("cgroup of container %s: %w", container, err)
	}
	used, err := m.GetStats()
	if err != nil {
		return s, fmt.Errorf("statistics of container %s: %w", container, err)
	}
	s.Read = time.Now().UTC()
	s.PIDs = runtime.PIDStats{Current: used.PidsStats.Current, Limit: used.PidsStats.Limit}
	s.BlockIO = runtime.BlockIOStats{ServiceBytes: blockIO(used.BlkioStats.IoServiceBytesRecursive), Serviced: blockIO(used.BlkioStats.IoServicedRecursive)}
	s.Memory = runtime.MemoryStats{
		Usage: used.MemoryStats.Usage.Usage, MaxUsage: used.MemoryStats.Usage.MaxUsage, Limit: used.MemoryStats.Usage.Limit, Stats: used.MemoryStats.Stats,
	}
	cpu := &s.CPU
	cpu.Usage.Total, cpu.Usage.PerCPU = used.CpuStats.CpuUsage.TotalUsage, used.CpuStats.CpuUsage.PercpuUsage
	cpu.Usage.Kernel, cpu.Usage.User = used.CpuStats.CpuUsage.UsageInKernelmode, used.CpuStats.CpuUsage.UsageInUsermode
	cpu.Throttling.Periods, cpu.Throttling.ThrottledPeriods = used.CpuStats.ThrottlingData.Periods, used.CpuStats.ThrottlingData.ThrottledPeriods
	cpu.Throttling.ThrottledTime = used.CpuStats.ThrottlingData.ThrottledTime
	cpu.Online = uint32(goruntime.NumCPU())
	if cpu.System, err = hostCPU(); err != nil {
		return s, err
	}
	if t.task.Spec.NetworkMode != "host" { // the host's interfaces are no task's
		s.Networks, err = interfaces(started.PID)
		if errors.Is(err, os.ErrNotExist) { // ended meanwhile
			err = fmt.Errorf("container %s of task %s does not run: %w", container, taskID, runtime.ErrNotFound)
		}
	}
	return s, err
}

func blockIO(entries []cgroups.BlkioStatEntry) (out []runtime.BlockIOEntry) {
	for _, e := range entries {
		out = append(out, runtime.BlockIOEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value})
	}
	return out
}

// hostCPU is the time that all processors of the host have been at work or idle, in nanoseconds.
func hostCPU() (uint64, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	ticks := uint64(0)
	for _, f := range fields[1:8] { // user, nice, system, idle, iowait, irq, softirq, as Docker adds them up
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return ticks * uint64(time.Second) / 100, nil // USER_HZ is 100 on every architecture of Linux that Go knows
}

// interfaces reads the counters of a process's network namespace, loopback left out.
func interfaces(pid int) (map[string]runtime.NetworkStats, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return nil, err
	}
	all := map[string]runtime.NetworkStats{}
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(rest)
		if !ok || name == "lo" || len(f) < 12 {
			continue
		}
		var n [12]uint64
		for i := range n {
			if n[i], err = strconv.ParseUint(f[i], 10, 64); err != nil {
				return nil, fmt.Errorf("/proc/%d/net/dev: %w", pid, err)
			}
		}
		all[name] = runtime.NetworkStats{
			RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3], TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		}
	}
	return all, nil
}
