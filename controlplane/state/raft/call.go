package raft

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// What servers ask one another besides raft's own protocol. On a connection one call follows the other:
//
//	request:  what is asked (a byte)
//	answer:   whether it is one (a byte), length (4 bytes), so many bytes
const (
	askTerm    = 't' // what is the latest term you know of? Answer: 8 bytes
	askRead    = 'r' // which revision must I have applied to know all that was acknowledged by now? Answer: 8 bytes
	askStatus  = 's' // how are you? Answer: status, as JSON
	askMembers = 'm' // who belongs to the group? Answer: []state.Member, as JSON
)

const (
	answered  = 0
	notLeader = 1 // nothing else to say
	failed    = 2 // and why, in words
)

const maxAnswer = 1 << 20

// callee serves the calls that come by one connection.
func (e *Engine) callee(conn net.Conn) {
	defer conn.Close()
	var request [1]byte
	for {
		if _, err := io.ReadFull(conn, request[:]); err != nil {
			return
		}
		answer, err := e.answer(request[0])
		kind := byte(answered)
		switch {
		case errors.Is(err, state.ErrNotLeader):
			kind, answer = notLeader, nil
		case err != nil:
			kind, answer = failed, []byte(err.Error())
		}
		b := append(make([]byte, 0, 5+len(answer)), kind)
		b = binary.BigEndian.AppendUint32(b, uint32(len(answer)))
		conn.SetWriteDeadline(time.Now().Add(e.rpcTimeout()))
		if _, err := conn.Write(append(b, answer...)); err != nil {
			return
		}
	}
}

func (e *Engine) answer(what byte) ([]byte, error) {
	select {
	case <-e.started:
	case <-e.stop:
		return nil, state.ErrClosed
	}
	switch what {
	case askTerm:
		return number64(e.raft.CurrentTerm()), nil
	case askRead:
		ctx, cancel := context.WithTimeout(e.life, e.rpcTimeout())
		defer cancel()
		r, err := e.reads.share(ctx)
		return number64(uint64(r)), err
	case askStatus:
		return json.Marshal(e.status())
	case askMembers:
		members, err := e.leadersMembers()
		if err != nil {
			return nil, err
		}
		return json.Marshal(members)
	}
	return nil, fmt.Errorf("%q is not something this version can be asked", what)
}

func number64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// caller makes calls to one server, over one connection.
type caller struct {
	links       *links
	id, address string

	mu   sync.Mutex // held during a call, up to its deadline
	conn net.Conn   // nil: none yet, or the last call failed
}

// ask makes one call. ctx must have a deadline. A connection that turns out to be dead is replaced once.
func (c *caller) ask(ctx context.Context, what byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	reused := c.conn != nil
	kind, answer, err := c.exchange(ctx, what)
	if err != nil && reused && ctx.Err() == nil {
		kind, answer, err = c.exchange(ctx, what)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("call server %s at %s: %w", c.id, c.address, err)
	case kind == answered:
		return answer, nil
	case kind == notLeader:
		return nil, state.ErrNotLeader
	}
	return nil, fmt.Errorf("server %s at %s: %s", c.id, c.address, answer)
}

// exchange drops the connection if it fails.
func (c *caller) exchange(ctx context.Context, what byte) (kind byte, answer []byte, err error) {
	if c.conn == nil {
		if c.conn, err = c.links.dial(ctx, forCalls, c.id, c.address); err != nil {
			c.conn = nil
			return 0, nil, err
		}
	}
	defer func() {
		if err != nil {
			c.conn.Close()
			c.conn = nil
		}
	}()
	deadline, _ := ctx.Deadline()
	c.conn.SetDeadline(deadline)
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write([]byte{what}); err != nil {
		return 0, nil, err
	}
	var head [5]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxAnswer {
		return 0, nil, fmt.Errorf("an answer of %d bytes", n)
	}
	answer = make([]byte, n)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return 0, nil, err
	}
	return head[0], answer, nil
}

// callers are those to every server called so far.
type callers struct {
	links *links

	mu sync.Mutex
	of map[[2]string]*caller
}

func (c *callers) to(id, address string) *caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := [2]string{id, address}
	if c.of[key] == nil {
		if c.of == nil {
			c.of = map[[2]string]*caller{}
		}
		c.of[key] = &caller{links: c.links, id: id, address: address}
	}
	return c.of[key]
}
