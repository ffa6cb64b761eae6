//go:build neargate_next

package main

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/upgrade"
)

// This file makes the build for tests of upgrades (TestUpgrade): the next version of this one, whose ECS clusters, if their names begin with
// "marked-", have two new fields. The first is of a kind that older builds may keep without understanding it, and is written at once; the
// second is held back until all servers are of this build.
const (
	fieldAtOnce   protowire.Number = 1900
	fieldHeldBack protowire.Number = 1901
)

func nextParts(c *controlPlane) []part {
	return []part{{"next build", func(ctx context.Context) error {
		return c.store.RunLeader(ctx, func(ctx context.Context) error {
			for ctx.Err() == nil {
				_, _ = c.store.Update(ctx, mark) // what fails is done with the next round
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
			}
			return nil
		})
	}}}
}

func mark(tx *state.Tx) error {
	for c := range controlplane.Clusters.Scan(tx, state.K()) {
		if !strings.HasPrefix(c.Name, "marked-") {
			continue
		}
		marked := proto.CloneOf(c)
		add(marked, fieldAtOnce, "written at once: "+c.Name)
		if upgrade.At(tx, 2) {
			add(marked, fieldHeldBack, "held back: "+c.Name)
		}
		if !proto.Equal(c, marked) {
			controlplane.Clusters.Put(tx, marked)
		}
	}
	return nil
}

// add sets a field that the generated type does not have, unless it is set.
func add(m proto.Message, number protowire.Number, text string) {
	unknown := m.ProtoReflect().GetUnknown()
	for b := unknown; len(b) > 0; {
		n, _, length := protowire.ConsumeField(b)
		if n == number {
			return
		}
		b = b[length:]
	}
	unknown = protowire.AppendTag(unknown[:len(unknown):len(unknown)], number, protowire.BytesType)
	m.ProtoReflect().SetUnknown(protowire.AppendString(unknown, text))
}
