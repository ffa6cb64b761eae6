package crash

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/moby/sys/mountinfo"

	"github.com/seed-2f228079/neargate/agent/network"
)

// host is what one data directory has on this machine now: what the kernel says, not what the program says.
type host struct {
	shims      map[string][]int // processes by task
	containers map[string][]int // processes in the tasks' cgroups, by task
	folders    []string         // tasks
	cgroups    []string         // tasks
	bridge     string           // its name while it exists
	links      int              // ports of the bridge
	table      bool
	forwards   int // host ports that are led to tasks
	mounts     []string
	strays     []string // other processes that name the directory
}

// instance is the id that a data directory's kernel objects are named by.
func instance(t *testing.T, dir string) *network.Network {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "FORMAT"))
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(strings.TrimSpace(string(b)), "\nid ")
	return network.New(network.Config{ID: id})
}

func look(t *testing.T, dir string) host {
	t.Helper()
	n := instance(t, dir)
	h := host{shims: map[string][]int{}, containers: map[string][]int{}}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		b, err := os.ReadFile(p + "/cmdline")
		if err != nil || !bytes.Contains(b, []byte(dir+"/")) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(p))
		args := strings.Split(string(b), "\x00")
		if args[0] == "neargate-shim" {
			task := filepath.Base(args[1])
			h.shims[task] = append(h.shims[task], pid)
		} else {
			h.strays = append(h.strays, strings.Join(args, " "))
		}
	}
	roots, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		t.Fatal(err)
	}
	parents := 0
	tasks := map[string]bool{}
	for _, r := range roots {
		parent := filepath.Join(r.Mountpoint, "neargate-"+n.Short())
		entries, err := os.ReadDir(parent)
		if err != nil {
			continue
		}
		parents++
		for _, e := range entries {
			if !e.IsDir() || e.Name() == "shims" {
				continue
			}
			tasks[e.Name()] = true
			for _, pid := range processesBelow(filepath.Join(parent, e.Name())) {
				if !slices.Contains(h.containers[e.Name()], pid) {
					h.containers[e.Name()] = append(h.containers[e.Name()], pid)
				}
			}
		}
	}
	h.cgroups = slices.Sorted(maps.Keys(tasks))
	if parents > 0 && len(h.cgroups) == 0 {
		h.cgroups = []string{}
	}
	if _, err := net.InterfaceByName(n.Bridge()); err == nil {
		h.bridge = n.Bridge()
		ports, err := os.ReadDir("/sys/class/net/" + h.bridge + "/brif")
		if err != nil {
			t.Fatal(err)
		}
		h.links = len(ports)
	}
	if h.table, err = n.HasTable(); err != nil {
		t.Fatal(err)
	}
	if h.table {
		h.forwards = forwards(t, n)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "agent/native/tasks"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		h.folders = append(h.folders, e.Name())
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		h.mounts = append(h.mounts, m.Mountpoint)
	}
	return h
}

func processesBelow(dir string) (pids []int) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil
		}
		b, _ := os.ReadFile(path)
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

func forwards(t *testing.T, n *network.Network) (count int) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: "neargate-" + n.Short(), Family: nftables.TableFamilyIPv4}
	for _, proto := range []string{"tcp", "udp"} {
		s, err := c.GetSetByName(table, proto)
		if err != nil {
			t.Fatalf("ports of %s: %v", table.Name, err)
		}
		e, err := c.GetSetElements(s)
		if err != nil {
			t.Fatalf("ports of %s: %v", table.Name, err)
		}
		count += len(e)
	}
	return count
}

// leftovers is what must not be there once the platform has ended in order.
func leftovers(t *testing.T, dir string) (out []string) {
	t.Helper()
	h := look(t, dir)
	for task := range h.shims {
		out = append(out, "shim of task "+task)
	}
	for task, pids := range h.containers {
		out = append(out, fmt.Sprintf("processes %v in the cgroup of task %s", pids, task))
	}
	for _, f := range h.folders {
		out = append(out, "folder of task "+f)
	}
	if h.cgroups != nil {
		out = append(out, "cgroups "+strings.Join(h.cgroups, " "))
	}
	if h.bridge != "" {
		out = append(out, "bridge "+h.bridge)
	}
	if h.table {
		out = append(out, "nftables table")
	}
	for _, m := range h.mounts {
		out = append(out, "mount "+m)
	}
	for _, s := range h.strays {
		out = append(out, "process "+s)
	}
	b, err := os.ReadFile("/run/neargate/ip_forward.json")
	if err == nil && bytes.Contains(b, []byte(instance(t, dir).Bridge())) {
		out = append(out, "claim on net.ipv4.ip_forward")
	}
	return out
}

// addresses are those of this machine, without the links of running tasks.
func loopbackAddresses(t *testing.T) []string {
	t.Helper()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := lo.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}
