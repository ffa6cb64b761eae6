package logs

import (
	"context"
	"errors"
	"slices"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// ready makes sure that this server can answer for the events of the streams, and returns them as they are recorded then. In a
// cluster that is the leader, which has every open lane; a closed one that it lacks it fetches.
func (f *Family) ready(ctx context.Context, streams []*LogStream) ([]*LogStream, error) {
	if f.Servers == nil {
		return streams, nil
	}
	term, err := f.leads()
	if err != nil {
		return nil, err
	}
	if err := f.settle(ctx, streams); err != nil {
		return nil, unavailable(err)
	}
	v, err := f.Store.Linearizable(ctx)
	if err != nil {
		return nil, err
	}
	var list []*LogStream
	for _, s := range streams {
		if now, ok := LogStreams.Get(v, LogStreams.Key(s)); ok && now.Data == s.Data {
			list = append(list, now)
		} else {
			list = append(list, s) // deleted meanwhile
		}
	}
	if now, err := f.leads(); err != nil || now != term {
		return nil, state.ErrNotLeader
	}
	return list, nil
}

// settled is a view in which what the groups' streams have is known.
func (f *Family) settled(ctx context.Context, v *state.View, groups ...*LogGroup) (*state.View, error) {
	if f.Servers == nil {
		return v, nil
	}
	var all []*LogStream
	for _, g := range groups {
		all = slices.AppendSeq(all, LogStreams.Scan(v, g.streams()))
	}
	if _, err := f.ready(ctx, all); err != nil {
		return nil, err
	}
	return f.Store.View(), nil
}

// sources are where the stream's events are, all of them here.
func (f *Family) sources(ctx context.Context, s *LogStream, order string) ([]stream.Source, error) {
	if f.Servers == nil {
		return []stream.Source{{Name: s.Data, Order: order}}, nil
	}
	var list []stream.Source
	for _, l := range s.Lanes {
		if err := f.complete(ctx, l); err != nil {
			return nil, unavailable(err)
		}
		list = append(list, stream.Source{Name: l.Data, Order: order, Base: l.Base, End: l.End})
	}
	return list, nil
}

// stat is what the stream has. Of a closed lane that is not here it is what there was when it was closed.
func (f *Family) stat(s *LogStream) (stream.Info, error) {
	if f.Servers == nil {
		return f.Events.Stat(s.Data)
	}
	var sum stream.Info
	for _, l := range s.Lanes {
		i, err := f.Events.Stat(l.Data)
		if err == nil && l.Closed {
			if i.Next >= l.End {
				i, err = f.Events.StatBelow(l.Data, l.End)
			} else {
				i = stream.Info{Next: l.End, MinTime: l.MinTime, MaxTime: l.MaxTime, Ingested: l.Ingested, Bytes: l.Bytes, Mark: l.Mark}
			}
		}
		if err != nil {
			return stream.Info{}, err
		}
		i.First, i.Next = l.Base+i.First, l.Base+i.Next
		sum = plus(sum, i)
	}
	return sum, nil
}

// plus is a part of a row and the part behind it.
func plus(a, b stream.Info) stream.Info {
	switch {
	case a.First == a.Next:
		return b
	case b.First == b.Next:
		a.Next = b.Next
		return a
	}
	return stream.Info{First: a.First, Next: b.Next, MinTime: min(a.MinTime, b.MinTime), MaxTime: max(a.MaxTime, b.MaxTime),
		Ingested: max(a.Ingested, b.Ingested), Bytes: a.Bytes + b.Bytes, Mark: max(a.Mark, b.Mark)}
}

// unavailable is what a client is told when other servers are needed and out of reach.
func unavailable(err error) error {
	if errors.Is(err, errTooFew) || errors.Is(err, errNoHolder) {
		return awserr.WithStatus(503, "ServiceUnavailableException", "The log events cannot be reached or kept just now: %v.", err)
	}
	return err
}
