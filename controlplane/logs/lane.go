package logs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/id"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// In a cluster the events of a log stream are in lanes. A lane is appended to by one server, while it leads, in one term, and is copied to
// its holders before an append is acknowledged; it is closed, with where it ends, before the next is opened. docs/design/logs.md says why
// that neither loses nor doubles.
//
// Invariants:
//   - An event that was acknowledged is on the disk of every holder of its lane: first on the others', last on the writer's.
//   - An append is acknowledged only if its server was found, afterwards, to lead still in the term that opened the lane. So whoever leads
//     later, and closes the lane, finds it with any one of the holders.
//   - What a copy has beyond a lane's end is not of the stream.
//   - Lanes follow one another without a gap in their positions.

// Servers are the others of a cluster.
type Servers interface {
	Self() string
	// Others are the other members: first those that are well.
	Others(ctx context.Context) ([]string, error)
	// Copy appends an encoded batch to what a server has of a lane, durably.
	Copy(ctx context.Context, server, data string, batch []byte) error
	// Stat says what a server has of lanes.
	Stat(ctx context.Context, server string, data []string) ([]stream.Info, error)
	// Fetch hands out, encoded, the batches that a server has of a lane from a position on.
	Fetch(ctx context.Context, server, data string, from uint64, take func(batch []byte) error) error
	// Ship lets the leader, another server, take a batch, and answers the stream's mark. Its errors are gRPC's.
	Ship(ctx context.Context, batch *agentapi.ShipBatch) (mark uint64, err error)
}

// copyTimeout is how long a server may take over a batch, or to say what it has, before its copy is held to be lost.
const copyTimeout = 5 * time.Second

var (
	errTooFew   = errors.New("too few servers can be reached that could keep a copy of log events")
	errNoHolder = errors.New("none of the servers that keep these log events can be reached")
)

// writers are the streams that this server appends to.
type writers struct {
	mu sync.Mutex
	of map[string]*writer // by LogStream.data
	// open are the lanes that this process has opened and not failed on, with the term.
	open map[string]uint64
}

// writer appends to one stream. Its fields are of who has the turn.
type writer struct {
	turn chan struct{} // capacity 1

	term    uint64 // 0: a lane has to be opened
	data    string
	base    uint64
	next    uint64 // in data
	bytes   int
	mark    uint64
	holders []string // this server among them
	// before is the lane in front, and inherited the mark that it left.
	before    *LogLane
	inherited uint64
	gone      bool // another is the stream's writer
}

// laneBytes is when a lane is long enough: servers that are no holders copy it when it is closed.
const laneBytes = 256 << 20

