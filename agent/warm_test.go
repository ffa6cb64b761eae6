package agent

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
)

// warming is a driver that makes sandboxes ahead.
type warming struct {
	runtime.Driver
	recovered, began atomic.Bool
	begins           chan struct{}
	ended            atomic.Bool
}

func (d *warming) Recover(ctx context.Context) ([]runtime.Recovered, error) {
	defer d.recovered.Store(true)
	return d.Driver.Recover(ctx)
}

func (d *warming) KeepWarm(ctx context.Context) error {
	d.began.Store(d.recovered.Load())
	close(d.begins)
	<-ctx.Done()
	d.ended.Store(true)
	return nil
}

// A driver makes sandboxes ahead once its tasks are recovered, and what waits is gone before the agent is.
func TestDriverKeepsWarmWhileTheAgentRuns(t *testing.T) {
	dir := t.TempDir()
	d := &warming{Driver: fake.New(fake.Config{Dir: dir}), begins: make(chan struct{})}
	h := connectHost(t, Config{Dir: dir, Driver: d}, "i1")
	<-d.begins
	if !d.began.Load() {
		t.Error("it began before the tasks were recovered")
	}
	h.stop()
	if !d.ended.Load() {
		t.Error("the agent did not wait for it")
	}
}
