package scheduler

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Reason is why one member of the pool cannot take a task.
type Reason struct {
	Instance string
	Node     string
	// Code is ECS's: RESOURCE:CPU, RESOURCE:MEMORY, RESOURCE:GPU, RESOURCE:PORTS, ATTRIBUTE, AGENT, INACTIVE, LOCATION, or the sentence ECS
	// has for placement constraints; and RESOURCE:DISK, which ECS does not have.
	Code string
	// Asked and Free say what of the dimension the task wants and the node has: "512 MiB", "128 MiB".
	Asked, Free string
}

// Codes of reasons. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html
const (
	CodeCPU       = "RESOURCE:CPU"
	CodeMemory    = "RESOURCE:MEMORY"
	CodeGPU       = "RESOURCE:GPU"
	CodePorts     = "RESOURCE:PORTS"
	CodeDisk      = "RESOURCE:DISK"
	CodeAttribute = "ATTRIBUTE"
	CodeAgent     = "AGENT"
	CodeInactive  = "INACTIVE"
	CodeLocation  = "LOCATION"
	CodeMemberOf  = "MemberOf placement constraint unsatisfied."
	CodeDistinct  = "DistinctInstance placement constraint unsatisfied."
)

// String is "RESOURCE:MEMORY: asked 512 MiB, free 128 MiB".
func (r Reason) String() string {
	s := strings.TrimSuffix(r.Code, ".")
	if r.Asked != "" {
		s += ": asked " + r.Asked
	}
	if r.Free != "" {
		s += ", free " + r.Free
	}
	return s
}

// Explain says of every member of the pool why it cannot take a task of the class now, all that is in the way of it; members
// that can are left out. Nearest first: the fewer reasons and the later in the order of checks, the nearer.
func (l *Ledger) Explain(c *Class) [][]Reason {
	var all [][]Reason
	for _, m := range c.pool.members {
		if m.gone {
			continue
		}
		var reasons []Reason
		c.check(m, static|dynamic|words, func(r Reason) bool {
			r.Instance, r.Node = m.ID, m.Node
			reasons = append(reasons, r)
			return true
		})
		if len(reasons) > 0 {
			all = append(all, reasons)
		}
	}
	slices.SortStableFunc(all, func(a, b []Reason) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(rank(b[0]), rank(a[0])))
	})
	return all
}

// rank is the order of checks: a host that fails late was nearly good enough.
func rank(r Reason) int {
	return slices.Index([]string{CodeInactive, CodeAgent, CodeDisk, CodeLocation, CodeAttribute, CodeMemberOf, CodeDistinct, CodePorts, CodeGPU, CodeCPU, CodeMemory}, r.Code)
}

// Nearest is the first reason that Explain gives; the zero Reason: the pool has no members.
func (l *Ledger) Nearest(c *Class) (nearest Reason) {
	fewest := math.MaxInt
	for _, m := range c.pool.members {
		if m.gone {
			continue
		}
		var first Reason
		n := 0
		c.check(m, static|dynamic, func(r Reason) bool {
			if n++; n == 1 {
				first = r
			}
			return n <= fewest
		})
		if n > 0 && (n < fewest || n == fewest && rank(first) > rank(nearest)) {
			nearest, fewest = first, n
			nearest.Instance, nearest.Node = m.ID, m.Node
		}
	}
	return nearest
}

// Still says whether what was in the way of a task of the class is so still.
func (l *Ledger) Still(c *Class, r Reason) (still bool) {
	i, known := l.byID[r.Node]
	if !known {
		return false
	}
	at := l.nodes[i].inPool(c.pool)
	if at < 0 {
		return false
	}
	m := c.pool.members[l.nodes[i].in[at].at]
	c.check(m, static|dynamic, func(now Reason) bool {
		still = still || now.Code == r.Code && m.ID == r.Instance
		return !still
	})
	return still
}

// Unplaceable is the service event of ECS for what Explain found; "" when something could take the task after all.
func Unplaceable(service string, all [][]Reason, members int) string {
	switch {
	case len(all) < members:
		return ""
	case len(all) == 0:
		return NoRoom(service, Reason{})
	}
	return NoRoom(service, all[0][0])
}

// NoRoom is the service event of ECS for what is in the way on the nearest instance; zero: there is none.
func NoRoom(service string, nearest Reason) string {
	text := "(service " + service + ") was unable to place a task because no container instance met all of its requirements."
	if nearest.Code == "" {
		return text + " Reason: No Container Instances were found in your cluster."
	}
	return text + " The closest matching (container-instance " + nearest.Instance + ") " + nearest.words() +
		". For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."
}

// words are ECS's in a service event.
func (r Reason) words() string {
	switch r.Code {
	case CodeCPU:
		return "has insufficient CPU units available"
	case CodeMemory:
		return "has insufficient memory available"
	case CodeDisk:
		return "is short of disk space"
	case CodePorts:
		return "is already using a port required by your task"
	case CodeAttribute:
		return "is missing an attribute required by your task"
	case CodeAgent:
		return "doesn't have the agent connected"
	}
	return `encountered error "` + r.Code + `"`
}

// Members is how many members the pool of the class has.
func (c *Class) Members() int { return c.pool.count }

// suits says whether nothing is in the way of a task on m.
func (c *Class) suits(m *member, what checks) bool {
	suits := true
	c.check(m, what, func(Reason) bool { suits = false; return false })
	return suits
}

