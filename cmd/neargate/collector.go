package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// smallHeap is as many live bytes as may double until they are collected, which is Go's own rule for any number of them.
const smallHeap = 128 << 20

// heapGrowth is by how many percent the heap may grow between two collections when so many bytes are live. Beyond smallHeap garbage may take as much as
// the square root of what is live: twice the live heap then costs 1.4 times as much memory in garbage and 1.4 times as much work for each allocated byte,
// while by Go's rule all of it is paid in memory.
func heapGrowth(live uint64) int {
	if live <= smallHeap {
		return 100
	}
	return int(100 * math.Sqrt(smallHeap/float64(live)))
}

// growthStep is the least difference in percent that is worth a change: it stops the program for some microseconds.
const growthStep = 5

// paceCollector has heapGrowth kept in this process, if nobody has said otherwise by GOGC. It costs nothing between collections.
var paceCollector = sync.OnceFunc(func() {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	growth := 100
	afterCollections(func() {
		metrics.Read(live)
		if n := heapGrowth(live[0].Value.Uint64()); n <= growth-growthStep || n >= growth+growthStep || n == 100 && growth < 100 {
			growth = n
			debug.SetGCPercent(n)
		}
	})
})

// afterCollections runs fn some time after each one, never twice at once.
func afterCollections(fn func()) {
	type sentinel struct{ _ *byte } // a pointer, so that it is no part of another object
	var arm func(*sentinel)
	arm = func(*sentinel) {
		runtime.SetFinalizer(&sentinel{}, arm) // finalizers run one after the other
		fn()
	}
	runtime.SetFinalizer(&sentinel{}, arm)
}
