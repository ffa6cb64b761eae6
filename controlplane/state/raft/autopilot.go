package raft

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Autopilot is what the leader does about members by itself. The zero value is useful.
type Autopilot struct {
	// Interval is how often the leader looks at the members; 1 s by default.
	Interval time.Duration
	// StableAfter is how long a new server must have been healthy before it gets a vote; 10 s by default.
	StableAfter time.Duration
	// DeadAfter is how long a server must have been silent before it is removed; 0: never. It counts from when this leader began
	// to lead, at the earliest.
	DeadAfter time.Duration
	// MinVoters is how many voters removals leave at least; 3 by default.
	MinVoters int
}

const maxLag = 1024 // entries that a healthy server's log may be behind

func (a *Autopilot) setDefaults() {
	if a.Interval <= 0 {
		a.Interval = time.Second
	}
	if a.StableAfter <= 0 {
		a.StableAfter = 10 * time.Second
	}
	if a.MinVoters <= 0 {
		a.MinVoters = 3
	}
}

// status is what a server says about itself.
type status struct {
	ID        string         `json:"id"`
	Term      uint64         `json:"term"`
	LastIndex uint64         `json:"last_index"`
	Revision  state.Revision `json:"revision"`
	Problem   string         `json:"problem,omitempty"` // why it can write nothing
}

func (e *Engine) status() status {
	s := status{ID: e.opts.NodeID, Term: e.raft.CurrentTerm(), LastIndex: e.raft.LastIndex(), Revision: e.fsm.machine.Revision()}
	if err := e.writable(); err != nil {
		s.Problem = err.Error()
	}
	return s
}

// health is what the leader knows about the other members.
type health struct {
	interval time.Duration

	mu sync.Mutex
	of map[string]*condition // by id
}

type condition struct {
	since   time.Time // this leader looks after the server
	contact time.Time // last answer; zero: none
	last    status
	err     error     // of the last call
	healthy time.Time // since when without interruption; zero: it is not
}

// begin forgets everything: a new term's leader gives everybody time.
func (h *health) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.of = map[string]*condition{}
}

func (h *health) get(id string, now time.Time) *condition {
	c := h.of[id]
	if c == nil {
		c = &condition{since: now}
		if h.of == nil {
			h.of = map[string]*condition{}
		}
		h.of[id] = c
	}
	return c
}

// note takes a server's answer, or that there was none.
func (h *health) note(id string, s status, err error, last uint64, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.get(id, now)
	if err == nil && s.ID != id {
		err = fmt.Errorf("it is server %s that answers there", s.ID)
	}
	if c.err = err; err == nil {
		c.contact, c.last = now, s
	}
	switch {
	case c.reason(last, now, h.interval) != "":
		c.healthy = time.Time{}
	case c.healthy.IsZero():
		c.healthy = now
	}
}

// reason is why a server is not healthy; empty if it is.
func (c *condition) reason(last uint64, now time.Time, interval time.Duration) string {
	switch {
	case c.contact.IsZero() && c.err == nil:
		return "not asked yet"
	case c.err != nil && (c.contact.IsZero() || now.Sub(c.contact) > 3*interval):
		return "silent: " + c.err.Error()
	case c.last.Problem != "":
		return c.last.Problem
	case lag(c.last.LastIndex, last) > maxLag:
		return fmt.Sprintf("%d log entries behind", lag(c.last.LastIndex, last))
	}
	return ""
}

func lag(its, mine uint64) uint64 { return mine - min(its, mine) }

// silent is for how long a server has not answered.
func (c *condition) silent(now time.Time) time.Duration {
	if c.contact.After(c.since) {
		return now.Sub(c.contact)
	}
	return now.Sub(c.since)
}

func (h *health) describe(m *state.Member, last uint64, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.get(m.ID, now)
	m.LastContact, m.LastIndex, m.Revision, m.Lag = c.contact, c.last.LastIndex, c.last.Revision, lag(c.last.LastIndex, last)
	m.Reason = c.reason(last, now, h.interval)
	m.Healthy = m.Reason == ""
}

