package logs

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// settle closes the lanes of the streams that nobody appends to any more: those of other servers, of former terms and of former processes, and
// those that this one has left. Only who leads does it.
func (f *Family) settle(ctx context.Context, streams []*LogStream) error {
	term, err := f.leads()
	if err != nil {
		return err
	}
	v, open := f.Store.View(), map[state.Key]*LogLane{}
	for _, s := range streams {
		now, ok := LogStreams.Get(v, LogStreams.Key(s))
		switch {
		case !ok || now.Data != s.Data:
		case !now.Laned: // it was made before this server had others; its events are with whoever had them
			open[LogStreams.Key(s)] = &LogLane{Data: now.Data}
		case now.openLane() != nil && !f.writers.owns(now.openLane(), term):
			open[LogStreams.Key(s)] = now.openLane()
		}
	}
	if len(open) == 0 {
		return nil
	}
	ends, err := f.ends(ctx, slices.Collect(maps.Values(open)))
	if err != nil {
		return err
	}
	for keys := range slices.Chunk(slices.Collect(maps.Keys(open)), cleanStep) {
		_, err := f.Store.Update(ctx, func(tx *state.Tx) error {
			for _, k := range keys {
				if now, ok := LogStreams.Get(tx, k); ok {
					if closed := now.close(open[k], ends[open[k].Data]); closed != nil {
						LogStreams.Put(tx, closed)
					}
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("close lanes of log streams: %w", err)
		}
	}
	return nil
}

// lastOf is what a lane had, and with whom.
type lastOf struct {
	stream.Info
	holders []string
}

// close is the stream with the lane closed; nil: that has been done. A lane without events goes.
func (s *LogStream) close(lane *LogLane, last lastOf) *LogStream {
	now := proto.CloneOf(s)
	if !now.Laned {
		now.Laned, now.Lanes = true, []*LogLane{{Data: now.Data, Holders: last.holders}}
	}
	l := now.openLane()
	if l == nil || l.Data != lane.Data {
		return nil
	}
	n := len(now.Lanes) - 1
	if last.Next == 0 {
		now.Lanes = now.Lanes[:n]
		return now
	}
	l.Closed, l.End, l.Mark = true, last.Next, last.Mark
	l.Bytes, l.MinTime, l.MaxTime, l.Ingested = last.Bytes, last.MinTime, last.MaxTime, last.Ingested
	if n > 0 {
		l.Mark = max(l.Mark, now.Lanes[n-1].Mark)
	}
	return now
}

// ends finds out where lanes end: any one holder has all that was acknowledged. Of a lane without holders it is whoever has most, of all.
func (f *Family) ends(ctx context.Context, lanes []*LogLane) (map[string]lastOf, error) {
	ends := map[string]lastOf{}
	missing := map[string]bool{}
	for _, l := range lanes {
		missing[l.Data] = true
		if len(l.Holders) > 0 && !slices.Contains(l.Holders, f.Servers.Self()) {
			continue
		}
		i, err := f.Events.Stat(l.Data)
		if err != nil {
			return nil, err
		}
		ends[l.Data] = lastOf{i, []string{f.Servers.Self()}}
		if len(l.Holders) > 0 {
			delete(missing, l.Data)
		}
	}
	if len(missing) == 0 {
		return ends, nil
	}
	others, err := f.Servers.Others(ctx)
	if err != nil {
		return nil, err
	}
	why := errNoHolder
	for _, server := range others {
		var ask []string
		for _, l := range lanes {
			if missing[l.Data] && (len(l.Holders) == 0 || slices.Contains(l.Holders, server)) {
				ask = append(ask, l.Data)
			}
		}
		if len(ask) == 0 {
			continue
		}
		limit, cancel := context.WithTimeout(ctx, copyTimeout)
		infos, err := f.Servers.Stat(limit, server, ask)
		cancel()
		for i, data := range ask {
			switch known, unlaned := ends[data]; {
			case err != nil && unlaned:
				return nil, fmt.Errorf("%w: server %s: %w", errNoHolder, server, err)
			case err != nil:
				why = fmt.Errorf("%w: server %s: %w", errNoHolder, server, err)
			case unlaned && infos[i].Next <= known.Next:
			default:
				if ends[data] = (lastOf{infos[i], []string{server}}); !unlaned {
					delete(missing, data)
				}
			}
		}
	}
	for _, l := range lanes {
		if missing[l.Data] && len(l.Holders) > 0 {
			return nil, why
		}
	}
	return ends, nil
}

// complete brings here what this server lacks of a lane that is closed.
func (f *Family) complete(ctx context.Context, lane *LogLane) error {
	have, err := f.Events.Stat(lane.Data)
	if err != nil || !lane.Closed || have.Next >= lane.End {
		return err
	}
	others, err := f.Servers.Others(ctx)
	if err != nil {
		return err
	}
	slices.SortStableFunc(others, func(a, b string) int { // the holders first
		return index(lane.Holders, a) - index(lane.Holders, b)
	})
	err = errNoHolder
	for _, server := range others {
		if err = f.fetch(ctx, server, lane, have.Next); err == nil {
			return nil
		}
	}
	return fmt.Errorf("copy lane %s: %w", lane.Data, err)
}

func index(list []string, s string) int {
	if slices.Contains(list, s) {
		return 0
	}
	return 1
}

// fetch copies a lane from a server that has all of it.
func (f *Family) fetch(ctx context.Context, server string, lane *LogLane, from uint64) error {
	limit, cancel := context.WithTimeout(ctx, copyTimeout)
	infos, err := f.Servers.Stat(limit, server, []string{lane.Data})
	cancel()
	switch {
	case err != nil:
		return fmt.Errorf("server %s: %w", server, err)
	case infos[0].Next < lane.End:
		return fmt.Errorf("server %s has %d of %d events: %w", server, infos[0].Next, lane.End, errNoHolder)
	case infos[0].First >= lane.End: // retention took the rest
		return nil
	}
	next := from
	err = f.Servers.Fetch(ctx, server, lane.Data, from, func(batch []byte) (err error) {
		next, err = f.Events.AppendCopy(ctx, lane.Data, batch, true)
		return err
	})
	if err == nil && next < lane.End {
		err = fmt.Errorf("it ended at %d of %d", next, lane.End)
	}
	if err != nil {
		return fmt.Errorf("server %s: %w", server, err)
	}
	return nil
}
