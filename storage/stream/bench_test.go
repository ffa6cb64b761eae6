package stream_test

import (
	"bytes"
	"fmt"
	"math"
	"sync/atomic"
	"testing"

	"github.com/seed-2f228079/neargate/storage/stream"
)

// BenchmarkAppend: durable appends of a few lines, by one writer and by many, to one stream and to many.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ writers, streams, records int }{{1, 1, 1}, {64, 1, 1}, {64, 1000, 1}, {64, 1000, 100}} {
		b.Run(fmt.Sprintf("writers=%d/streams=%d/records=%d", c.writers, c.streams, c.records), func(b *testing.B) {
			s := open(b, b.TempDir(), stream.Options{})
			go s.Run(b.Context())
			var batch stream.Batch
			for i := range c.records {
				batch.Records = append(batch.Records, stream.Record{Time: int64(i), Data: bytes.Repeat([]byte("x"), 120)})
			}
			for i := range c.streams {
				put(b, s, fmt.Sprintf("s-%d", i), batch)
			}
			var n atomic.Int64
			b.SetBytes(int64(120 * c.records))
			b.SetParallelism(c.writers)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					put(b, s, fmt.Sprintf("s-%d", n.Add(1)%int64(c.streams)), batch)
				}
			})
			b.ReportMetric(float64(b.N*c.records)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkRead: all records of a stream of 64 MB by position, and pages out of its middle by time.
func BenchmarkRead(b *testing.B) {
	s := open(b, b.TempDir(), stream.Options{})
	const batches, each = 512, 1000
	for i := range batches {
		var batch stream.Batch
		for n := range each {
			batch.Records = append(batch.Records, stream.Record{Time: int64(i*each + n), Data: bytes.Repeat([]byte("x"), 120)})
		}
		put(b, s, "aaa", batch)
	}
	b.Run("all", func(b *testing.B) {
		b.SetBytes(batches * each * 120)
		for b.Loop() {
			n := 0
			for _, err := range s.From("aaa", 0) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			if n != batches*each {
				b.Fatalf("%d records", n)
			}
		}
	})
	for _, backward := range []bool{false, true} {
		b.Run(fmt.Sprintf("page of 100, backward %v", backward), func(b *testing.B) {
			at := int64(0)
			for b.Loop() {
				at = (at + 7919) % (batches*each - 200)
				q := stream.Query{Sources: []stream.Source{{Name: "aaa"}}, From: at + 100, To: math.MaxInt64, Limit: 100}
				if backward {
					q.From, q.To, q.Backward = 0, at+100, true
				}
				if p, err := s.Query(b.Context(), q); err != nil || len(p.Records) != 100 {
					b.Fatalf("%d records, %v", len(p.Records), err)
				}
			}
		})
	}
}
