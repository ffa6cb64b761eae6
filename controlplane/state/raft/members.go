package raft

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Server is a server's id and the address at which the others reach it.
type Server struct {
	ID      string
	Address string
}

// Members are the servers of the group with what the leader knows about them. On a server that follows the leader is asked.
func (e *Engine) Members(ctx context.Context) ([]state.Member, error) {
	for {
		l, err := e.awaitLeader(ctx)
		if err != nil {
			return nil, err
		}
		members, err := e.askMembers(ctx, l)
		switch {
		case err == nil:
			return members, nil
		case e.closed():
			return nil, state.ErrClosed
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%w: %w", state.ErrNoLeader, ctx.Err())
		}
		select {
		case <-l.Changed:
		case <-time.After(e.timeout / 20):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", state.ErrNoLeader, ctx.Err())
		}
	}
}

func (e *Engine) askMembers(ctx context.Context, l state.Leadership) ([]state.Member, error) {
	if l.Term != 0 {
		return e.leadersMembers()
	}
	ctx, cancel := context.WithTimeout(ctx, e.rpcTimeout())
	defer cancel()
	address, id := e.raft.LeaderWithID()
	if id == "" || string(id) == e.opts.NodeID {
		return nil, state.ErrNotLeader
	}
	answer, err := e.callers.to(string(id), string(address)).ask(ctx, askMembers)
	if err != nil {
		return nil, err
	}
	var members []state.Member
	if err := json.Unmarshal(answer, &members); err != nil {
		return nil, fmt.Errorf("raft: members as server %s has them: %w", id, err)
	}
	return members, nil
}

// leadersMembers are the members as this server, which leads, knows them.
func (e *Engine) leadersMembers() ([]state.Member, error) {
	if err := e.leads(); err != nil {
		return nil, err
	}
	return e.describe(), nil
}

// describe is leadersMembers without asking who leads.
func (e *Engine) describe() []state.Member {
	var members []state.Member
	for _, s := range e.configuration() {
		m := state.Member{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter}
		if m.ID == e.opts.NodeID {
			mine := e.status()
			m.Leader, m.LastContact, m.LastIndex, m.Revision = true, e.opts.Clock.Now(), mine.LastIndex, mine.Revision
			m.Healthy, m.Reason = mine.Problem == "", mine.Problem
		} else {
			e.health.describe(&m, e.raft.LastIndex(), e.opts.Clock.Now())
		}
		members = append(members, m)
	}
	return members
}

// configuration are the members as this server knows them.
func (e *Engine) configuration() []raft.Server {
	return e.raft.GetConfiguration().Configuration().Servers // has no error: it is from memory
}

func (e *Engine) member(id string) (raft.Server, bool) {
	for _, s := range e.configuration() {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// AddServer makes a server a member, at first without a vote; the leader gives it one when it has caught up and been healthy for a
// while. If it is a member already its address is changed. Only the leader does so: others answer state.ErrNotLeader.
func (e *Engine) AddServer(ctx context.Context, id, address string) error {
	if id == "" || address == "" {
		return errors.New("raft: add server: it needs an id and an address")
	}
	if err := e.leads(); err != nil {
		return err
	}
	for _, s := range e.configuration() {
		switch {
		case string(s.ID) == id && string(s.Address) == address:
			return nil
		case string(s.ID) != id && string(s.Address) == address:
			return &state.AddressInUseError{Address: address, ID: string(s.ID)}
		}
	}
	// Of a member that has a vote this changes the address alone.
	return e.await(ctx, "add server "+id, func() raft.Future {
		return e.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, e.enqueueTimeout(ctx))
	})
}

// RemoveServer removes a member. A leader that is to remove itself hands over first and answers state.ErrNotLeader: its successor
// is to be asked. What is removed goes on following nobody; it is its operator's to stop.
func (e *Engine) RemoveServer(ctx context.Context, id string) error {
	if err := e.leads(); err != nil {
		return err
	}
	s, ok := e.member(id)
	if !ok {
		return fmt.Errorf("remove server %s: %w", id, state.ErrNotMember)
	}
	voters := 0
	for _, other := range e.configuration() {
		if other.Suffrage == raft.Voter {
			voters++
		}
	}
	if s.Suffrage == raft.Voter && voters == 1 {
		return fmt.Errorf("remove server %s: %w", id, state.ErrLastVoter)
	}
	if id == e.opts.NodeID {
		if err := e.TransferLeadership(ctx, ""); err != nil {
			return fmt.Errorf("remove server %s, which leads: %w", id, err)
		}
		return state.ErrNotLeader
	}
	return e.await(ctx, "remove server "+id, func() raft.Future {
		return e.raft.RemoveServer(raft.ServerID(id), 0, e.enqueueTimeout(ctx))
	})
}

// TransferLeadership makes server id leader, or whoever suits best if id is empty. It returns when this server no longer leads. In
// the meantime, a few milliseconds, writes wait.
func (e *Engine) TransferLeadership(ctx context.Context, id string) error {
	if err := e.leads(); err != nil {
		return err
	}
	if id == e.opts.NodeID {
		return errors.New("raft: transfer leadership: this server leads already")
	}
	to, err := pick(e.describe(), id)
	if err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	return e.await(ctx, "transfer leadership to "+string(to.ID), func() raft.Future {
		return e.raft.LeadershipTransferToServer(to.ID, to.Address)
	})
}

// pick is the server called id, or, if that is empty, the healthy voter that has most of the log.
func pick(members []state.Member, id string) (raft.Server, error) {
	var best *state.Member
	for _, m := range members {
		switch {
		case m.Leader || id != "" && m.ID != id:
			continue
		case id != "" && !m.Voter:
			return raft.Server{}, fmt.Errorf("server %s has no vote", id)
		case !m.Voter:
			continue
		}
		if best == nil || m.Healthy && !best.Healthy || m.Healthy == best.Healthy && m.LastIndex > best.LastIndex {
			best = &m
		}
	}
	switch {
	case best == nil && id != "":
		return raft.Server{}, fmt.Errorf("server %s: %w", id, state.ErrNotMember)
	case best == nil:
		return raft.Server{}, state.ErrLastVoter
	}
	return raft.Server{ID: raft.ServerID(best.ID), Address: raft.ServerAddress(best.Address)}, nil
}

func (e *Engine) leads() error {
	switch l := e.Leadership(); {
	case l.Changed == nil:
		return state.ErrClosed
	case l.Term == 0:
		return state.ErrNotLeader
	}
	return nil
}

// enqueueTimeout is how long raft may take to begin a change of members.
func (e *Engine) enqueueTimeout(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), time.Millisecond)
	}
	return 0
}

// await begins something and waits for it until ctx ends.
func (e *Engine) await(ctx context.Context, what string, begin func() raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- begin().Error() }() // ends with raft at the latest
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s: %w", what, translate(err))
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w: %w", what, state.ErrUncertain, ctx.Err())
	case <-e.stop:
		return fmt.Errorf("%s: %w: %w", what, state.ErrUncertain, state.ErrClosed)
	}
}

// Known are the members as this server's own log has them: ids and addresses, without anybody being asked.
func (e *Engine) Known() []state.Member {
	var members []state.Member
	for _, s := range e.configuration() {
		members = append(members, state.Member{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return members
}
