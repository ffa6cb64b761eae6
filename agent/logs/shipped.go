package logs

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// How far a log has been shipped stands in a file beside it, written by who ships and read by who writes the log: they are different
// processes, either of which may die. It says less than is true at worst.

const (
	shippedSuffix = ".shipped"
	shippedEvery  = 20 * time.Millisecond // a writer that waits looks
)

// Shipped notes that the records of the log at path up to a time are where they have to be.
func Shipped(path string, upTo time.Time) error {
	f, err := os.OpenFile(path+shippedSuffix, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%020d", upTo.UnixNano()), 0) // one write of always the same length
	return errors.Join(err, f.Close())
}

// shipped is how far the log is shipped.
func (w *Writer) shipped() time.Time {
	b, err := os.ReadFile(w.path + shippedSuffix)
	if err != nil {
		return time.Time{}
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// Ended says that the program has: from now on nothing holds up what it wrote last.
func (w *Writer) Ended() {
	if w.ended != nil {
		w.endOnce.Do(func() { close(w.ended) })
	}
}

// mayDrop is asked before the oldest file goes. Of a log that is shipped it waits, or counts what is lost. w.mu is held: nobody else writes
// meanwhile either.
func (w *Writer) mayDrop() bool {
	if !w.shipping {
		return true
	}
	if !w.begun { // by an earlier run of the container
		w.begun, w.lastOld = true, lastIn(w.path+".1")
	}
	for !w.lastOld.IsZero() {
		at := w.shipped()
		if !at.Before(w.lastOld) {
			return true
		}
		if !w.waits {
			w.dropped += countAfter(w.path+".1", at)
			return true
		}
		select {
		case <-w.ended:
			return false
		case <-time.After(shippedEvery):
		}
	}
	return true
}

// lastIn is the time of the last record in a file; zero: there is none.
func lastIn(path string) (last time.Time) {
	eachRecord(path, func(at time.Time) { last = at })
	return last
}

// countAfter counts a file's records that are later.
func countAfter(path string, after time.Time) (n int64) {
	eachRecord(path, func(at time.Time) {
		if at.After(after) {
			n++
		}
	})
	return n
}

func eachRecord(path string, f func(time.Time)) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	for in := bufio.NewReaderSize(file, 64<<10); ; { // longer than any record
		b, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		if l, ok := parse(b[:len(b)-1]); ok {
			f(l.At)
		}
	}
}
