package state

import (
	"sort"
	"strings"
)

// Bounds of the history against which range guards are evaluated. They are part of the replicated state's definition: two
// servers with other bounds would come to other outcomes. Changing them needs a new entry format.
const (
	historyTransactions = 16384
	historyBytes        = 8 << 20
)

// history is which keys of which spaces were put or deleted by the last transactions. A range guard older than floor cannot be
// answered and counts as a conflict; the transaction reruns on a newer snapshot.
type history struct {
	floor  Revision           // every touch after floor is here
	spaces map[string][]touch // by revision, ascending; may still hold some at or below floor
	log    []historySize      // one per transaction after floor, ascending
	bytes  int                // sum over log
	names  map[string]string  // of spaces, each by itself: a map that is written to keeps the key it is given last
	text   []byte             // of the keys that were added last: many share an object
}

// historyText is the size of one of those objects. As long as one of its keys is kept, all of it is.
const historyText = 4 << 10

type touch struct {
	revision Revision
	key      Key
}

type historySize struct {
	revision Revision
	bytes    int
}

// keep is a copy of key.
func (h *history) keep(key Key) Key {
	if cap(h.text)-len(h.text) < len(key) {
		h.text = make([]byte, 0, max(historyText, len(key)))
	}
	at := len(h.text)
	h.text = append(h.text, key...)
	return Key(textOf(h.text[at:]))
}

// add notes what transaction r touched. Call trim once the transaction is complete.
func (h *history) add(r Revision, space string, key Key) {
	if h.spaces == nil {
		h.spaces = map[string][]touch{}
	}
	name, ok := h.names[space]
	if !ok {
		if h.names == nil {
			h.names = map[string]string{}
		}
		name = strings.Clone(space)
		h.names[name] = name
	}
	h.spaces[name] = append(h.dropOld(h.spaces[name]), touch{r, h.keep(key)})
	if n := len(h.log); n == 0 || h.log[n-1].revision != r {
		h.log = append(h.log, historySize{revision: r})
	}
	size := touchSize(space, key)
	h.log[len(h.log)-1].bytes += size
	h.bytes += size
}

// trim forgets the oldest transactions until the bounds hold.
func (h *history) trim() {
	drop := 0
	for len(h.log)-drop > historyTransactions || h.bytes > historyBytes {
		h.floor = h.log[drop].revision
		h.bytes -= h.log[drop].bytes
		drop++
	}
	h.log = h.log[drop:]
}

// dropOld forgets touches at or below floor when a space's slice is about to grow. It costs O(1) a touch, amortized.
func (h *history) dropOld(ts []touch) []touch {
	if len(ts) < cap(ts) || len(ts) == 0 || ts[0].revision > h.floor {
		return ts
	}
	live := ts[after(ts, h.floor):]
	return append(make([]touch, 0, 2*len(live)+4), live...)
}

// after is the position of the first touch later than r.
func after(ts []touch, r Revision) int {
	// What is asked for is nearly always close to the end.
	i := len(ts)
	for step := 1; i > 0 && ts[i-1].revision > r; step *= 2 {
		i = max(0, i-step)
	}
	return i + sort.Search(len(ts)-i, func(j int) bool { return ts[i+j].revision > r })
}

// unchanged says whether nothing from key from to key end was touched after r.
func (h *history) unchanged(space string, from, end Key, r Revision) bool {
	if r < h.floor {
		return false
	}
	ts := h.spaces[space]
	for _, t := range ts[after(ts, r):] {
		if t.key >= from && (end == "" || t.key < end) {
			return false
		}
	}
	return true
}

// undo forgets the touches after r. Only for revisions added since the last trim.
func (h *history) undo(r Revision) {
	for space, ts := range h.spaces {
		h.spaces[space] = ts[:after(ts, r)]
	}
	for n := len(h.log); n > 0 && h.log[n-1].revision > r; n-- {
		h.bytes -= h.log[n-1].bytes
		h.log = h.log[:n-1]
	}
}

// touchSize is what a touch counts towards historyBytes.
func touchSize(space string, key Key) int { return len(space) + len(key) }
