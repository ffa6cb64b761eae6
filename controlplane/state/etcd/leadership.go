package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// term is a time in which this server holds the leader key.
type term struct {
	number int64 // the key's creation revision, which no other term ever has
	lease  clientv3.LeaseID
	ctx    context.Context // ends with the term, as far as this server knows
	end    context.CancelFunc
	head   head // the log's last entry; for the proposer alone, once the term is announced
}

// holds is the fence: the condition of everything a term writes.
func (t *term) holds(k keys) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(k.leader()), "=", t.number)
}

// Leadership implements state.Engine.
func (e *Engine) Leadership() state.Leadership {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leadership
}

// announce makes it known who leads: this server in t, or, t being nil, the server of that id.
func (e *Engine) announce(t *term, leader string) {
	var number uint64
	if t != nil {
		number, leader = uint64(t.number), e.opts.ServerID
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing || e.term == t && e.leadership.Leader == leader {
		return
	}
	close(e.changed)
	e.changed = make(chan struct{})
	e.term, e.leadership = t, state.Leadership{Term: number, Leader: leader, Changed: e.changed}
}

// current is the term in which this server leads; nil if it does not.
func (e *Engine) current() *term {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.term
}

// takePart leads, or waits for its turn, until the engine ends. known is called once it is clear what this server is.
func (e *Engine) takePart(known func()) {
	var last string
	for !e.closed() {
		t, other, err := e.campaign(e.life)
		switch {
		case err != nil:
			if s := err.Error(); s != last && !e.closed() {
				e.logger.Warn("no leadership", "error", err)
				last = s
			}
			e.announce(nil, "")
			known()
			pause(e.life, 10*retryPause)
			continue
		case t != nil:
			e.reign(t, known)
			if e.resigned.Swap(false) {
				pause(e.life, handOver)
			}
		default:
			e.announce(nil, other.id)
			known()
			e.awaitVacancy(e.life, other.revision)
		}
		last = ""
	}
}

// handOver is how long a leader that has resigned leaves the key to others.
const handOver = 2 * time.Second

// holder is who has the leader key.
type holder struct {
	id       string
	revision int64 // of etcd, as of which that was so
}

// campaign takes the leader key if it is free, or says who has it.
func (e *Engine) campaign(ctx context.Context) (*term, holder, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	found, err := e.client.Get(ctx, e.keys.leader())
	if err != nil {
		return nil, holder{}, fmt.Errorf("read who leads: %w", err)
	}
	for _, kv := range found.Kvs {
		if string(kv.Value) != e.opts.ServerID {
			return nil, holder{string(kv.Value), found.Header.Revision}, nil
		}
		// It is this server's, from before it was started again or from a term it has given up. What that may still have under way
		// loses its effect with the key.
		if len(e.leases) > 0 && !e.leases[clientv3.LeaseID(kv.Lease)] {
			return nil, holder{}, fmt.Errorf("another process leads with this server's id, %s, and has since this one started: was the data directory copied?", e.opts.ServerID)
		}
		if err := e.release(ctx, clientv3.LeaseID(kv.Lease)); err != nil {
			return nil, holder{}, err
		}
	}
	began := e.opts.Clock.Now()
	lease, err := e.client.Grant(ctx, int64((e.opts.LeaseTTL+time.Second-1)/time.Second))
	if err != nil {
		if isNoSpace(err) {
			err = noSpace()
		}
		return nil, holder{}, fmt.Errorf("get a lease: %w", err)
	}
	e.leases[lease.ID] = true
	// Only a member leads: whoever removes one is sure of it.
	r, err := e.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(e.keys.leader()), "=", 0), clientv3.Compare(clientv3.CreateRevision(e.keys.removed(e.opts.ServerID)), "=", 0)).
		Then(clientv3.OpPut(e.keys.leader(), e.opts.ServerID, clientv3.WithLease(lease.ID))).
		Else(clientv3.OpGet(e.keys.leader())).Commit()
	if err != nil || !r.Succeeded {
		e.release(context.WithoutCancel(ctx), lease.ID) // if it fails, the lease ends by itself
	}
	switch {
	case err != nil:
		return nil, holder{}, fmt.Errorf("take the leader key: %w", err)
	case !r.Succeeded && r.Responses[0].GetResponseRange().Count == 0:
		return nil, holder{}, errors.New("take the leader key: this server may not, or somebody else's time has just ended")
	case !r.Succeeded && string(value(r, 0)) == e.opts.ServerID:
		return nil, holder{}, errors.New("take the leader key: an earlier attempt was still under way")
	case !r.Succeeded:
		return nil, holder{string(value(r, 0)), r.Header.Revision}, nil
	}
	t := &term{number: r.Header.Revision, lease: lease.ID}
	t.ctx, t.end = context.WithCancel(e.life)
	e.workers.Go(func() { e.keep(t, began) })
	e.workers.Go(func() { e.guard(t) })
	return t, holder{}, nil
}

