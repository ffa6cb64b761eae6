package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// samples are measurements of one thing.
type samples []time.Duration

func (s samples) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

func (s samples) median() time.Duration { return s.quantile(0.5) }

// String gives the median and the middle half of all.
func (s samples) String() string {
	return fmt.Sprintf("%s (%s to %s)", ms(s.median()), ms(s.quantile(0.25)), ms(s.quantile(0.75)))
}

func ms(d time.Duration) string { return strconv.FormatFloat(d.Seconds()*1e3, 'f', 1, 64) + " ms" }

func us(d time.Duration) string { return strconv.FormatFloat(d.Seconds()*1e6, 'f', 1, 64) + " µs" }

// load says how busy the machine is.
func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	if len(f) < 3 {
		return "load unknown"
	}
	return fmt.Sprintf("%d cores, load average %s", runtime.NumCPU(), strings.Join(f[:3], " "))
}

// tick is the unit of /proc/PID/stat: USER_HZ, 100 on every architecture that Go runs on.
const tick = 10 * time.Millisecond

type process struct {
	pid, parent   int
	own, children time.Duration // CPU; children: those that have ended and were waited for
}

func readProcess(pid int) (process, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // the name may hold spaces
	n := func(i int) time.Duration { v, _ := strconv.ParseInt(f[i], 10, 64); return time.Duration(v) }
	p := process{pid: pid, parent: int(n(1)), own: (n(11) + n(12)) * tick, children: (n(13) + n(14)) * tick}
	p.own = max(p.own, threadTime(pid))
	return p, true
}

// threadTime is the CPU time of a process's living threads, to the nanosecond.
func threadTime(pid int) (sum time.Duration) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil {
			first, _, _ := strings.Cut(string(b), " ")
			v, _ := strconv.ParseInt(first, 10, 64)
			sum += time.Duration(v)
		}
	}
	return sum
}

// treeCPU is the CPU time of the processes for which root is true, of all that descend from them, and of what those waited for.
func treeCPU(root func(pid int, args []string) bool) (sum time.Duration) {
	all := map[int]process{}
	names, _ := filepath.Glob("/proc/[0-9]*")
	in := map[int]bool{}
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(name))
		p, ok := readProcess(pid)
		if !ok {
			continue
		}
		all[pid] = p
		if b, err := os.ReadFile(name + "/cmdline"); err == nil && root(pid, strings.Split(string(b), "\x00")) {
			in[pid] = true
		}
	}
	var inside func(pid int) bool
	inside = func(pid int) bool {
		if p, ok := all[pid]; ok && !in[pid] && p.parent != pid {
			return inside(p.parent)
		}
		return in[pid]
	}
	for pid, p := range all {
		if inside(pid) {
			sum += p.own + p.children
		}
	}
	return sum
}

// cpuOf is treeCPU of one process.
func cpuOf(pid int) time.Duration { return treeCPU(func(p int, _ []string) bool { return p == pid }) }

// memory of a process in kB: resident, its share of what is shared, and its private and written part.
type memory struct{ rss, pss, private int }

func (m memory) String() string {
	return fmt.Sprintf("RSS %.1f MB, PSS %.1f MB, of it written (not file pages) %.1f MB", float64(m.rss)/1024, float64(m.pss)/1024, float64(m.private)/1024)
}

func memoryOf(pid int) (m memory, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		v, _ := strconv.Atoi(f[1])
		switch f[0] {
		case "Rss:":
			m.rss = v
		case "Pss:":
			m.pss = v
		case "Private_Dirty:":
			m.private = v
		}
	}
	return m, nil
}