// stable says whether a server has been healthy for so long.
func (h *health) stable(id string, d time.Duration, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.get(id, now)
	return !c.healthy.IsZero() && now.Sub(c.healthy) >= d
}

func (h *health) silent(id string, now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.get(id, now).silent(now)
}

// autopilot looks after the members while this server leads, until Close.
func (e *Engine) autopilot() {
	for {
		l := e.Leadership()
		if l.Changed == nil {
			return
		}
		if l.Term != 0 {
			e.health.begin()
			e.lookAfter(l)
		}
		select {
		case <-l.Changed:
		case <-e.stop:
			return
		}
	}
}

// lookAfter runs for one term.
func (e *Engine) lookAfter(l state.Leadership) {
	for {
		e.askAll()
		if err := e.act(); err != nil {
			e.logger.Warn("change of members failed; trying again", "error", err)
		}
		select {
		case <-e.opts.Clock.After(e.opts.Autopilot.Interval):
		case <-l.Changed:
			return
		case <-e.stop:
			return
		}
	}
}

func (e *Engine) askAll() {
	var group sync.WaitGroup
	for _, s := range e.configuration() {
		if string(s.ID) == e.opts.NodeID {
			continue
		}
		group.Go(func() {
			ctx, cancel := context.WithTimeout(e.life, e.rpcTimeout())
			defer cancel()
			var its status
			answer, err := e.callers.to(string(s.ID), string(s.Address)).ask(ctx, askStatus)
			if err == nil {
				err = json.Unmarshal(answer, &its)
			}
			e.health.note(string(s.ID), its, err, e.raft.LastIndex(), e.opts.Clock.Now())
		})
	}
	group.Wait()
}

// act makes at most one change: the next one is decided on what has become of it.
func (e *Engine) act() error {
	members, err := e.leadersMembers()
	if err != nil {
		return nil // its successor acts
	}
	ctx, cancel := context.WithTimeout(e.life, 10*e.timeout)
	defer cancel()
	now := e.opts.Clock.Now()
	voters, healthyVoters := 0, 0
	for _, m := range members {
		if m.Voter {
			if voters++; m.Healthy {
				healthyVoters++
			}
		}
	}
	for _, m := range members {
		switch {
		case m.Leader && m.Address != e.opts.address():
			e.logger.Warn("this server's address has changed", "from", m.Address, "to", e.opts.address())
			return e.await(ctx, "change own address", func() raft.Future {
				return e.raft.AddVoter(raft.ServerID(m.ID), raft.ServerAddress(e.opts.address()), 0, e.timeout)
			})
		case m.Leader && !m.Healthy && healthyVoters > voters/2:
			e.logger.Warn("handing over leadership, for this server cannot write", "reason", m.Reason)
			return e.TransferLeadership(ctx, "")
		case !m.Voter && !m.Leader && m.Healthy && e.health.stable(m.ID, e.opts.Autopilot.StableAfter, now):
			e.logger.Warn("server gets a vote", "server", m.ID, "address", m.Address)
			return e.await(ctx, "give a vote to "+m.ID, func() raft.Future {
				return e.raft.AddVoter(raft.ServerID(m.ID), raft.ServerAddress(m.Address), 0, e.timeout)
			})
		case !m.Leader && !m.Healthy && e.dead(m, voters, healthyVoters, now):
			e.logger.Warn("server is removed, for it has been silent for too long", "server", m.ID, "address", m.Address, "reason", m.Reason)
			return e.RemoveServer(ctx, m.ID)
		}
	}
	return nil
}

// dead says whether a silent server is to be removed. A voter is only if enough voters stay, and a majority of them is healthy.
func (e *Engine) dead(m state.Member, voters, healthyVoters int, now time.Time) bool {
	limit := e.opts.Autopilot.DeadAfter
	if limit <= 0 || e.health.silent(m.ID, now) < limit {
		return false
	}
	stay := voters - 1
	return !m.Voter || stay >= e.opts.Autopilot.MinVoters && healthyVoters >= stay/2+1
}
