// Package statetest helps to test code that uses package state, and engines.
package statetest

import (
	"context"
	"sync"
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// New is an empty store with the tables of schema, in memory, that always leads. It is closed when t ends.
func New(t testing.TB, schema ...state.TableInfo) *state.Store {
	t.Helper()
	engine := NewEngine()
	t.Cleanup(func() { engine.Close() })
	s, err := state.New(engine, schema, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Engine is an engine that keeps nothing and always leads.
type Engine struct {
	mu      sync.Mutex // held while an entry is applied, so that there is an order
	machine *state.Machine
	closed  chan struct{}
}

// NewEngine makes one, not yet started.
func NewEngine() *Engine { return &Engine{closed: make(chan struct{})} }

// Start keeps m.
func (e *Engine) Start(m *state.Machine) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.machine = m
	return nil
}

// Commit applies tx at once, by way of its encoding as every engine does.
func (e *Engine) Commit(ctx context.Context, tx *state.Transaction) (state.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return state.Outcome{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.isClosed() {
		return state.Outcome{}, state.ErrClosed
	}
	outcomes, err := e.machine.Apply(state.EncodeEntry([]*state.Transaction{tx}))
	if err != nil {
		return state.Outcome{}, err
	}
	return outcomes[0], nil
}

// Barrier has nothing to wait for.
func (e *Engine) Barrier(ctx context.Context) error {
	if e.isClosed() {
		return state.ErrClosed
	}
	return ctx.Err()
}

// Leadership is always this engine's until it is closed.
func (e *Engine) Leadership() state.Leadership {
	if e.isClosed() {
		return state.Leadership{}
	}
	return state.Leadership{Term: 1, Leader: "memory", Changed: e.closed}
}

// Close ends the engine. It may be called twice.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.isClosed() {
		close(e.closed)
	}
	return nil
}

func (e *Engine) isClosed() bool {
	select {
	case <-e.closed:
		return true
	default:
		return false
	}
}
