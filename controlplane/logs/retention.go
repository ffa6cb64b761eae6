package logs

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	cleanEvery = time.Minute
	cleanStep  = 50 // records a transaction
)

// Run removes what belongs to nobody and what is too old, and in a cluster brings to this server what it lacks, until ctx ends.
func (f *Family) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error {
		return f.Store.RunLeader(ctx, func(ctx context.Context) error {
			f.every(ctx, "clean up records of logs", f.tidy)
			return nil
		})
	})
	g.Go(func() error { f.every(ctx, "clean up logs", f.clean); return nil })
	g.Go(func() error { f.mirror(ctx); return nil })
	return g.Wait()
}

func (f *Family) every(ctx context.Context, what string, do func(context.Context) error) {
	for ctx.Err() == nil {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			f.Log.Error(what+"; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-f.Clock.After(cleanEvery):
		}
	}
}

// tidy is the leader's part: records.
func (f *Family) tidy(ctx context.Context) error {
	if err := f.removeLost(ctx); err != nil {
		return fmt.Errorf("remove streams of deleted groups: %w", err)
	}
	if f.Servers == nil {
		return nil
	}
	return errors.Join(f.relieve(ctx), f.removeLanes(ctx))
}

// clean is every server's part: what is on its disk.
func (f *Family) clean(ctx context.Context) error {
	errs := []error{f.removeData(ctx)}
	v := f.Store.View()
	for g := range LogGroups.Scan(v, state.K()) {
		if err := f.expire(v, g); err != nil { // the others' are removed all the same
			errs = append(errs, fmt.Errorf("remove expired events of %s: %w", g.ARN(), err))
		}
	}
	return errors.Join(errs...)
}

// removeLost removes the records of streams whose group is gone.
func (f *Family) removeLost(ctx context.Context) error {
	var lost []state.Key
	v := f.Store.View()
	for s := range LogStreams.Scan(v, state.K()) {
		if !exists(LogGroupsByID, v, s.Group) {
			lost = append(lost, LogStreams.Key(s))
		}
	}
	for len(lost) > 0 {
		n := min(len(lost), cleanStep)
		_, err := f.Store.Update(ctx, func(tx *state.Tx) error {
			for _, k := range lost[:n] {
				LogStreams.Delete(tx, k)
			}
			return nil
		})
		if err != nil {
			return err
		}
		lost = lost[n:]
	}
	return nil
}

// ownData are the names of this family's data in the store of streams, which is others' too.
var ownData = regexp.MustCompile(`^[0-9a-f]{32}$`)

// removeData removes the data that no record names: a record comes before its data, so it is known once the data is seen.
func (f *Family) removeData(ctx context.Context) error {
	var names []string
	for name, err := range f.Events.All() {
		if err != nil {
			return fmt.Errorf("remove data of deleted streams: %w", err)
		}
		if ownData.MatchString(name) {
			names = append(names, name)
		}
	}
	v, err := f.Store.Linearizable(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if exists(LogStreamsByData, v, name) {
			continue
		}
		if err := f.Events.Delete(name); err != nil {
			return fmt.Errorf("remove data of a deleted stream: %w", err)
		}
	}
	return nil
}

// expire drops what is older than the group keeps.
func (f *Family) expire(v *state.View, g *LogGroup) error {
	if g.RetentionDays == 0 {
		return nil
	}
	before := millis(f.Clock.Now().AddDate(0, 0, -int(g.RetentionDays)))
	for s := range LogStreams.Scan(v, g.streams()) {
		for _, data := range s.data() {
			info, err := f.Events.Stat(data)
			if err != nil {
				return err
			}
			if info.First == info.Next || info.MinTime >= before {
				continue
			}
			if _, err := f.Events.Drop(data, before, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// data are the names of the stream's data.
func (s *LogStream) data() []string {
	if !s.Laned {
		return []string{s.Data}
	}
	var list []string
	for _, l := range s.Lanes {
		list = append(list, l.Data)
	}
	return list
}

// exists says whether the index knows the key.
func exists[T proto.Message](index *state.Index[T], r state.Reader, key string) bool {
	for range index.Scan(r, state.K(key)) {
		return true
	}
	return false
}
