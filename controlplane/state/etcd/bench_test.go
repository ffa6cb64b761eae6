package etcd_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd/etcdtest"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// BenchmarkCommit is committed changes of 1 kB, to records of their own, by concurrent clients: the raft engine's benchmark, on an etcd of
// one member on the same machine.
func BenchmarkCommit(b *testing.B) {
	for _, clients := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s := open(b, options(etcdtest.Start(b), "", "server"))
			var left, next atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var group sync.WaitGroup
			for range clients {
				group.Go(func() {
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
				})
			}
			group.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
		})
	}
}

// BenchmarkLinearizable is the price of a read that must be current, on the leader and on a server that follows.
func BenchmarkLinearizable(b *testing.B) {
	server := etcdtest.Start(b)
	leader := open(b, options(server, "", "leader"))
	for name, s := range map[string]opened{"leader": leader, "follower": open(b, options(server, "", "follower"))} {
		for _, clients := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				b.SetParallelism(clients) // times GOMAXPROCS
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := s.Linearizable(b.Context()); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
			})
		}
	}
}
