package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Intercept leads the TCP traffic of a process's network namespace, which is a task's, through the task's proxy, as ECS does for App Mesh. The
// table is the namespace's and goes with it. In nft's words:
//
//	ingress  prerouting: not from a local address, to an app port: redirect to the ingress port
//	egress   output: of the ignored user or group, to an ignored port, to an ignored block, to a local address: return; redirect to the egress port
//
// What the proxy sends to the application goes to a local address, so it is not led back to it.
func Intercept(pid int, i *agentapi.Interception) error {
	ns, h, err := namespace(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer h.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return fmt.Errorf("nftables of the task: %w", err)
	}
	if err := intercept(c, i); err != nil {
		return fmt.Errorf("lead traffic through the task's proxy: %w", err)
	}
	return nil
}

func intercept(c *nftables.Conn, i *agentapi.Interception) error {
	if i.EgressPort == 0 || i.IgnoredUser == nil && i.IgnoredGroup == nil {
		return errors.New("without a port to go to, and a user or a group whose traffic is left alone, it would go round in circles")
	}
	t := &nftables.Table{Name: "neargate-proxy", Family: nftables.TableFamilyIPv4}
	c.AddTable(t) // so that deleting cannot fail
	c.DelTable(t)
	c.AddTable(t)
	chain := func(name string, hook *nftables.ChainHook) func(...[]expr.Any) {
		ch := c.AddChain(&nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: nftables.ChainPriorityNATDest})
		return func(parts ...[]expr.Any) {
			var all []expr.Any
			for _, p := range parts {
				all = append(all, p...)
			}
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: all})
		}
	}
	leave := verdict(expr.VerdictReturn)
	tcp := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{unix.IPPROTO_TCP}},
	}

	ingress := chain("ingress", nftables.ChainHookPrerouting)
	for _, port := range i.AppPorts {
		ingress(tcp, local(&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true}, expr.CmpOpNeq), toPort(port), redirect(i.IngressPort))
	}

	egress := chain("egress", nftables.ChainHookOutput)
	for key, id := range map[expr.MetaKey]*uint32{expr.MetaKeySKUID: i.IgnoredUser, expr.MetaKeySKGID: i.IgnoredGroup} {
		if id != nil {
			egress([]expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: binaryutil.NativeEndian.PutUint32(*id)}}, leave)
		}
	}
	for _, port := range i.IgnoredPorts {
		egress(tcp, toPort(port), leave)
	}
	for _, block := range i.IgnoredBlocks {
		p, err := netip.ParsePrefix(block)
		if err != nil {
			return err
		}
		if p.Addr().Is4() { // tasks have no other addresses
			egress(address(daddr, expr.CmpOpEq, p), leave)
		}
	}
	egress(local(&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true}, expr.CmpOpEq), leave)
	egress(tcp, redirect(i.EgressPort))
	return c.Flush()
}

func local(which *expr.Fib, op expr.CmpOp) []expr.Any {
	return []expr.Any{which, &expr.Cmp{Register: 1, Op: op, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)}}
}

func toPort(port uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: binaryutil.BigEndian.PutUint16(uint16(port))},
	}
}

func redirect(port uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(uint16(port))},
		&expr.Redir{RegisterProtoMin: 1},
	}
}
