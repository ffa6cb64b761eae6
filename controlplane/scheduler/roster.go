package scheduler

import "slices"

// roster is the members of a pool that suit tasks of one kind, whatever group they belong to and however much CPU and memory they ask for, in the order of
// their strategies.
//
// Members are in leaves, one for each combination of the attributes that are spread over; in a leaf they are in the order of what is left of
// the strategies. Members of one leaf have the attribute counts in common, so the best of a pool is the best of the leaves' firsts with room. What
// depends on a group is kept by the pool: by value in columns, by member in presence.
type roster struct {
	like    Class // one that asks for nothing
	pool    *pool
	columns []*column // of like.spreads
	keys    int       // dimensions in a candidate's key
	hostAt  int       // how many of them come before byHost; none: hosts are not spread over
	chance  int       // index in the key; none: not asked for
	version uint64    // of the pool, as read
	read    uint64    // next sequence number of the journal to read
	used    uint64
	evicted bool

	members    []candidate
	leaves     []leaf
	byValue    map[[maxStrategies]int32]int32
	gained     []int32 // members that may suit who they did not before: listed newly, or left by a task; gained[0] has the number gainedFrom
	gainedFrom uint64
}

// maxKey: free CPU, free memory, and chance or tasks.
const maxKey = 3

type candidate struct {
	key     [maxKey]int64
	cpu, mb int64 // free
	leaf    int32 // none: gone
	fixed   bool  // may ever take such a task: attributes, zone and static constraints hold
	listed  bool  // in its leaf
}

func (k *candidate) fits(d demand) bool { return k.cpu >= d.cpu && k.mb >= d.mb }

type leaf struct {
	values [maxStrategies]int32 // per spread
	list   list
}

// maxListed bounds the members that all rosters of a ledger have together: about 250 MB.
const maxListed = 4 << 20

// current is the class's roster, up to date.
func (c *Class) current() *roster {
	l := c.ledger
	l.tick++
	c.used = l.tick
	if c.roster == nil || c.roster.evicted {
		l.scratch = c.spec.appendKey(l.scratch[:0], false)
		r := l.rosters[string(l.scratch)]
		if r == nil {
			r = l.newRoster(c, string(l.scratch))
		}
		c.roster, c.gainedTo = r, 0 // whose numbers begin with 1
	}
	c.roster.used = l.tick
	c.roster.refresh()
	return c.roster
}

func (l *Ledger) newRoster(c *Class, key string) *roster {
	listed := len(c.pool.members)
	for _, r := range l.rosters {
		listed += len(r.members)
	}
	if len(l.rosters) >= maxClasses || listed > maxListed {
		l.evictRosters()
	}
	r := &roster{
		like: Class{spec: c.spec, ledger: l, pool: c.pool, expressions: c.expressions, order: c.order, spreads: c.spreads},
		pool: c.pool, hostAt: none, chance: none, version: c.pool.version - 1,
	}
	r.like.spec.CPU, r.like.spec.Memory = 0, 0
	for _, d := range c.order {
		switch d.kind {
		case byAttribute:
		case byHost:
			r.hostAt = r.keys
		case byChance:
			r.chance = r.keys
			fallthrough
		default:
			r.keys++
		}
	}
	for _, attribute := range c.spreads {
		column := l.column(c.pool, attribute)
		column.rosters++
		r.columns = append(r.columns, column)
	}
	c.pool.rosters++
	l.rosters[key] = r
	return r
}

func (l *Ledger) evictRosters() {
	evict(l.rosters, func(r *roster) uint64 { return r.used }, (*roster).forget)
}

// forget ends what the pool keeps for the roster.
func (r *roster) forget() {
	r.evicted = true
	if r.pool.rosters--; r.pool.rosters == 0 {
		r.pool.base, r.pool.journal = r.pool.end(), nil
	}
	for _, c := range r.columns {
		if c.rosters--; c.rosters == 0 {
			r.pool.columns = slices.DeleteFunc(r.pool.columns, func(o *column) bool { return o == c })
		}
	}
}

