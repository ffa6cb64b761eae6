package testcluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/testcluster"
)

// group is servers of either engine under load.
type group interface {
	servers() []server // all, running or not
	members() []server // those that belong to the group now
	mend()             // undoes every fault
}

type server interface {
	name() string
	Store() *state.Store // nil while it does not run
	save(ctx context.Context, w io.Writer) (state.Revision, error)
}

// load is many clients that read and write a few records on all servers, and what they and the watchers have seen. Every transaction
// puts one record, so there is an event for each revision.
type load struct {
	t       *testing.T
	group   group
	began   time.Time
	payload int

	working  sync.WaitGroup // clients
	watching sync.WaitGroup
	stopped  atomic.Bool // clients begin nothing more
	stop     context.CancelFunc

	relisted   atomic.Int64            // how often a running watcher found that it had missed something
	generation [registers]atomic.Int64 // a register that saw an uncertain outcome is given up for a new one

	mu      sync.Mutex
	history []porcupine.Operation
	acked   map[state.Revision]change // of acknowledged writes
	seen    map[state.Revision]change // by any watcher
	failed  map[string]int            // errors, by what they say
	writes  int
	last    time.Duration // since began: when a write was acknowledged last
	longest time.Duration // for which none was
}

const (
	registers = 12
	clients   = 16
)

type change struct {
	id     string
	number int64
}

// input and output of porcupine's operations on a register, whose value is a number.
type input struct {
	id    string
	kind  kind
	value int64 // of a put
}

type kind int

const (
	get kind = iota
	put
	add // 1 to what is there
)

type output struct {
	value   int64
	unknown bool
}

