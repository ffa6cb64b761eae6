package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// ErrRemoved: this server was removed from the installation.
var ErrRemoved = errors.New("etcd: this server was removed from the cluster: empty its data directory and have it join anew, with a token")

// register makes this server a member, at its present address: whoever has the installation's sealing key and may write below the prefix is
// one. A server that was removed is none any more.
func (e *Engine) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	key := e.keys.server(e.opts.ServerID)
	r, err := e.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(e.keys.removed(e.opts.ServerID)), "=", 0)).Then(clientv3.OpGet(key)).Commit()
	switch {
	case err != nil:
		return fmt.Errorf("etcd: read %s: %w", key, err)
	case !r.Succeeded:
		return ErrRemoved
	case r.Responses[0].GetResponseRange().Count == 1 && string(value(r, 0)) == e.opts.Address:
		return nil
	}
	_, err = e.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(e.keys.removed(e.opts.ServerID)), "=", 0)).
		Then(clientv3.OpPut(key, e.opts.Address)).Commit()
	if isNoSpace(err) {
		e.logger.Warn("the other servers do not hear where this one is", "error", noSpace())
		return nil
	}
	if err != nil {
		return fmt.Errorf("etcd: write %s: %w", key, err)
	}
	return nil
}

// attend keeps a key that says that this server is there, on a lease of its own, until the engine ends.
func (e *Engine) attend() {
	for !e.closed() {
		if err := e.attendOnce(); err != nil && !e.closed() {
			e.logger.Debug("the others may take this server for lost", "error", err)
		}
		pause(e.life, 10*retryPause)
	}
}

func (e *Engine) attendOnce() error {
	ctx, cancel := context.WithTimeout(e.life, requestTimeout)
	defer cancel()
	asked := e.opts.Clock.Now()
	lease, err := e.client.Grant(ctx, int64((e.opts.LeaseTTL+time.Second-1)/time.Second))
	if err != nil {
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(e.life), time.Second)
		defer cancel()
		_, _ = e.client.Revoke(last, lease.ID) // if it fails, the lease ends by itself
	}()
	if _, err := e.client.Put(ctx, e.keys.alive(e.opts.ServerID), "", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	e.renew(e.life, lease.ID, asked)
	return errors.New("the lease has gone")
}

// heed ends the engine when this server is removed.
func (e *Engine) heed() {
	key := e.keys.removed(e.opts.ServerID)
	for !e.closed() {
		ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(e.life))
		watch := e.client.Watch(ctx, key)
		if found, err := e.client.Get(ctx, key); err == nil && found.Count > 0 {
			e.fail(ErrRemoved)
		}
		for r := range watch {
			if r.Err() != nil {
				break
			}
			if len(r.Events) > 0 {
				e.fail(ErrRemoved)
			}
		}
		cancel()
		pause(e.life, 10*retryPause)
	}
}

// Members are the servers of the installation, on any of them.
func (e *Engine) Members(ctx context.Context) ([]state.Member, error) {
	limit, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := e.client.Txn(limit).Then(clientv3.OpGet(e.keys.servers(), clientv3.WithPrefix()), clientv3.OpGet(e.keys.allAlive(), clientv3.WithPrefix()),
		clientv3.OpGet(e.keys.leader())).Commit()
	if err != nil {
		return nil, fmt.Errorf("%w: read who the servers are: %w", state.ErrNoLeader, err)
	}
	alive := map[string]bool{}
	for _, kv := range r.Responses[1].GetResponseRange().Kvs {
		alive[strings.TrimPrefix(string(kv.Key), e.keys.allAlive())] = true
	}
	leader := string(value(r, 2))
	var members []state.Member
	for _, kv := range r.Responses[0].GetResponseRange().Kvs {
		m := state.Member{ID: strings.TrimPrefix(string(kv.Key), e.keys.servers()), Address: string(kv.Value), Voter: true}
		m.Leader = m.ID == leader
		if m.Healthy = alive[m.ID] || m.ID == e.opts.ServerID; m.Healthy {
			m.LastContact = e.opts.Clock.Now()
		} else {
			m.Reason = "silent: it has not renewed its lease in etcd"
		}
		members = append(members, m)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known = members
	return members, nil
}

// Known are the members as Members last told, without anybody being asked.
func (e *Engine) Known() []state.Member {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known
}

// AddServer makes a server a member, or changes its address. Only the leader does so: others answer state.ErrNotLeader.
func (e *Engine) AddServer(ctx context.Context, id, address string) error {
	if id == "" || address == "" {
		return errors.New("etcd: add server: it needs an id and an address")
	}
	t := e.current()
	if t == nil {
		return state.ErrNotLeader
	}
	members, err := e.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		switch {
		case m.ID == id && m.Address == address:
			return nil
		case m.ID != id && m.Address == address:
			return &state.AddressInUseError{Address: address, ID: m.ID}
		}
	}
	return e.put(t, clientv3.OpPut(e.keys.server(id), address))
}

// RemoveServer removes a member for good: it stops, and its id is refused from then on. A leader that is to remove itself hands over first
// and answers state.ErrNotLeader: its successor is to be asked.
func (e *Engine) RemoveServer(ctx context.Context, id string) error {
	t := e.current()
	if t == nil {
		return state.ErrNotLeader
	}
	members, err := e.Members(ctx)
	if err != nil {
		return err
	}
	found, others := false, 0
	for _, m := range members {
		if m.ID == id {
			found = true
		} else if m.Healthy {
			others++
		}
	}
	switch {
	case !found:
		return fmt.Errorf("remove server %s: %w", id, state.ErrNotMember)
	case len(members) == 1:
		return fmt.Errorf("remove server %s: %w", id, state.ErrLastVoter)
	case id == e.opts.ServerID && others == 0:
		return fmt.Errorf("remove server %s, which leads: no other server is there to take over", id)
	case id == e.opts.ServerID:
		e.resigned.Store(true)
		t.end()
		return state.ErrNotLeader
	}
	return e.put(t, clientv3.OpDelete(e.keys.server(id)), clientv3.OpDelete(e.keys.alive(id)), clientv3.OpPut(e.keys.removed(id), ""))
}

// minServers is how many members removeDead leaves at least.
const minServers = 3

// removeDead removes members that have been silent for Options.DeadAfter, until the term ends.
func (e *Engine) removeDead(t *term) {
	if e.opts.DeadAfter <= 0 {
		return
	}
	since := map[string]time.Time{}
	for {
		members, err := e.Members(t.ctx)
		now := e.opts.Clock.Now()
		if err != nil {
			clear(since) // they may have come back, and gone again, meanwhile
		}
		for _, m := range members {
			if m.Healthy {
				delete(since, m.ID)
				continue
			}
			if _, known := since[m.ID]; !known {
				since[m.ID] = now
			}
			if now.Sub(since[m.ID]) >= e.opts.DeadAfter && len(members) > minServers {
				e.logger.Warn("server is removed, for it has been silent for too long", "server", m.ID, "address", m.Address)
				if err := e.RemoveServer(t.ctx, m.ID); err != nil {
					e.logger.Warn("a silent server could not be removed; trying again", "server", m.ID, "error", err)
				}
				break // the next one is decided on what has become of it
			}
		}
		select {
		case <-e.opts.Clock.After(min(e.opts.DeadAfter/10, time.Minute)):
		case <-t.ctx.Done():
			return
		}
	}
}
