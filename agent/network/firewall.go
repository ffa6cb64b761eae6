package network

import (
	"bytes"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// passFirewall lets the bridge's packets through the host's own packet filter where that drops what it does not know: Docker
// sets the policy of filter/FORWARD to drop, and an accept in our table does not outweigh a drop in another. What may enter the
// bridge is then decided by our table alone. The two rules are put where users are meant to put theirs, DOCKER-USER, else
// FORWARD; they look as iptables' own and carry the instance's name.
func (n *Network) passFirewall(f *family) error {
	c, chain, rules, err := n.firewall(f)
	if err != nil || chain == nil {
		return err
	}
	for _, r := range rules {
		if bytes.Equal(r.UserData, n.firewallTag()) {
			return nil
		}
	}
	for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		exprs := append(iface(key, expr.CmpOpEq, n.bridge), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
		c.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: exprs, UserData: n.firewallTag()})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("let bridge %s through chain %s: %w", n.bridge, chain.Name, err)
	}
	return nil
}

// leaveFirewall takes the rules out again.
func (n *Network) leaveFirewall(f *family) error {
	c, chain, rules, err := n.firewall(f)
	if err != nil || chain == nil {
		return err
	}
	found := false
	for _, r := range rules {
		if !bytes.Equal(r.UserData, n.firewallTag()) {
			continue
		}
		found = true
		if err := c.DelRule(r); err != nil {
			return err
		}
	}
	if !found {
		return nil
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("take bridge %s out of chain %s: %w", n.bridge, chain.Name, err)
	}
	return nil
}

// firewallTag is a comment as nft writes them: type, length, text.
func (n *Network) firewallTag() []byte {
	text := "neargate-" + n.short + "\x00"
	return append([]byte{0, byte(len(text))}, text...)
}

// firewall finds the chain to change and its rules; nil when the host filters nothing that is forwarded.
func (n *Network) firewall(f *family) (*nftables.Conn, *nftables.Chain, []*nftables.Rule, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("nftables: %w", err)
	}
	chains, err := c.ListChainsOfTableFamily(f.table)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var chosen *nftables.Chain
	for _, ch := range chains {
		if ch.Table.Name != "filter" {
			continue
		}
		if ch.Name == "DOCKER-USER" || chosen == nil && ch.Name == "FORWARD" && ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
			chosen = ch
		}
	}
	if chosen == nil {
		return c, nil, nil, nil
	}
	rules, err := c.GetRules(chosen.Table, chosen)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("list rules of chain %s: %w", chosen.Name, err)
	}
	return c, chosen, rules, nil
}
