package state_test

import (
	"fmt"
	"runtime"
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

// BenchmarkMemory is what a record costs that runs, so to speak: strings that others have too, two indexes, put three times.
func BenchmarkMemory(b *testing.B) {
	const n = 50_000
	for b.Loop() {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s := statetest.New(b, statetest.Schema...)
		for round := range 3 {
			for i := 0; i < n; i += 100 {
				var records []*statetest.Record
				for j := range 100 {
					k := i + j
					records = append(records, &statetest.Record{
						Id: fmt.Sprintf("000000000000/us-east-1/cluster/%032x", uint64(k)*0x9e3779b97f4a7c15), Number: int64(round),
						Groups: []string{fmt.Sprintf("service-%03d", k%100), fmt.Sprintf("node-%05d", k%5000)}, Payload: make([]byte, 200),
					})
				}
				statetest.Put(b, s, records...)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/record")
		b.ReportMetric(float64(after.HeapObjects-before.HeapObjects)/n, "objects/record")
		runtime.KeepAlive(s)
	}
}