var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := map[string][]porcupine.Operation{}
		for _, op := range history {
			id := op.Input.(input).id
			parts[id] = append(parts[id], op)
		}
		var out [][]porcupine.Operation
		for _, p := range parts {
			out = append(out, p)
		}
		return out
	},
	Init: func() any { return int64(0) },
	Step: func(s, in, out any) (bool, any) {
		value, i, o := s.(int64), in.(input), out.(output)
		switch i.kind {
		case get:
			return o.value == value, value
		case put:
			return true, i.value
		}
		return o.unknown || o.value == value+1, value + 1
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

// begin starts clients and watchers.
func begin(t *testing.T, g group, seed uint64, payload int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{
		t: t, group: g, began: time.Now(), stop: cancel, payload: payload,
		acked: map[state.Revision]change{}, seen: map[state.Revision]change{}, failed: map[string]int{},
	}
	for i := range clients {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		l.working.Go(func() {
			for n := 0; !l.stopped.Load(); n++ {
				l.operate(ctx, r, i, n)
			}
		})
	}
	for _, s := range g.servers() {
		l.watch(ctx, s)
	}
	return l
}

func (l *load) operate(ctx context.Context, r *rand.Rand, client, n int) {
	register := r.IntN(registers)
	generation := l.generation[register].Load()
	in := input{id: fmt.Sprintf("%d/%d", register, generation), kind: kind(r.IntN(3)), value: int64(client+1)<<32 + int64(n)<<8}
	called := time.Since(l.began)
	if in.kind == get {
		servers := l.group.servers()
		store := servers[r.IntN(len(servers))].Store()
		if store == nil {
			return
		}
		limit, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		v, err := store.Linearizable(limit)
		if err != nil {
			l.note(err)
			return
		}
		rec, _ := statetest.Records.Get(v, statetest.RecordKey(in.id))
		l.record(client, in, output{value: rec.GetNumber()}, called, time.Since(l.began))
		return
	}
	var value int64
	revision, err := testcluster.Update(ctx, 2*time.Second, l.stores, func(tx *state.Tx) error {
		value = in.value
		if in.kind == add {
			rec, _ := statetest.Records.Get(tx, statetest.RecordKey(in.id))
			value = rec.GetNumber() + 1
		}
		statetest.Records.Put(tx, &statetest.Record{Id: in.id, Number: value, Groups: []string{"all"}, Payload: make([]byte, l.payload)})
		return nil
	})
	switch {
	case err == nil:
		l.record(client, in, output{value: value}, called, time.Since(l.began))
		l.mu.Lock()
		defer l.mu.Unlock()
		if other, twice := l.acked[revision]; twice {
			l.t.Errorf("revision %d is of %v and of %v", revision, other, in)
		}
		l.acked[revision] = change{in.id, value}
		l.writes++
		now := time.Since(l.began)
		l.longest, l.last = max(l.longest, now-l.last), now
	case errors.Is(err, state.ErrUncertain):
		l.note(err)
		l.generation[register].CompareAndSwap(generation, generation+1)
		l.record(client, in, output{unknown: true}, called, -1)
	default:
		l.note(err)
	}
}

// stores are those that run, in any order: one that is stopped in mid-term takes itself for the leader, and answers nobody.
func (l *load) stores() []*state.Store {
	var out []*state.Store
	for _, s := range l.group.servers() {
		if store := s.Store(); store != nil {
			out = append(out, store)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (l *load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed[err.Error()]++
}

// record notes an operation; a negative return time stands for one that may take effect at any time, or never.
func (l *load) record(client int, in input, out output, called, returned time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if returned < 0 {
		returned = 1 << 60
	}
	l.history = append(l.history, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(called), Return: int64(returned)})
}

// watch follows the changes on one server, from restart to restart.
func (l *load) watch(ctx context.Context, s server) {
	l.watching.Go(func() {
		for ctx.Err() == nil {
			store := s.Store()
			if store == nil {
				time.Sleep(time.Millisecond) // it is to be started again; there is nothing to wait on
				continue
			}
			l.follow(ctx, s, store)
		}
	})
}

func (l *load) follow(ctx context.Context, s server, store *state.Store) {
	replica, last := map[string]int64{}, state.Revision(0)
	w := store.Watch(ctx, 0, statetest.Records)
	for ctx.Err() == nil && s.Store() == store {
		limit, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		b, err := w.Next(limit)
		cancel()
		if errors.Is(err, state.ErrCompacted) {
			if last > 0 {
				l.relisted.Add(1)
			}
			v := store.View()
			if v.Revision() < last {
				l.t.Errorf("%s went from revision %d back to %d", s.name(), last, v.Revision())
			}
			replica, last = contents(v), v.Revision()
			w = store.Watch(ctx, last, statetest.Records)
			continue
		} else if err != nil {
			continue
		}
		for _, e := range b.Events {
			id, rec := strings.Join(e.Key.Parts(), "/"), e.New.(*statetest.Record)
			if e.Revision != last+1 {
				l.t.Errorf("%s: the watcher saw revision %d after %d", s.name(), e.Revision, last)
			}
			last = e.Revision
			if old, _ := e.Old.(*statetest.Record); old.GetNumber() != replica[id] {
				l.t.Errorf("%s at %d: old is %v, known was %d", s.name(), e.Revision, old, replica[id])
			}
			replica[id] = rec.GetNumber()
			l.saw(s, e.Revision, change{id, rec.GetNumber()})
		}
		if diff := cmp.Diff(contents(b.View), replica); diff != "" {
			l.t.Errorf("%s: view of batch to %d: %s", s.name(), b.Revision, diff)
			return
		}
	}
}

func (l *load) saw(s server, r state.Revision, c change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, ok := l.seen[r]; ok && other != c {
		l.t.Errorf("revision %d is %v on %s and was %v elsewhere", r, c, s.name(), other)
	}
	l.seen[r] = c
}

func contents(r state.Reader) map[string]int64 {
	m := map[string]int64{}
	for rec := range statetest.Records.Scan(r, state.K()) {
		m[rec.GetId()] = rec.GetNumber()
	}
	return m
}

// end lets everything heal, stops the load and checks all that was seen.
func (l *load) end() {
	l.t.Helper()
	l.group.mend()
	before := l.count()
	await(l.t, "writes are acknowledged again", func() bool { return l.count() >= before+clients })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l.stopped.Store(true)
	l.working.Wait()
	l.agree(ctx)
	l.stop()
	l.watching.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := 0
	for r, c := range l.acked {
		// A revision that no watcher saw was in a snapshot when it reached them.
		if seen, ok := l.seen[r]; ok && seen != c {
			l.t.Errorf("revision %d was acknowledged as %v and is %v", r, c, seen)
		} else if !ok {
			lost++
		}
	}
	l.t.Logf("%d operations, %d writes acknowledged (%d seen by no watcher), none for %v at the longest, errors: %v",
		len(l.history), l.writes, lost, l.longest.Round(time.Millisecond), l.failed)
	if result := porcupine.CheckOperationsTimeout(model, l.history, 20*time.Second); result != porcupine.Ok {
		l.t.Errorf("the history is not linearizable: %v", result)
		for _, part := range model.Partition(l.history) {
			if porcupine.CheckOperationsTimeout(model, part, 20*time.Second) != porcupine.Ok {
				for _, op := range part {
					l.t.Logf("client %d, %v to %v: %s", op.ClientId, time.Duration(op.Call), time.Duration(op.Return), model.DescribeOperation(op.Input, op.Output))
				}
			}
		}
	}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes
}

// agree checks that all servers hold the same bytes, and that every register has what its last write, in the order of revisions, put.
func (l *load) agree(ctx context.Context) {
	l.t.Helper()
	members := l.group.members()
	// What nobody waits for any more may still be on its way.
	var apart error
	defer func() {
		if l.t.Failed() {
			l.t.Log(apart)
		}
	}()
	await(l.t, "all are at one revision", func() bool {
		want := members[0].Store().Revision()
		for _, s := range members {
			_, err := s.Store().Linearizable(ctx)
			if at := s.Store().Revision(); err != nil || at != want {
				apart = fmt.Errorf("%s is at revision %d, %s at %d: %w", s.name(), at, members[0].name(), want, err)
				return false
			}
		}
		return true
	})
	var first bytes.Buffer
	var want state.Revision
	for i, s := range members {
		v, err := s.Store().Linearizable(ctx)
		if err != nil {
			l.t.Fatalf("%s: %v", s.name(), err)
		}
		var b bytes.Buffer
		r, err := s.save(ctx, &b)
		if err != nil {
			l.t.Fatal(err)
		}
		if i == 0 {
			first, want = b, r
		} else if r != want || !bytes.Equal(b.Bytes(), first.Bytes()) {
			l.t.Errorf("%s, at revision %d, differs from the others at %d", s.name(), r, want)
		}
		last := map[string]state.Revision{}
		for rev, c := range l.acked {
			last[c.id] = max(last[c.id], rev)
		}
		for id, rev := range last {
			rec, at, ok := statetest.Records.GetRevision(v, statetest.RecordKey(id))
			if !ok || at < rev || at == rev && rec.GetNumber() != l.acked[rev].number {
				l.t.Errorf("%s: %s is %d of revision %d; acknowledged was %d of %d", s.name(), id, rec.GetNumber(), at, l.acked[rev].number, rev)
			}
		}
	}
}

// await waits until ok, at most a minute.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
