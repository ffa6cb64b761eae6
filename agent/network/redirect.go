package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Redirect gives tasks on a bridge of somebody else's (a Docker engine's) what those on our own have: LinkLocal leads to a listener of this
// instance, and the host's own 169.254.169.254 nowhere. It is about the instance's tasks only, so that others on the bridge, another
// instance's among them, are not concerned.
//
// The table, in nft's words:
//
//	set tasks { type ipv4_addr }
//	pre  prerouting: iif bridge, from tasks, to LinkLocal: dnat to the listener
//	raw  prerouting: iif bridge, from tasks, to 169.254.169.254: drop
type Redirect struct {
	// ID of the instance.
	ID     string
	Bridge string
	// To is where the instance listens, on an address of this host.
	To netip.AddrPort
	// AllowMetadata lets tasks reach the host's own 169.254.169.254.
	AllowMetadata bool

	mu sync.Mutex // orders changes of the table
}

// Replace makes the table, for these tasks.
func (r *Redirect) Replace(tasks []netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t, set := r.table(), r.tasks()
	c.AddTable(t) // so that deleting cannot fail
	c.DelTable(t)
	c.AddTable(t)
	var elements []nftables.SetElement
	for _, a := range tasks {
		elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
	}
	if err := c.AddSet(set, elements); err != nil {
		return fmt.Errorf("nftables set %s: %w", set.Name, err)
	}
	rule := func(ch *nftables.Chain, parts ...[]expr.Any) {
		all := iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.Bridge)
		all = append(all, saddr.load(),
			&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID})
		for _, p := range parts {
			all = append(all, p...)
		}
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: all})
	}
	pre := c.AddChain(&nftables.Chain{Name: "pre", Table: t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	rule(pre, address(daddr, expr.CmpOpEq, netip.PrefixFrom(LinkLocal.Addr(), 32)), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(LinkLocal.Port())},
		&expr.Immediate{Register: 1, Data: r.To.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(r.To.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	})
	if !r.AllowMetadata {
		raw := c.AddChain(&nftables.Chain{Name: "raw", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw})
		rule(raw, address(daddr, expr.CmpOpEq, instanceMetadata), verdict(expr.VerdictDrop))
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", t.Name, err)
	}
	return nil
}

// Add takes in a task; Remove lets it go. Both may be repeated.
func (r *Redirect) Add(task netip.Addr) error {
	return r.change(func(c *nftables.Conn) error {
		return c.SetAddElements(r.tasks(), []nftables.SetElement{{Key: task.AsSlice()}})
	})
}

// Remove is the opposite of Add.
func (r *Redirect) Remove(task netip.Addr) error {
	err := r.change(func(c *nftables.Conn) error {
		return c.SetDeleteElements(r.tasks(), []nftables.SetElement{{Key: task.AsSlice()}})
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// Delete removes the table.
func (r *Redirect) Delete() error {
	return r.change(func(c *nftables.Conn) error {
		c.AddTable(r.table())
		c.DelTable(r.table())
		return nil
	})
}

func (r *Redirect) change(change func(*nftables.Conn) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := nftables.New()
	if err == nil {
		err = change(c)
	}
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		return fmt.Errorf("nftables table %s: %w", r.table().Name, err)
	}
	return nil
}

// Exists says whether the table is there.
func (r *Redirect) Exists() (bool, error) { return hasTable(r.table().Name) }

func (r *Redirect) table() *nftables.Table {
	sum := sha256.Sum256([]byte(r.ID))
	return &nftables.Table{Name: "neargate-" + hex.EncodeToString(sum[:4]) + "-linklocal", Family: nftables.TableFamilyIPv4}
}

func (r *Redirect) tasks() *nftables.Set {
	return &nftables.Set{Table: r.table(), Name: "tasks", KeyType: nftables.TypeIPAddr}
}