// checkAgent reports what a node's agent of another make lacks; false: report has heard enough.
func (c *Class) checkAgent(n *node, report func(Reason) bool) bool {
	if len(c.spec.AgentAttributes) == 0 {
		return report(Reason{Code: CodeAttribute, Asked: "the platform's own agent"})
	}
	for _, want := range c.spec.AgentAttributes {
		if _, ok := n.Attributes[want]; !ok && !report(Reason{Code: CodeAttribute, Asked: want}) {
			return false
		}
	}
	return true
}

type checks uint8

const (
	static  checks = 1 << iota // what only changes with the pool
	dynamic                    // what changes with the tasks on the node
	words                      // figures as well
)

// check reports what is in the way of a task on m until report says that it has heard enough.
func (c *Class) check(m *member, what checks, report func(Reason) bool) {
	n := c.ledger.nodes[m.node]
	s := &c.spec
	figures := func(format string, of ...any) string {
		if what&words == 0 {
			return ""
		}
		return fmt.Sprintf(format, of...)
	}
	if what&static != 0 {
		if !m.Active && !report(Reason{Code: CodeInactive}) {
			return
		}
		if (n.gone || !n.Connected) && !report(Reason{Code: CodeAgent}) {
			return
		}
		if n.Disk != "" && !report(Reason{Code: CodeDisk, Free: n.Disk}) {
			return
		}
		if zone, _ := c.ledger.attribute(m, zoneAttribute); s.Zone != "" && zone != s.Zone {
			if !report(Reason{Code: CodeLocation, Asked: s.Zone, Free: zone}) {
				return
			}
		}
		for _, want := range s.Attributes {
			name, value, valued := strings.Cut(want, "=")
			if has, ok := c.ledger.attribute(m, name); !ok || valued && has != value {
				if !report(Reason{Code: CodeAttribute, Asked: want, Free: has}) {
					return
				}
			}
		}
	}
	if what&static != 0 && n.OtherAgent && !c.checkAgent(n, report) {
		return
	}
	for i, e := range c.expressions {
		if what&e.kind() != 0 && !e.Match(c.ledger.subject(m)) {
			if !report(Reason{Code: CodeMemberOf, Asked: c.memberOf(i)}) {
				return
			}
		}
	}
	if what&dynamic == 0 {
		return
	}
	if c.distinct && n.tasks(c.group) > 0 && !report(Reason{Code: CodeDistinct, Asked: c.spec.Group}) {
		return
	}
	for _, p := range s.Ports {
		if !n.portFree(p) && !report(Reason{Code: CodePorts, Asked: figures("%d/%s", p.Number, cmp.Or(p.Protocol, "tcp"))}) {
			return
		}
	}
	if s.GPUs > 0 {
		if free := len(n.freeGPUs()); free < int(s.GPUs) && !report(Reason{Code: CodeGPU, Asked: figures("%d GPUs", s.GPUs), Free: figures("%d GPUs", free)}) {
			return
		}
	}
	if int64(s.CPU) > n.freeCPU && s.CPU > 0 {
		if !report(Reason{Code: CodeCPU, Asked: figures("%d units", s.CPU), Free: figures("%d units", max(n.freeCPU, 0))}) {
			return
		}
	}
	if int64(s.Memory) > n.freeMB && s.Memory > 0 {
		report(Reason{Code: CodeMemory, Asked: figures("%d MiB", s.Memory), Free: figures("%d MiB", max(n.freeMB, 0))})
	}
}

// kind is when the expression is to be checked.
func (e *Expression) kind() checks {
	if e.Dynamic {
		return dynamic
	}
	return static
}

// memberOf is the text of the i-th expression.
func (c *Class) memberOf(i int) string {
	for _, k := range c.spec.Constraints {
		if k.Type == "memberOf" {
			if i == 0 {
				return k.Expression
			}
			i--
		}
	}
	return ""
}

// subject answers the query language on a member.
func (l *Ledger) subject(m *member) Subject {
	n := l.nodes[m.node]
	return func(name string) []string {
		if attribute, ok := strings.CutPrefix(name, "attribute:"); ok {
			if v, ok := l.attribute(m, attribute); ok {
				return []string{v}
			}
			return nil
		}
		switch name {
		case "task:group":
			groups := make([]string, 0, len(n.groups))
			for _, s := range n.groups {
				groups = append(groups, l.groups[s.group].name)
			}
			return groups
		case "agentconnected":
			return []string{strconv.FormatBool(n.Connected)}
		case "containerinstanceid":
			return []string{m.ID}
		case "status":
			if m.Active {
				return []string{"ACTIVE"}
			}
			return []string{"DRAINING"}
		case "runningtaskscount":
			return []string{strconv.Itoa(int(n.running))}
		case "pendingtaskscount":
			return []string{strconv.Itoa(int(n.pending))}
		case "registeredcpu":
			return []string{strconv.FormatUint(uint64(n.CPU), 10)}
		case "registeredmemory":
			return []string{strconv.FormatUint(uint64(n.Memory), 10)}
		case "remainingcpu":
			return []string{strconv.FormatInt(n.freeCPU, 10)}
		case "remainingmemory":
			return []string{strconv.FormatInt(n.freeMB, 10)}
		}
		if m.Facts != nil {
			if v, ok := m.Facts(name); ok {
				return []string{v}
			}
		}
		return nil
	}
}
