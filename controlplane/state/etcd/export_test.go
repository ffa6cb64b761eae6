package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// LoadSnapshot restores the snapshot in force.
func (e *Engine) LoadSnapshot(ctx context.Context) error {
	r, err := e.client.Get(e.life, e.keys.snapshot())
	if err != nil {
		return err
	}
	p, err := parsePointer(r.Kvs[0].Value)
	if err != nil {
		return err
	}
	return e.restore(ctx, p, r.Header.Revision)
}

// Hold returns a commit in the term of now, by a leader that has not noticed yet that the term is over: one that was stopped between
// looking and writing. The term's own end is not looked at.
func (e *Engine) Hold() func(tx *state.Transaction) error {
	t := *e.current()
	t.ctx, t.end = context.WithCancel(context.Background())
	return func(tx *state.Transaction) error {
		next := head{t.head.index + 1, uint64(t.number)}
		return e.settle(&t, next, clientv3.OpPut(e.keys.entry(next.index), string(state.EncodeEntry([]*state.Transaction{tx}))))
	}
}
