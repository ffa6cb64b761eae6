package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
)

// numbered is a value of 1 KiB.
func numbered(n int64) (key, data []byte) {
	data = make([]byte, 1<<10)
	binary.LittleEndian.PutUint64(data, uint64(n))
	sum := sha256.Sum256(data)
	return sum[:], data
}

// BenchmarkPut keeps distinct values of 1 KiB, durably.
func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 16, 128} {
		b.Run(fmt.Sprint(writers, "writers"), func(b *testing.B) {
			l := open(b, b.TempDir(), Options{})
			var n atomic.Int64
			b.SetParallelism(max(1, writers/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					key, data := numbered(n.Add(1))
					if _, err := l.Put(key, data); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkGet reads values of 1 KiB from the page cache.
func BenchmarkGet(b *testing.B) {
	l := open(b, b.TempDir(), Options{})
	var keys [][]byte
	for n := range int64(1000) {
		key, data := numbered(n)
		if _, err := l.Put(key, data); err != nil {
			b.Fatal(err)
		}
		keys = append(keys, key)
	}
	for i := 0; b.Loop(); i++ {
		if _, _, err := l.Get(keys[i%len(keys)]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen opens a log of 300,000 values of 1 KiB, by its segments' heads and without them, and says what memory each value takes.
func BenchmarkOpen(b *testing.B) {
	const values = 300_000
	dir := b.TempDir()
	l := open(b, dir, Options{})
	for n := int64(0); n < values; {
		var batch []*record
		for range 1000 {
			key, data := numbered(n)
			batch = append(batch, &record{kind: kindValue, key: key, data: data})
			n++
		}
		if err := l.commit(batch...); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := l.Compact(b.Context()); err != nil { // which writes the heads
		b.Fatal(err)
	}
	l.Close()
	for _, heads := range []bool{true, false} {
		b.Run(fmt.Sprint("heads=", heads), func(b *testing.B) {
			if !heads {
				files, _ := filepath.Glob(filepath.Join(dir, "*.idx"))
				for _, name := range files {
					os.Remove(name)
				}
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			l := open(b, dir, Options{})
			runtime.GC()
			runtime.ReadMemStats(&after)
			l.Close()
			for b.Loop() {
				open(b, dir, Options{}).Close()
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/values, "B/value")
		})
	}
}
