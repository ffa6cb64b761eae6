package main

import (
	"runtime"
	"testing"
	"time"
)

func TestHeapGrowth(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, smallHeap: 100, 4 * smallHeap: 50, 16 * smallHeap: 25} {
		if got := heapGrowth(live); got != want {
			t.Errorf("%d bytes may grow by %d%%, want %d%%", live, got, want)
		}
	}
	last := 0.0
	for live := uint64(1 << 20); live < 1<<40; live += live / 7 {
		if most := float64(live) * (1 + float64(heapGrowth(live))/100); most < last {
			t.Errorf("%d live bytes may take %.0f, fewer %.0f", live, most, last)
		} else {
			last = most
		}
	}
}

func TestAfterCollections(t *testing.T) {
	ran := make(chan struct{}, 100)
	afterCollections(func() { ran <- struct{}{} })
	for range 3 {
		runtime.GC()
		select {
		case <-ran:
		case <-time.After(30 * time.Second):
			t.Fatal("a collection went by unseen")
		}
	}
}
