package etcd

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// keys are the names under which an installation's state stands. Below the prefix:
//
//	format        what this is and whose
//	leader        the id of the server that leads; leased; its creation revision is the term
//	head          index of the last entry, and the term that wrote it
//	log/INDEX     an entry, as state.EncodeEntry makes it; INDEX is 16 hexadecimal digits
//	snapshot      which snapshot is in force
//	snap/ID/PART  a part of one; PART is 8 hexadecimal digits
//	server/ID     a member, and the address at which the others reach it
//	alive/ID      that it is there; leased
//	removed/ID    that it is a member no more, and never again
type keys struct{ prefix string } // ends in a slash

// newKeys makes a prefix canonical, so that none is the beginning of another one's keys by accident.
func newKeys(prefix string) (keys, error) {
	if prefix == "" {
		prefix = "/neargate"
	}
	trimmed := strings.Trim(prefix, "/")
	if trimmed == "" || strings.Contains(trimmed, "//") || strings.ContainsFunc(trimmed, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return keys{}, fmt.Errorf("etcd: %q is no prefix: it has to be names joined by slashes", prefix)
	}
	return keys{"/" + trimmed + "/"}, nil
}

func (k keys) format() string           { return k.prefix + "format" }
func (k keys) leader() string           { return k.prefix + "leader" }
func (k keys) head() string             { return k.prefix + "head" }
func (k keys) snapshot() string         { return k.prefix + "snapshot" }
func (k keys) log() string              { return k.prefix + "log/" }
func (k keys) entry(n uint64) string    { return fmt.Sprintf("%s%016x", k.log(), n) }
func (k keys) snaps() string            { return k.prefix + "snap/" }
func (k keys) snap(id string) string    { return k.snaps() + id + "/" }
func (k keys) servers() string          { return k.prefix + "server/" }
func (k keys) server(id string) string  { return k.servers() + id }
func (k keys) allAlive() string         { return k.prefix + "alive/" }
func (k keys) alive(id string) string   { return k.allAlive() + id }
func (k keys) removed(id string) string { return k.prefix + "removed/" + id }
func (k keys) part(id string, i int) string {
	return fmt.Sprintf("%s%08x", k.snap(id), i)
}

// index is which entry a key of the log is.
func (k keys) index(key []byte) (uint64, error) {
	digits, ok := strings.CutPrefix(string(key), k.log())
	n, err := strconv.ParseUint(digits, 16, 64)
	if !ok || err != nil || string(key) != k.entry(n) {
		return 0, fmt.Errorf("%q is not the key of an entry", key)
	}
	return n, nil
}

// after is the end of all keys that begin with prefix.
func after(prefix string) string { return clientv3.GetPrefixRangeEnd(prefix) }

// head is the last entry of the log.
type head struct{ index, term uint64 }

func (h head) String() string { return fmt.Sprintf("%d %d", h.index, h.term) }

// parseHead reads what String wrote; nothing is the head of an empty log.
func parseHead(value []byte) (head, error) {
	if len(value) == 0 {
		return head{}, nil
	}
	var h head
	if n, err := fmt.Sscanf(string(value), "%d %d", &h.index, &h.term); n != 2 || err != nil || h.String() != string(value) {
		return head{}, fmt.Errorf("%q is no head", value)
	}
	return h, nil
}

// pointer says which snapshot is in force. The zero one stands for the empty state.
type pointer struct {
	ID    string `json:"id"`
	Index uint64 `json:"index"` // of the last entry in it
	Parts int    `json:"parts"`
	Bytes int64  `json:"bytes"`
}

func (p pointer) encode() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(b)
}

func parsePointer(value []byte) (pointer, error) {
	var p pointer
	if len(value) == 0 {
		return p, nil
	}
	if err := json.Unmarshal(value, &p); err != nil {
		return pointer{}, fmt.Errorf("%q is no pointer to a snapshot: %w", value, err)
	}
	return p, nil
}