// rebuild reads the whole pool.
func (r *roster) rebuild() {
	r.version, r.read = r.pool.version, r.pool.end()
	r.members = make([]candidate, len(r.pool.members))
	r.gainedFrom, r.gained = r.gainedFrom+uint64(len(r.gained))+1, nil // whoever knows the old ones knows nothing
	r.leaves, r.byValue = nil, map[[maxStrategies]int32]int32{}
	var suit []int32
	for at := range r.members {
		r.judge(int32(at))
		if r.measure(int32(at)) {
			suit = append(suit, int32(at))
		}
	}
	slices.SortFunc(suit, func(a, b int32) int {
		if r.less(a, b) {
			return -1
		}
		return 1 // no two are equal
	})
	for _, at := range suit {
		k := &r.members[at]
		k.listed = true
		f := &r.leaves[k.leaf].list
		f.append(at, k)
		f.size++
	}
}

// refresh reads what happened since the roster was last used.
func (r *roster) refresh() {
	p := r.pool
	end := p.end()
	if r.version != p.version || r.read < p.base || end-r.read > uint64(p.tolerable()) || len(r.leaves) > p.tolerable() {
		r.rebuild()
		return
	}
	for len(r.members) < len(p.members) {
		r.members = append(r.members, candidate{leaf: none})
	}
	for _, e := range p.journal[r.read-p.base:] {
		was := r.take(e.at) // by the order in which it was put in
		if e.what == changed {
			r.judge(e.at)
		}
		if r.put(e.at) && (!was || e.what != came) {
			r.gained = append(r.gained, e.at)
		}
	}
	r.read = end
	if half := len(r.gained) / 2; half > len(r.members) {
		r.gainedFrom += uint64(half)
		r.gained = append(r.gained[:0], r.gained[half:]...)
	}
}

// judge reads what of a member does not change with the tasks on it.
func (r *roster) judge(at int32) {
	k, m := &r.members[at], r.pool.members[at]
	k.leaf, k.fixed = none, false
	if m.gone {
		return
	}
	var values [maxStrategies]int32
	for i, c := range r.columns {
		values[i] = c.values[at]
	}
	f, ok := r.byValue[values]
	if !ok {
		f = int32(len(r.leaves))
		r.leaves = append(r.leaves, leaf{values: values})
		r.byValue[values] = f
	}
	k.leaf, k.fixed = f, r.like.suits(m, static)
}

// measure reads the rest, and says whether the member suits. It must be in no list.
func (r *roster) measure(at int32) bool {
	k, m := &r.members[at], r.pool.members[at]
	if !k.fixed || !r.like.suits(m, dynamic) {
		return false
	}
	n := r.like.ledger.nodes[m.node]
	k.cpu, k.mb = n.freeCPU, n.freeMB
	for _, d := range r.like.order {
		switch d.kind {
		case byFreeCPU:
			k.key[d.at] = n.freeCPU
		case byFreeMemory:
			k.key[d.at] = n.freeMB
		case byChance:
			k.key[d.at] = int64(r.like.ledger.rand.Uint64() >> 1)
		case byTasks:
			k.key[d.at] = int64(n.running + n.pending)
		}
	}
	return true
}

// take takes a member out of its leaf; false: it was not in it.
func (r *roster) take(at int32) bool {
	k := &r.members[at]
	if !k.listed {
		return false
	}
	k.listed = false
	r.leaves[k.leaf].list.remove(r, at)
	return true
}

// put puts a member into its leaf; false: it does not suit now.
func (r *roster) put(at int32) bool {
	k := &r.members[at]
	if k.listed = r.measure(at); k.listed {
		r.leaves[k.leaf].list.insert(r, at, k)
	}
	return k.listed
}

// less is the order within a leaf, but for what hosts are spread over by. Ties of everything go to the lower member.
func (r *roster) less(a, b int32) bool {
	x, y := &r.members[a].key, &r.members[b].key
	for i := range r.keys {
		if x[i] != y[i] {
			return x[i] < y[i]
		}
	}
	return a < b
}
