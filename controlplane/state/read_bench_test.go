package state_test

import (
	"fmt"
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

func filled(b *testing.B, n int) *state.Store {
	s := statetest.New(b, statetest.Schema...)
	for i := 0; i < n; i += 100 {
		var records []*statetest.Record
		for j := range 100 {
			records = append(records, &statetest.Record{Id: fmt.Sprintf("account/region/%d/%032d", i/100, j), Groups: []string{fmt.Sprint(i % 1000)}})
		}
		statetest.Put(b, s, records...)
	}
	return s
}

func BenchmarkGet(b *testing.B) {
	v, k := filled(b, 100_000).View(), statetest.RecordKey(fmt.Sprintf("account/region/%d/%032d", 500, 50))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := statetest.Records.Get(v, k); !ok {
			b.Fatal("not there")
		}
	}
}

func BenchmarkScan(b *testing.B) {
	v, prefix := filled(b, 100_000).View(), statetest.RecordKey("account/region/500")
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for range statetest.Records.Scan(v, prefix) {
			n++
		}
		if n != 100 {
			b.Fatal(n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/record")
}

// BenchmarkUpdate is a transaction's cost without an engine that writes to disk.
func BenchmarkUpdate(b *testing.B) {
	s := filled(b, 100_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if _, err := s.Update(b.Context(), func(tx *state.Tx) error {
			statetest.Records.Put(tx, &statetest.Record{Id: fmt.Sprintf("account/region/%d/%032d", i%1000, i%100), Number: int64(i), Groups: []string{"x"}})
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
}
