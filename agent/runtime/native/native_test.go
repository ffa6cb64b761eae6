//go:build linux && cgo

package native

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"

	"github.com/seed-2f228079/neargate/agent/network"
	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/runtimetest"
)

func TestMain(m *testing.M) {
	Hook()
	if told := os.Getenv(warmChild); told != "" {
		fmt.Fprintln(os.Stderr, runWarmChild(told))
		os.Exit(1)
	}
	runtimetest.Main(m, open)
}

func open(dir string) (runtime.Driver, error) {
	return New(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
}

// need skips with the driver's own words where it cannot run.
func need(t testing.TB) {
	t.Helper()
	if lacks := Check(); len(lacks) > 0 {
		t.Skipf("the native driver cannot run here:\n%s", strings.Join(lacks, "\n"))
	}
}

func TestSuite(t *testing.T) {
	need(t)
	runtimetest.Run(t, open, runtimetest.Features{Processes: true, SurvivesKill: true, SendsLogs: true, Leftovers: leftovers, Unfinished: unfinished})
}

// unfinished looks for what is being written: layers, images and records.
func unfinished(t *testing.T, dir string) (out []string) {
	t.Helper()
	for _, where := range []string{"layers", "images", "tasks/*", "tasks/*/containers/*"} {
		out = append(out, must(t)(filepath.Glob(filepath.Join(dir, where, ".tmp-*")))...)
	}
	return append(out, loops(t, dir)...)
}

// leftovers looks for everything that carries the instance's name, and for processes that use its folder.
func leftovers(t *testing.T, dir string) (out []string) {
	t.Helper()
	n := network.New(network.Config{ID: dir})
	if _, err := net.InterfaceByName(n.Bridge()); err == nil {
		out = append(out, "bridge "+n.Bridge())
	}
	roots, err := cgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roots {
		if _, err := os.Stat(filepath.Join(r, "neargate-"+n.Short())); err == nil {
			out = append(out, "cgroup in "+r)
		}
	}
	if ok, err := n.HasTable(); err != nil || ok {
		out = append(out, "nftables table")
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		out = append(out, "mount "+m.Mountpoint)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), dir+"/") {
			out = append(out, "process "+string(b))
		}
	}
	tasks, err := os.ReadDir(filepath.Join(dir, "tasks"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range tasks {
		out = append(out, "folder of task "+e.Name())
	}
	return out
}