// acquire takes the turn at the stream's writer.
func (w *writers) acquire(ctx context.Context, data string) (*writer, error) {
	for {
		w.mu.Lock()
		x := w.of[data]
		if x == nil {
			if w.of == nil {
				w.of, w.open = map[string]*writer{}, map[string]uint64{}
			}
			x = &writer{turn: make(chan struct{}, 1)}
			w.of[data] = x
		}
		w.mu.Unlock()
		select {
		case x.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !x.gone {
			return x, nil
		}
		x.release()
	}
}

func (w *writer) release() { <-w.turn }

// forget drops the writers whose stream is none any more, or that have not appended in the term.
func (w *writers) forget(term uint64, exists func(data string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for data, x := range w.of {
		select {
		case x.turn <- struct{}{}:
		default:
			continue // it is used
		}
		if x.term != term || !exists(data) {
			x.gone = true
			delete(w.of, data)
			delete(w.open, x.data)
		}
		x.release()
	}
}

// owns says whether the lane takes appends, here, in the term.
func (w *writers) owns(lane *LogLane, term uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open[lane.Data] == term
}

// keep says that the lane is going to take appends, here, in the term.
func (w *writers) keep(data string, term uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[data] = term
}

// leave ends the appends of x's lane. Whoever calls it has the turn.
func (w *writers) leave(x *writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, x.data)
	x.term = 0
}

// leads is the term in which this server leads.
func (f *Family) leads() (uint64, error) {
	if t := f.Store.Leadership().Term; t != 0 {
		return t, nil
	}
	return 0, state.ErrNotLeader
}

// verify makes sure that the server leads still.
func (f *Family) verify(ctx context.Context, term uint64) error {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	if _, err := f.Store.Linearizable(ctx); err != nil {
		return err
	}
	if now, err := f.leads(); err != nil || now != term {
		return state.ErrNotLeader
	}
	return nil
}

// append adds a batch to the stream, durably, and shows it to those who follow. A batch that was appended before, by its mark, is
// acknowledged with added false.
func (f *Family) append(ctx context.Context, s *LogStream, b stream.Batch) (first uint64, added bool, err error) {
	first, added, err = f.keep(ctx, s, b)
	if err == nil && added {
		f.tails.offer(s, &b)
	}
	return first, added, err
}

// keep is append, shown to nobody.
func (f *Family) keep(ctx context.Context, s *LogStream, b stream.Batch) (first uint64, added bool, err error) {
	if f.Servers == nil {
		return f.Events.Append(ctx, s.Data, b)
	}
	w, err := f.writers.acquire(ctx, s.Data)
	if err != nil {
		return 0, false, err
	}
	defer w.release()
	// A client that leaves does not break off a copy: the lane would have to be closed.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*copyTimeout)
	defer cancel()
	var without []string
	for {
		term, err := f.leads()
		if err != nil {
			return 0, false, err
		}
		if w.term != term || w.bytes >= laneBytes || !f.recorded(s, w) {
			if err := f.openLane(ctx, s, w, term, without); err != nil {
				return 0, false, err
			}
		}
		if b.Mark != 0 && b.Mark <= w.mark {
			return w.base + w.next, false, f.vouch(ctx, w, b.Mark)
		}
		server, err := f.appendLane(ctx, w, b)
		if server != "" {
			f.Log.Warn("a server does not take its copy of log events; another is to keep it", "server", server, "error", err)
			f.writers.leave(w)
			without = append(without, server)
			continue
		}
		if err == nil {
			err = f.verify(ctx, term)
		}
		if err != nil {
			f.writers.leave(w)
			return 0, false, err
		}
		first, w.next, w.mark = w.base+w.next, w.next+uint64(len(b.Records)), max(w.mark, b.Mark)
		for _, r := range b.Records {
			w.bytes += len(r.Data)
		}
		return first, true, nil
	}
}

// recorded says whether the stream's record has the writer's lane. A snapshot that was restored may not have.
func (f *Family) recorded(s *LogStream, w *writer) bool {
	now, ok := LogStreams.Get(f.Store.View(), LogStreams.Key(s))
	return ok && now.Data == s.Data && now.openLane().GetData() == w.data
}

// vouch is asked before something is acknowledged because a former server has appended it: perhaps on one disk alone, for it was not
// acknowledged then. It is on this one's too afterwards.
func (f *Family) vouch(ctx context.Context, w *writer, mark uint64) error {
	if w.before == nil || mark > w.inherited {
		return nil
	}
	return f.complete(ctx, w.before)
}

// mark says how far a source has been copied into the stream.
func (f *Family) mark(ctx context.Context, s *LogStream) (uint64, error) {
	if f.Servers == nil {
		info, err := f.Events.Stat(s.Data)
		return info.Mark, err
	}
	w, err := f.writers.acquire(ctx, s.Data)
	if err != nil {
		return 0, err
	}
	defer w.release()
	term, err := f.leads()
	if err == nil && w.term != term {
		err = f.openLane(ctx, s, w, term, nil)
	}
	if err == nil {
		err = f.vouch(ctx, w, w.mark)
	}
	if err == nil {
		err = f.verify(ctx, term)
	}
	return w.mark, err
}

// appendLane puts the batch on the disks of the holders, here last: what is read here all of them have. It names a server that did not take it.
func (f *Family) appendLane(ctx context.Context, w *writer, b stream.Batch) (server string, err error) {
	batch, err := stream.EncodeBatch(w.next, &b)
	if err != nil {
		return "", err
	}
	for _, server := range w.holders {
		if server == f.Servers.Self() {
			continue
		}
		limit, cancel := context.WithTimeout(ctx, copyTimeout)
		err := f.Servers.Copy(limit, server, w.data, batch)
		cancel()
		if err != nil {
			return server, err
		}
	}
	_, err = f.Events.AppendCopy(ctx, w.data, batch, false)
	return "", err
}

// openLane closes the stream's last lane, if need be, and begins another.
func (f *Family) openLane(ctx context.Context, s *LogStream, w *writer, term uint64, without []string) error {
	f.writers.leave(w)
	holders, err := f.holders(ctx, without)
	if err != nil {
		return err
	}
	if err := f.settle(ctx, []*LogStream{s}); err != nil {
		return err
	}
	lane := &LogLane{Data: id.Hex(f.Rand, 32), Holders: holders}
	var before *LogLane
	mark := uint64(0)
	f.writers.keep(lane.Data, term) // before anybody sees the lane
	_, err = f.Store.Update(ctx, func(tx *state.Tx) error {
		old, ok := LogStreams.Get(tx, LogStreams.Key(s))
		if !ok || old.Data != s.Data {
			return noStream()
		}
		if old.openLane() != nil {
			return fmt.Errorf("log stream %s has an open lane that was closed", old.Name)
		}
		now := proto.CloneOf(old)
		before, lane.Base, mark = nil, 0, 0
		if n := len(now.Lanes); n > 0 {
			before = now.Lanes[n-1]
			lane.Base, mark = before.Base+before.End, before.Mark
		}
		now.Lanes = append(now.Lanes, lane)
		LogStreams.Put(tx, now)
		return nil
	})
	w.data = lane.Data
	if err != nil {
		f.writers.leave(w) // if it was made all the same, somebody closes it
		return err
	}
	w.term, w.base, w.next, w.bytes, w.holders = term, lane.Base, 0, 0, holders
	w.mark, w.inherited, w.before = mark, mark, before
	return nil
}

// holders chooses the servers of a new lane: this one, and as many others as there are to be copies.
func (f *Family) holders(ctx context.Context, without []string) ([]string, error) {
	others, err := f.Servers.Others(ctx)
	if err != nil {
		return nil, err
	}
	n := 1 + min(f.Copies-1, len(others))
	list := []string{f.Servers.Self()}
	for _, server := range others {
		if len(list) < n && !slices.Contains(without, server) {
			list = append(list, server)
		}
	}
	if len(list) < n {
		return nil, fmt.Errorf("%w: %d of %d", errTooFew, len(list), n)
	}
	return list, nil
}

// openLane is the stream's lane that is not closed; nil: there is none.
func (s *LogStream) openLane() *LogLane {
	if n := len(s.Lanes); n > 0 && !s.Lanes[n-1].Closed {
		return s.Lanes[n-1]
	}
	return nil
}
