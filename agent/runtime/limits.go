package runtime

import (
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// DefaultCapabilities is Docker's set, which every container gets that does not say otherwise.
var DefaultCapabilities = []string{"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
	"NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"}

// Capabilities is what a container gets, of all there are, by Docker's rules: first what is dropped goes, then what is added comes,
// where ALL stands for all that was not named to be dropped.
func Capabilities(c *agentapi.ContainerSpec, all []string) []string {
	switch {
	case c.Privileged:
		return all
	case slices.Contains(c.AddCapabilities, "ALL"):
		return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return slices.Contains(c.DropCapabilities, n) })
	}
	var kept []string
	if !slices.Contains(c.DropCapabilities, "ALL") {
		kept = slices.DeleteFunc(slices.Clone(DefaultCapabilities), func(n string) bool { return slices.Contains(c.DropCapabilities, n) })
	}
	for _, n := range c.AddCapabilities {
		if !slices.Contains(kept, n) {
			kept = append(kept, n)
		}
	}
	return kept
}

// OwnCapabilities are all that this process has to give.
func OwnCapabilities() ([]string, error) {
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, c := range capability.ListKnown() {
		if own.Get(capability.PERMITTED, c) && own.Get(capability.BOUNDING, c) {
			out = append(out, strings.ToUpper(c.String()))
		}
	}
	return out, nil
}

// ipcSysctls are the kernel parameters of an IPC namespace besides fs.mqueue.*.
var ipcSysctls = []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
	"kernel.shm_rmid_forced"}

// SysctlNamespace is the namespace that a kernel parameter belongs to, network or ipc; empty: it is the whole host's.
func SysctlNamespace(name string) string {
	switch {
	case strings.Contains(name, "/"):
		return ""
	case strings.HasPrefix(name, "net."):
		return "network"
	case slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue."):
		return "ipc"
	}
	return ""
}

// Unlimited is a limit that is none.
const Unlimited = math.MaxUint64

// limitLines are the names of ulimits as they stand in /proc/PID/limits.
var limitLines = map[string]string{
	"core": "Max core file size", "cpu": "Max cpu time", "data": "Max data size", "fsize": "Max file size", "locks": "Max file locks",
	"memlock": "Max locked memory", "msgqueue": "Max msgqueue size", "nice": "Max nice priority", "nofile": "Max open files",
	"nproc": "Max processes", "rss": "Max resident set", "rtprio": "Max realtime priority", "rttime": "Max realtime timeout",
	"sigpending": "Max pending signals", "stack": "Max stack size",
}

// Limits are the ulimits of a container as they can be had here: hard limits are at most this process's own where it may not raise
// them, and nofile is at most what the kernel gives to anybody.
func Limits(c *agentapi.ContainerSpec) (map[string][2]uint64, error) {
	if len(c.Ulimits) == 0 {
		return nil, nil
	}
	limits, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		return nil, err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	raises := mayRaise(string(status))
	out := map[string][2]uint64{}
	for _, u := range c.Ulimits {
		soft, hard := uint64(u.Soft), uint64(u.Hard) // -1 is Unlimited
		if !raises {
			hard = min(hard, hardLimit(string(limits), limitLines[u.Name]))
		}
		if u.Name == "nofile" {
			hard = min(hard, mostFiles())
		}
		out[u.Name] = [2]uint64{min(soft, hard), hard}
	}
	return out, nil
}

// mayRaise looks for CAP_SYS_RESOURCE among the effective capabilities.
func mayRaise(status string) bool {
	const sysResource = 24
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err == nil && caps&(1<<sysResource) != 0
		}
	}
	return false
}

// hardLimit reads a line of /proc/self/limits: "Max open files            1024                 20000                files".
func hardLimit(limits, name string) uint64 {
	for line := range strings.Lines(limits) {
		rest, ok := strings.CutPrefix(line, name+" ")
		if f := strings.Fields(rest); ok && len(f) >= 2 {
			if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				return n
			}
			break
		}
	}
	return Unlimited
}

func mostFiles() uint64 {
	b, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
			return n
		}
	}
	return 1 << 20
}
