// Package clocktest is the machine's clock in the hands of somebody who sets it. It is for tests only.
package clocktest

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Clock is a clock.Clock that Jump sets, as settimeofday sets a machine's: what it tells jumps, the time between two readings, and what waits on
// it, do not. The zero value is right. Safe for concurrent use.
type Clock struct{ off atomic.Int64 }

// Jump sets the clock forwards, or backwards, by whole seconds.
func (c *Clock) Jump(d time.Duration) { c.off.Add(int64(d / time.Second)) }

// Now is the time as the clock has it, with the machine's monotonic reading.
func (c *Clock) Now() time.Time {
	t := time.Now()
	// The fields of time.Time: of one with a monotonic reading, the first has the seconds of the wall clock from bit 30 on.
	reading := (*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&t))
	reading.wall += uint64(c.off.Load()) << 30
	return t
}

// After is time.After.
func (c *Clock) After(d time.Duration) <-chan time.Time { return time.After(d) }