// release ends a lease, and with it the leader key that hangs on it.
func (e *Engine) release(ctx context.Context, lease clientv3.LeaseID) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if lease == clientv3.NoLease {
		return fmt.Errorf("%s has no lease: somebody wrote it by hand; delete it", e.keys.leader())
	}
	if _, err := e.client.Revoke(ctx, lease); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("end the lease of an earlier term: %w", err)
	}
	return nil
}

// reign announces t once everything from earlier terms has been applied here, and returns when it has ended.
func (e *Engine) reign(t *term, known func()) {
	defer t.end()
	if h, err := e.readHead(t.ctx); err == nil && e.applied(t.ctx, h.index) == nil {
		t.head = h // the last one: no earlier term can write any more
		e.logger.Info("this server leads", "term", t.number, "entries", h.index)
		e.announce(t, "")
		known()
		e.workers.Go(func() { e.removeDead(t) })
		<-t.ctx.Done()
	}
	e.announce(nil, "")
	if !e.closed() {
		e.logger.Warn("this server no longer leads", "term", t.number)
	}
	// Whatever is still on its way to etcd is void once the key is gone, and nobody has to wait for the lease to run out.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.life), 2*time.Second)
	defer cancel()
	e.release(ctx, t.lease) // if it fails, the lease ends by itself
}

// readHead reads the head, linearizably, as often as need be.
func (e *Engine) readHead(ctx context.Context) (head, error) {
	for {
		h, err := e.readHeadOnce(ctx)
		if err == nil || !pause(ctx, retryPause) {
			return h, err
		}
	}
}

func (e *Engine) readHeadOnce(ctx context.Context) (head, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := e.client.Get(ctx, e.keys.head())
	if err != nil {
		return head{}, err
	}
	if len(r.Kvs) == 0 {
		return head{}, nil
	}
	return parseHead(r.Kvs[0].Value)
}

// keep renews the lease, asked for at a time, until the term ends, and ends it at the latest when the lease may have run out.
func (e *Engine) keep(t *term, asked time.Time) {
	defer t.end()
	e.renew(t.ctx, t.lease, asked)
}

// renew renews a lease, asked for at a time, and returns when it has gone or may have run out, or ctx has ended.
func (e *Engine) renew(ctx context.Context, lease clientv3.LeaseID, asked time.Time) {
	over := e.opts.Clock.After(e.opts.LeaseTTL - e.opts.Clock.Now().Sub(asked))
	for ctx.Err() == nil {
		if !e.renewByOne(ctx, lease, &over) {
			return
		}
	}
}

// renewByOne renews a lease by one member of etcd, every third of its time. It returns true when that one is silent, and another one should be
// tried: two renewals are missing. Each renewal moves over, which tells when the lease may have run out.
func (e *Engine) renewByOne(ctx context.Context, lease clientv3.LeaseID, over *<-chan time.Time) bool {
	// A lessor of its own: an error that stops a lease's renewal stops that of all leases of the same client, for ever.
	lessor := clientv3.NewLease(e.client)
	defer lessor.Close()
	renewed, err := lessor.KeepAlive(ctx, lease)
	if err != nil {
		return false
	}
	for {
		select {
		case _, ok := <-renewed:
			if !ok {
				return false // the lease has gone
			}
			*over = e.opts.Clock.After(e.opts.LeaseTTL)
		case <-time.After(e.opts.LeaseTTL * 2 / 3):
			return true
		case <-*over:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// guard ends the term when the leader key has gone: somebody else may lead.
func (e *Engine) guard(t *term) {
	defer t.end()
	for revision := t.number; !e.awaitVacancy(t.ctx, revision); {
		if t.ctx.Err() != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.ctx, requestTimeout)
		found, err := e.client.Get(ctx, e.keys.leader())
		cancel()
		switch {
		case err != nil: // not a sign of anything; the lease decides
		case len(found.Kvs) == 0 || found.Kvs[0].CreateRevision != t.number:
			return
		default:
			revision = found.Header.Revision
		}
	}
}

// awaitVacancy returns true when the leader key, there as of revision, has gone, and false when that can no longer be watched, or has been for
// long: a watch may have become silent.
func (e *Engine) awaitVacancy(ctx context.Context, revision int64) bool {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), e.opts.LeaseTTL)
	defer cancel()
	for r := range e.client.Watch(ctx, e.keys.leader(), clientv3.WithRev(revision+1)) {
		if r.Err() != nil {
			break
		}
		for _, event := range r.Events {
			if event.Type == mvccpb.DELETE {
				return true
			}
		}
	}
	pause(ctx, retryPause)
	return false
}
