// Command bench measures whole processes: the platform's binary beside the programs it is compared with, in one interleaved
// run. What one package does alone is measured by that package's Go benchmarks. docs/BENCHMARKS.md says what came out.
//
// The machine may be busy with other things: every comparison takes turns, the figures are medians, and CPU time is given
// beside the time on the clock.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// settings are the flags that the benchmarks share.
type settings struct {
	neargate string // the binary that is measured
	hello    string // the container's program
	rounds   int
	requests int
	lines    int
	size     int    // of an answer's body
	only     string // work whose name contains it
	before   string // another build of the binary; empty: none

	distribution string // the program of distribution's registry; empty: none

	hosts       string // of the fleet: sizes, separated by commas
	hostTasks   int    // of each host
	servers     int    // 1, 3 or 5, for them to join
	serverFlags string // more of them

	clients string // numbers of them, separated by commas
}

var benchmarks = []struct {
	name, does string
	run        func(context.Context, settings) error
}{
	{"start", "API call to a container's first output, against a Docker engine (root; DOCKER_HOST)", benchStart},
	{"proxy", "CPU a request through a load balancer, against nginx and haproxy", benchProxy},
	{"boot", "neargate dev to /healthz, and its memory", benchBoot},
	{"logs", "lines that a container writes, kept by json-file, against a Docker engine (root; DOCKER_HOST)", benchLogs},
	{"push", "CPU a small blob pushed to the registry", benchPush},
	{"registry", "what clients do to the registry, against distribution's (-distribution)", benchRegistry},
	{"scale", "thousands of simulated hosts of one server, or of several", benchScale},
	{"changes", "changes that three servers commit for clients of the API", benchChanges},
}

func main() {
	var s settings
	flag.StringVar(&s.neargate, "neargate", "bin/neargate", "binary to measure")
	flag.StringVar(&s.hello, "hello", "bin/bench-hello", "static program for the containers (bench/hello)")
	flag.IntVar(&s.rounds, "rounds", 15, "rounds; in each everybody has a turn (changes: in every fifth)")
	flag.IntVar(&s.requests, "requests", 30000, "requests a turn (proxy, push)")
	flag.IntVar(&s.lines, "lines", 500_000, "lines of 100 bytes a turn (logs)")
	flag.IntVar(&s.size, "size", 512, "bytes of an answer (proxy)")
	flag.StringVar(&s.before, "before", "", "another build of the binary to measure beside (proxy, registry, changes; start, in place of the engine)")
	flag.StringVar(&s.only, "only", "", "measure only work whose name contains this (registry, changes)")
	flag.StringVar(&s.distribution, "distribution", "", "program of distribution v3's registry to measure beside (registry)")
	flag.StringVar(&s.hosts, "hosts", "1000", "numbers of simulated hosts, separated by commas (scale)")
	flag.IntVar(&s.hostTasks, "host-tasks", 10, "tasks of each of them (scale)")
	flag.IntVar(&s.servers, "servers", 1, "servers that they join, 1, 3 or 5 (scale)")
	flag.StringVar(&s.serverFlags, "server-flags", "", "more flags of neargate server (scale, changes)")
	flag.StringVar(&s.clients, "clients", "1,64,512,2048", "numbers of clients, separated by commas (changes)")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: bench [flags] [benchmark...]")
		for _, b := range benchmarks {
			fmt.Fprintf(flag.CommandLine.Output(), "  %-8s %s\n", b.name, b.does)
		}
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// numbers reads a flag that is a list of them, each of at least so much.
func numbers(flag, list string, least int) (all []int, err error) {
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < least {
			return nil, fmt.Errorf("-%s is a list of numbers of at least %d, not %q", flag, least, list)
		}
		all = append(all, n)
	}
	return all, nil
}

// run runs the named benchmarks; none named means all.
func run(ctx context.Context, s settings, names []string) error {
	var errs []error
	known := map[string]bool{}
	for _, b := range benchmarks {
		known[b.name] = true
		if len(names) > 0 && !strings.Contains(" "+strings.Join(names, " ")+" ", " "+b.name+" ") {
			continue
		}
		fmt.Printf("\n## %s: %s\n%s\n", b.name, b.does, load())
		if err := b.run(ctx, s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", b.name, err))
		}
	}
	for _, n := range names {
		if !known[n] {
			errs = append(errs, fmt.Errorf("there is no benchmark %q", n))
		}
	}
	return errors.Join(errs...)
}
