package scheduler

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// TestScenarios runs testdata/*.txt: commands, "----", what they print, an empty line.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &scenario{t: t, l: New(1), classes: map[string]Spec{}}
			var out strings.Builder
			for _, block := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
				commands, _, _ := strings.Cut(block, "\n----")
				fmt.Fprintf(&out, "%s\n----\n", commands)
				for line := range strings.Lines(commands) {
					if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
						s.run(strings.Fields(line), &out)
					}
				}
				out.WriteString("\n")
			}
			got := strings.TrimSuffix(out.String(), "\n")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("%s differs (run with -update to accept); got:\n%s", file, got)
			}
		})
	}
}

type scenario struct {
	t       *testing.T
	l       *Ledger
	classes map[string]Spec
	marks   []int
	next    int
}

func (s *scenario) run(f []string, out *strings.Builder) {
	name, args := "", map[string][]string{}
	if len(f) > 1 {
		name = f[1]
	}
	for _, a := range f[min(2, len(f)):] {
		k, v, _ := strings.Cut(a, "=")
		args[k] = append(args[k], strings.ReplaceAll(v, "_", " "))
	}
	switch f[0] {
	case "node": // node a cpu=1024 memory=2048 gpus=2 zone=a attr=k=v reserve=22 disk=what_is_left disconnected draining
		n := Node{ID: name, CPU: s.number(args, "cpu"), Memory: s.number(args, "memory"), Attributes: map[string]string{}, Connected: args["disconnected"] == nil}
		if z := args["zone"]; z != nil {
			n.Attributes[zoneAttribute] = z[0]
		}
		for _, a := range args["attr"] {
			k, v, _ := strings.Cut(a, "=")
			n.Attributes[k] = v
		}
		for i := range s.number(args, "gpus") {
			n.GPUs = append(n.GPUs, fmt.Sprintf("%s%d", name, i))
		}
		if d := args["disk"]; d != nil {
			n.Disk = d[0]
		}
		for range args["reserve"] {
			n.Reserved = append(n.Reserved, PortRange{First: s.number(args, "reserve"), Last: s.number(args, "reserve")})
		}
		s.l.SetNode(n)
		s.l.SetInstance("default", Instance{ID: "ci-" + name, Node: name, Active: args["draining"] == nil})
	case "remove-node":
		s.l.RemoveNode(name)
	case "task": // task web cpu=256 memory=512 gpus=1 port=80 spread=attribute:x constraint=memberOf:expr
		spec := Spec{Pool: "default", Group: "service:" + name, CPU: s.number(args, "cpu"), Memory: s.number(args, "memory"), GPUs: s.number(args, "gpus"), Attributes: args["requires"]}
		if g := args["group"]; g != nil {
			spec.Group = g[0]
		}
		for range args["port"] {
			spec.Ports = append(spec.Ports, Port{s.number(args, "port"), "tcp"})
		}
		if z := args["zone"]; z != nil {
			spec.Zone = z[0]
		}
		for _, c := range args["constraint"] {
			kind, expression, _ := strings.Cut(c, ":")
			spec.Constraints = append(spec.Constraints, Constraint{kind, expression})
		}
		for _, c := range args["strategy"] {
			kind, field, _ := strings.Cut(c, ":")
			spec.Strategies = append(spec.Strategies, Strategy{kind, field})
		}
		s.classes[name] = spec
		if _, err := s.l.Class(spec); err != nil {
			fmt.Fprintf(out, "error: %v\n", err)
		}
	case "place":
		n := 1
		if len(f) > 2 {
			n, _ = strconv.Atoi(f[2])
		}
		for range n {
			s.next++
			id := fmt.Sprintf("%s-%d", name, s.next)
			if p, ok := s.l.Place(s.class(name), id); ok {
				fmt.Fprintf(out, "%s on %s", id, p.Node)
				if len(p.GPUs) > 0 {
					fmt.Fprintf(out, " with %s", strings.Join(p.GPUs, " "))
				}
				out.WriteString("\n")
			} else {
				fmt.Fprintf(out, "%s not placed\n", id)
			}
		}
	case "remove":
		s.l.Remove(name)
	case "mark":
		s.marks = append(s.marks, s.l.Mark())
	case "rollback":
		s.l.Rollback(s.marks[len(s.marks)-1])
		s.marks = s.marks[:len(s.marks)-1]
	case "nodes":
		for _, id := range slices.Sorted(maps.Keys(s.l.byID)) {
			n := s.l.nodes[s.l.byID[id]]
			fmt.Fprintf(out, "%s: %d tasks, free %d units, %d MiB, %d ports taken\n", id, n.running+n.pending, n.freeCPU, n.freeMB, len(n.ports))
		}
	case "explain":
		c := s.class(name)
		all := s.l.Explain(c)
		for _, host := range all {
			for _, r := range host {
				fmt.Fprintf(out, "%s %s\n", r.Instance, r)
			}
		}
		if event := Unplaceable(name, all, c.Members()); event != "" {
			fmt.Fprintln(out, event)
		}
	default:
		s.t.Fatalf("unknown command %q", f[0])
	}
}

func (s *scenario) class(name string) *Class {
	c, err := s.l.Class(s.classes[name])
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *scenario) number(args map[string][]string, key string) uint32 {
	if args[key] == nil {
		return 0
	}
	n, err := strconv.ParseUint(args[key][0], 10, 32)
	if err != nil {
		s.t.Fatal(err)
	}
	return uint32(n)
}
