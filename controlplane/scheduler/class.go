package scheduler

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Spec is all that placement depends on. Tasks with equal specs are interchangeable to the scheduler.
type Spec struct {
	Pool       string
	Group      string // spread and distinctInstance count the tasks of this group
	CPU        uint32
	Memory     uint32
	GPUs       uint32
	Ports      []Port
	Attributes []string // "name" or "name=value"
	// AgentAttributes are names that a node with an agent of another make must have besides; none: such a node cannot take the task.
	AgentAttributes []string
	Zone            string // availability zone; empty: any
	Constraints     []Constraint
	Strategies      []Strategy // in sequence; the earlier one decides
}

// Constraint is distinctInstance or memberOf with an expression.
type Constraint struct{ Type, Expression string }

// Strategy is spread (over an attribute, instanceId or host), binpack (cpu or memory) or random.
type Strategy struct{ Type, Field string }

// Class is the scheduler's memory of one Spec: what its expressions and strategies mean. It is small; the members that suit are in a
// roster, which it shares with all classes that differ in group and size alone.
type Class struct {
	spec        Spec
	key         string
	group       int32
	distinct    bool
	expressions []*Expression
	order       []dimension
	spreads     []string // attributes, in the order of their dimensions

	ledger *Ledger
	pool   *pool
	roster *roster // as it was used last; it may have been forgotten since
	used   uint64  // tick of the last use, for eviction

	// least is, by leaf of the roster, what no member with room has fewer of the group's tasks than, all that gained before gainedTo regarded.
	least    []int32
	gainedTo uint64
}

type dimensionKind uint8

const (
	byAttribute dimensionKind = iota // tasks of the group on members with the same value; equal within a leaf
	byHost                           // tasks of the group on the node
	byFreeCPU
	byFreeMemory
	byChance
	byTasks // all tasks on the node: the last resort, so that equal hosts share
)

type dimension struct {
	kind dimensionKind
	at   int // byAttribute: index into spreads; byHost: none; otherwise: index into a candidate's key
}

// maxStrategies is ECS's.
const maxStrategies = 5

// maxClasses bounds what a ledger remembers.
const maxClasses = 2048

// demand is what every task takes. What is not asked for is never missing.
type demand struct{ cpu, mb int64 }

func (s *Spec) demand() demand {
	d := demand{math.MinInt64, math.MinInt64}
	if s.CPU > 0 {
		d.cpu = int64(s.CPU)
	}
	if s.Memory > 0 {
		d.mb = int64(s.Memory)
	}
	return d
}

// appendKey appends what is equal for equal specs, and only for them; without whose and how large, for those that may share a roster.
func (s *Spec) appendKey(b []byte, whole bool) []byte {
	text := func(t string) { b = append(binary.AppendUvarint(b, uint64(len(t))), t...) }
	number := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }
	text(s.Pool)
	number(int(s.GPUs))
	number(len(s.Ports))
	for _, p := range s.Ports {
		number(int(p.Number))
		text(p.Protocol)
	}
	for _, list := range [][]string{s.Attributes, s.AgentAttributes} {
		number(len(list))
		for _, a := range list {
			text(a)
		}
	}
	text(s.Zone)
	number(len(s.Strategies))
	for _, st := range s.Strategies {
		text(st.Type)
		text(st.Field)
	}
	for _, k := range s.Constraints {
		if whole || k.Type != "distinctInstance" {
			text(k.Type)
			text(k.Expression)
		}
	}
	if whole {
		number(len(s.Constraints))
		text(s.Group)
		number(int(s.CPU))
		number(int(s.Memory))
	}
	return b
}

// Class finds or makes the class of a spec. Its errors are the client's: an expression or strategy that cannot be.
func (l *Ledger) Class(s Spec) (*Class, error) {
	l.scratch = s.appendKey(l.scratch[:0], true)
	if c, ok := l.classes[string(l.scratch)]; ok {
		return c, nil
	}
	c := &Class{spec: s, key: string(l.scratch), ledger: l, pool: l.pool(s.Pool), group: l.group(s.Pool, s.Group)}
	for _, k := range s.Constraints {
		switch k.Type {
		case "distinctInstance":
			c.distinct = true
		case "memberOf":
			e, err := ParseExpression(k.Expression)
			if err != nil {
				return nil, err
			}
			c.expressions = append(c.expressions, e)
		default:
			return nil, fmt.Errorf("unknown placement constraint %q", k.Type)
		}
	}
	if len(s.Strategies) > maxStrategies {
		return nil, fmt.Errorf("more than %d placement strategies", maxStrategies)
	}
	if err := c.addStrategies(); err != nil {
		return nil, err
	}
	if len(l.classes) >= maxClasses {
		l.evictClasses()
	}
	l.classes[c.key] = c
	return c, nil
}

// addStrategies makes the order. A dimension that is there already, or stands behind chance, never decides.
func (c *Class) addStrategies() error {
	keys := 0
	add := func(kind dimensionKind) {
		at := none
		if kind != byHost {
			at = keys
		}
		if !slices.ContainsFunc(c.order, func(d dimension) bool { return d.kind == kind || d.kind == byChance }) {
			c.order = append(c.order, dimension{kind, at})
			if kind != byHost {
				keys++
			}
		}
	}
	for _, s := range c.spec.Strategies {
		attribute, over := strings.CutPrefix(s.Field, "attribute:")
		switch {
		case s.Type == "random":
			add(byChance)
			return nil
		case s.Type == "spread" && isHostField(s.Field):
			add(byHost)
		case s.Type == "spread" && over:
			if !slices.Contains(c.spreads, attribute) {
				c.order = append(c.order, dimension{byAttribute, len(c.spreads)})
				c.spreads = append(c.spreads, attribute)
			}
		case s.Type == "binpack" && strings.EqualFold(s.Field, "cpu"):
			add(byFreeCPU)
		case s.Type == "binpack" && strings.EqualFold(s.Field, "memory"):
			add(byFreeMemory)
		default:
			return fmt.Errorf("placement strategy %q does not know the field %q", s.Type, s.Field)
		}
	}
	add(byTasks)
	return nil
}

func (l *Ledger) evictClasses() {
	evict(l.classes, func(c *Class) uint64 { return c.used }, func(c *Class) {
		l.groups[c.group].on = nil // who still asks has it made anew
	})
}

// evict forgets the quarter that was not used for longest.
func evict[T any](all map[string]T, used func(T) uint64, forget func(T)) {
	keys := make([]string, 0, len(all))
	for key := range all {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int { return int(int64(used(all[a])) - int64(used(all[b]))) })
	for _, key := range keys[:(len(keys)+3)/4] {
		forget(all[key])
		delete(all, key)
	}
}
