package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Kinds are the sets that the network lives on. They are kept on disk, so that a new process goes on with them before it has heard from
// a server: for a moment without, connections would be refused or let through that must not be.
func (n *Network) Kinds() []agentapi.Kind {
	return []agentapi.Kind{agentapi.Kind_PEERS, agentapi.Kind_FIREWALL}
}

// Apply makes an update effective. Before Up it is only noted.
func (n *Network) Apply(_ context.Context, u *agentapi.Update) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.take(u)
	if err := n.keepSet(u.Kind); err != nil {
		return err
	}
	if !n.up {
		return nil
	}
	if u.Kind == agentapi.Kind_FIREWALL {
		return n.filter()
	}
	if err := n.connectPeers(); err != nil {
		return err
	}
	return n.filter() // which other hosts there are is part of the rules
}

// take changes what is known.
func (n *Network) take(u *agentapi.Update) {
	switch u.Kind {
	case agentapi.Kind_PEERS:
		if u.Full {
			clear(n.peers)
		}
		for _, r := range u.Resources {
			n.peers[r.Name] = r.GetPeer()
		}
		for _, name := range u.Removed {
			delete(n.peers, name)
		}
	case agentapi.Kind_FIREWALL:
		if u.Full {
			clear(n.groups)
		}
		for _, r := range u.Resources {
			n.groups[r.Name] = r.GetSecurityGroup()
		}
		for _, name := range u.Removed {
			delete(n.groups, name)
		}
		close(n.learned)
		n.learned = make(chan struct{})
	}
}

func (n *Network) setFile(kind agentapi.Kind) string {
	return filepath.Join(n.cfg.Folder, kind.String()+".set")
}

func (n *Network) keepSet(kind agentapi.Kind) error {
	u := &agentapi.Update{Kind: kind, Full: true}
	if kind == agentapi.Kind_PEERS {
		for name, p := range n.peers {
			u.Resources = append(u.Resources, &agentapi.Resource{Name: name, Body: &agentapi.Resource_Peer{Peer: p}})
		}
	} else {
		for name, g := range n.groups {
			u.Resources = append(u.Resources, &agentapi.Resource{Name: name, Body: &agentapi.Resource_SecurityGroup{SecurityGroup: g}})
		}
	}
	b, err := proto.Marshal(u)
	if err != nil {
		return err
	}
	// Not synced: a host that was down has no tasks, and gets its sets anew.
	file := n.setFile(kind)
	if err := os.WriteFile(file+".new", b, 0o600); err != nil {
		return fmt.Errorf("keep set %s: %w", kind, err)
	}
	return os.Rename(file+".new", file)
}

// recall takes up the sets of a former process, unless this one has heard newer ones.
func (n *Network) recall() error {
	for _, kind := range n.Kinds() {
		if kind == agentapi.Kind_PEERS && len(n.peers) > 0 || kind == agentapi.Kind_FIREWALL && len(n.groups) > 0 {
			continue
		}
		b, err := os.ReadFile(n.setFile(kind))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		u := &agentapi.Update{}
		if err := proto.Unmarshal(b, u); err != nil || u.Kind != kind {
			n.cfg.Logger.Warn("a kept set is broken; waiting for the server's", "set", kind, "error", err)
			continue
		}
		n.take(u)
	}
	return nil
}
