package logs

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	cleanEvery = time.Minute
	cleanStep  = 50 // records a transaction
)

// Run removes what belongs to nobody and what is too old, whenever this server leads, until ctx ends.
func (f *Family) Run(ctx context.Context) error {
	return f.Store.RunLeader(ctx, func(ctx context.Context) error {
		for ctx.Err() == nil {
			if err := f.clean(ctx); err != nil && ctx.Err() == nil {
				f.Log.Error("clean up logs; trying again", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-f.Clock.After(cleanEvery):
			}
		}
		return nil
	})
}

func (f *Family) clean(ctx context.Context) error {
	if err := f.removeLost(ctx); err != nil {
		return fmt.Errorf("remove streams of deleted groups: %w", err)
	}
	v, err := f.Store.Linearizable(ctx)
	if err != nil {
		return err
	}
	errs := []error{f.removeData()}
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

// removeData removes the data that no record names: a record comes before its data, so it is known when the data is seen.
func (f *Family) removeData() error {
	for name, err := range f.Events.All() {
		if err != nil {
			return fmt.Errorf("remove data of deleted streams: %w", err)
		}
		if !ownData.MatchString(name) || exists(LogStreamsByData, f.Store.View(), name) {
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
		info, err := f.Events.Stat(s.Data)
		if err != nil {
			return err
		}
		if info.First == info.Next || info.MinTime >= before {
			continue
		}
		if _, err := f.Events.Drop(s.Data, before, 0); err != nil {
			return err
		}
	}
	return nil
}

// exists says whether the index knows the key.
func exists[T proto.Message](index *state.Index[T], r state.Reader, key string) bool {
	for range index.Scan(r, state.K(key)) {
		return true
	}
	return false
}
