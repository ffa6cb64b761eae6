package raft_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// BenchmarkCommit is committed changes of 1 kB, to records of their own, by concurrent clients.
func BenchmarkCommit(b *testing.B) {
	for _, clients := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s := statetest.Open(b, open, b.TempDir())
			var left, next atomic.Int64
			left.Store(int64(b.N))
			done := make(chan struct{})
			b.ResetTimer()
			for range clients {
				go func() {
					defer func() { done <- struct{}{} }()
					for left.Add(-1) >= 0 {
						id := fmt.Sprint(next.Add(1) % 100_000)
						if _, err := s.Update(b.Context(), func(tx *state.Tx) error {
							statetest.Records.Put(tx, &statetest.Record{Id: id, Groups: []string{"all"}, Payload: make([]byte, 1000)})
							return nil
						}); err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			for range clients {
				<-done
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
		})
	}
}

// BenchmarkStart is from nothing, and from a small state, to leading.
func BenchmarkStart(b *testing.B) {
	for _, kept := range []bool{false, true} {
		b.Run(fmt.Sprintf("kept=%v", kept), func(b *testing.B) {
			dir := b.TempDir()
			for i := range b.N {
				if !kept {
					dir = b.TempDir()
				}
				engine, err := open(dir)
				if err != nil {
					b.Fatal(err)
				}
				s, err := state.New(engine, statetest.Schema, state.Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				statetest.Put(b, s, &statetest.Record{Id: fmt.Sprint(i)})
				if err := engine.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkLinearizable is the price of a read that must be current.
func BenchmarkLinearizable(b *testing.B) {
	s := statetest.Open(b, open, b.TempDir())
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Linearizable(b.Context()); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
