package logs

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	mirrors     = 3               // lanes that are fetched at a time
	mirrorRetry = 5 * time.Second // when what could not be fetched is tried again
)

// mirror brings every closed lane to this server: those closed just now, and what was missed while it was away.
func (f *Family) mirror(ctx context.Context) {
	if f.Servers == nil {
		return
	}
	for ctx.Err() == nil {
		v := f.Store.View()
		w := f.Store.Watch(ctx, v.Revision(), LogStreams)
		complete := f.mirrorLanes(ctx, slices.Collect(LogStreams.Scan(v, state.K())))
		for {
			limit, cancel := ctx, context.CancelFunc(func() {})
			if !complete {
				limit, cancel = context.WithTimeout(ctx, mirrorRetry)
			}
			b, err := w.Next(limit)
			cancel()
			if err != nil {
				break // all anew: the history was lost, or it is time to try again
			}
			var changed []*LogStream
			for _, e := range b.Events {
				if s, ok := e.New.(*LogStream); ok {
					changed = append(changed, s)
				}
			}
			complete = f.mirrorLanes(ctx, changed) && complete
		}
	}
}

// mirrorLanes says whether all that is closed is here.
func (f *Family) mirrorLanes(ctx context.Context, streams []*LogStream) bool {
	var g errgroup.Group
	g.SetLimit(mirrors)
	for _, s := range streams {
		for _, l := range s.Lanes {
			if have, err := f.Events.Stat(l.Data); !l.Closed || err == nil && have.Next >= l.End {
				continue
			}
			g.Go(func() error {
				err := f.complete(ctx, l)
				if err != nil && ctx.Err() == nil && exists(LogStreamsByData, f.Store.View(), l.Data) {
					f.Log.Warn("cannot copy log events from another server; trying again", "stream", s.Name, "lane", l.Data, "error", err)
					return err
				}
				return nil
			})
		}
	}
	return g.Wait() == nil
}

// relieve closes the lanes that have lost a holder, and those of former leaders, so that all servers copy them.
func (f *Family) relieve(ctx context.Context) error {
	term, err := f.leads()
	if err != nil {
		return err
	}
	v := f.Store.View()
	f.writers.forget(term, func(data string) bool { return exists(LogStreamsByData, v, data) })
	others, err := f.Servers.Others(ctx)
	if err != nil {
		return err
	}
	var all []*LogStream
	well := map[string]bool{f.Servers.Self(): true}
	for _, server := range others {
		limit, cancel := context.WithTimeout(ctx, copyTimeout)
		_, err := f.Servers.Stat(limit, server, nil)
		cancel()
		well[server] = err == nil
	}
	for s := range LogStreams.Scan(v, state.K()) {
		lane := s.openLane()
		if lane == nil {
			continue
		}
		all = append(all, s)
		if !slices.ContainsFunc(lane.Holders, func(h string) bool { return !well[h] }) {
			continue
		}
		w, err := f.writers.acquire(ctx, s.Data)
		if err != nil {
			return err
		}
		if w.data == lane.Data {
			f.writers.leave(w)
		}
		w.release()
	}
	var errs []error
	for chunk := range slices.Chunk(all, cleanStep) {
		if f.settle(ctx, chunk) == nil {
			continue
		}
		for _, s := range chunk { // one that nobody can reach does not keep the others
			errs = append(errs, f.settle(ctx, []*LogStream{s}))
		}
	}
	return errors.Join(errs...)
}

// removeLanes takes lanes out of the records whose events have all expired.
func (f *Family) removeLanes(ctx context.Context) error {
	v := f.Store.View()
	for s := range LogStreams.Scan(v, state.K()) {
		var expired []string
		for i, l := range s.Lanes {
			if !l.Closed || i == len(s.Lanes)-1 { // the last says where the next begins, and how far sources have been copied
				break
			}
			have, err := f.Events.Stat(l.Data)
			if err != nil {
				return err
			}
			if have.Next < l.End || have.First < l.End {
				break
			}
			expired = append(expired, l.Data)
		}
		if len(expired) == 0 {
			continue
		}
		_, err := f.Store.Update(ctx, func(tx *state.Tx) error {
			old, ok := LogStreams.Get(tx, LogStreams.Key(s))
			if !ok || old.Data != s.Data {
				return nil
			}
			now := proto.CloneOf(old)
			now.Lanes = slices.DeleteFunc(now.Lanes, func(l *LogLane) bool { return slices.Contains(expired, l.Data) })
			LogStreams.Put(tx, now)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
