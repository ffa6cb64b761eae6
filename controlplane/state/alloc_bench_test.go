package state_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// BenchmarkChange is what it allocates to change a record as the state of a task is changed: one of 100,000 in three places of an index, of which
// one moves, read and put by a transaction of 25, alone in its entry. The engine writes to no disk.
func BenchmarkChange(b *testing.B) {
	const n, together = 100_000, 25
	s := statetest.New(b, statetest.Schema...)
	id := func(k int) string {
		return fmt.Sprintf("000000000000/us-east-1/cluster/%032x", uint64(k)*0x9e3779b97f4a7c15)
	}
	keys := make([]state.Key, n)
	for i := 0; i < n; i += 100 {
		var records []*statetest.Record
		for k := i; k < i+100; k++ {
			keys[k] = statetest.RecordKey(id(k))
			records = append(records, &statetest.Record{
				Id: id(k), Groups: []string{fmt.Sprintf("000000000000/us-east-1/cluster/service-%03d", k%100), fmt.Sprintf("node-%05d", k%5000), "pending"},
				Payload: make([]byte, 100),
			})
		}
		statetest.Put(b, s, records...)
	}
	states := []string{"pending", "activating", "running"}
	r := rand.New(rand.NewPCG(1, 1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	for b.Loop() {
		if _, err := s.Update(b.Context(), func(tx *state.Tx) error {
			for range together {
				old, _ := statetest.Records.Get(tx, keys[r.IntN(n)])
				next := proto.CloneOf(old)
				next.Number++
				next.Groups[2] = states[next.Number%3]
				statetest.Records.Put(tx, next)
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N)/together, "B/record")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N)/together, "objects/record")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/together, "ns/record")
}
