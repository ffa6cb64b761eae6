//go:build linux && cgo

package native

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // lets libcontainer set device rules
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// cgroupRoots are the mount points of all hierarchies: one on a v2 host, one a controller and more on v1 and hybrid ones.
func cgroupRoots() ([]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("list cgroup mounts: %w", err)
	}
	var roots []string
	for _, m := range mounts {
		roots = append(roots, m.Mountpoint)
	}
	return roots, nil
}

// checkCgroups says which controllers are missing.
func checkCgroups() []string {
	have, err := cgroups.GetAllSubsystems()
	if err != nil {
		return []string{fmt.Sprintf("cgroup controllers cannot be listed: %v", err)}
	}
	var lacks []string
	for _, want := range []string{"cpu", "memory", "pids", "devices"} {
		found := false
		for _, h := range have {
			found = found || h == want
		}
		mounted := found && (cgroups.IsCgroup2UnifiedMode() || cgroups.PathExists(filepath.Join("/sys/fs/cgroup", want)))
		if want == "devices" && cgroups.IsCgroup2UnifiedMode() {
			mounted = true // a BPF program there, no controller
		}
		if !mounted {
			lacks = append(lacks, fmt.Sprintf("cgroup controller %s is not mounted below /sys/fs/cgroup", want))
		}
	}
	return lacks
}

// parent is the cgroup below which all of the instance's are.
func (d *Driver) cgroupParent() string { return "/neargate-" + d.net.Short() }

func (d *Driver) taskCgroup(box string) string { return d.cgroupParent() + "/" + box }

// makeTaskCgroup sets the task's own limits; its containers' cgroups are made below it.
func (d *Driver) makeTaskCgroup(id string, spec *agentapi.TaskSpec) error {
	pids := d.cfg.PidsLimit
	r := &cgroups.Resources{PidsLimit: &pids, SkipDevices: true}
	if spec.MemoryMib > 0 {
		r.Memory = int64(spec.MemoryMib) << 20
		swap := int64(0)
		for _, c := range spec.Containers {
			swap += int64(c.GetMaxSwapMib()) << 20
		}
		r.MemorySwap = swapLimit(r.Memory + swap)
	}
	if spec.CpuUnits > 0 {
		r.CpuQuota, r.CpuPeriod = cpuQuota(spec.CpuUnits), cpuPeriod
		r.CpuShares = uint64(max(spec.CpuUnits, 2))
		r.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(r.CpuShares)
	}
	m, err := manager.New(&cgroups.Cgroup{Path: d.taskCgroup(id), Resources: r})
	if err == nil {
		err = m.Apply(-1) // creates, moves nobody
	}
	if err == nil {
		err = setLimits(m, r)
	}
	if err != nil {
		return fmt.Errorf("cgroup of task %s: %w", id, err)
	}
	return nil
}

var firstLimits sync.Once

// setLimits lets the first call in this process come alone: the library then finds out names of files, which it keeps for all cgroups
// in variables that it does not guard.
func setLimits(m cgroups.Manager, r *cgroups.Resources) (err error) {
	first := false
	firstLimits.Do(func() {
		first = true
		err = m.Set(r)
	})
	if !first {
		err = m.Set(r)
	}
	return err
}

const cpuPeriod = 100_000 // microseconds

// cpuQuota of 1,024 units is one processor.
func cpuQuota(units uint32) int64 { return max(int64(units)*cpuPeriod/1024, 1000) }

// swapLimit bounds memory and swap together where the kernel accounts for it; 0 leaves it alone.
func swapLimit(memory int64) int64 {
	if cgroups.IsCgroup2UnifiedMode() || cgroups.PathExists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes") {
		return memory
	}
	return 0
}

// killCgroup ends every process below path and returns once none is left.
func killCgroup(path string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		left := 0
		for _, root := range roots {
			dir := filepath.Join(root, path)
			if !cgroups.PathExists(dir) {
				continue
			}
			pids, err := cgroups.GetAllPids(dir)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			for _, pid := range pids {
				if err := unix.Kill(pid, unix.SIGKILL); err == nil {
					left++
				}
			}
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes in cgroup %s survive SIGKILL", left, path)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// removeCgroup deletes path and what is below it in every hierarchy. No process may be left in it.
func removeCgroup(path string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		if err := cgroups.RemovePath(filepath.Join(root, path)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// joinCgroup moves this process out of whatever cgroup it was started in, so that it outlives the service it belonged to. Hierarchies
// in whose root it already is stay as they are: moving takes the kernel milliseconds.
func joinCgroup(path string) error {
	mine, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return err
	}
	for _, m := range mounts {
		at := mine[""]
		if m.FSType == "cgroup" {
			for _, o := range strings.Split(m.VFSOptions, ",") {
				if p, ok := mine[o]; ok {
					at = p
				}
			}
		}
		if at == "/" || at == path {
			continue
		}
		dir := filepath.Join(m.Mountpoint, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := cgroups.WriteCgroupProc(dir, os.Getpid()); err != nil {
			return err
		}
	}
	return nil
}
