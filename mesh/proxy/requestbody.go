package proxy

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// bodySender copies the client's body to the target while the answer is awaited: a target may answer before it has
// read everything. A nil sender is a request without a body.
type bodySender struct {
	done chan struct{}
	err  error       // after done
	over atomic.Bool // set by abort
	// clientFault: the body ended early, was malformed or stalled; after done.
	clientFault bool
}

// sendBody starts copying.
func (x *exchange) sendBody(u *upstream) *bodySender {
	s := &bodySender{done: make(chan struct{})}
	from, length := x.c.body(), x.r.length
	deadline := time.Time{}
	touch := func() error {
		u.touch(x.idle)
		if now := time.Now(); now.Sub(deadline) > x.idle/8 {
			deadline = now
			if err := x.c.SetReadDeadline(now.Add(x.idle + x.idle/8)); err != nil {
				return err
			}
		}
		if s.over.Load() { // abort may have come between
			return os.ErrDeadlineExceeded
		}
		return nil
	}
	go func() {
		defer close(s.done)
		if length > 0 {
			var n int64
			n, s.err = copyTouching(u, from, touch)
			if s.err == nil && n != length {
				s.err = io.ErrUnexpectedEOF
			}
		} else {
			_, s.err = copyTouching(chunkWriter{u.socket}, from, touch)
			if s.err == nil {
				_, s.err = u.Write(appendLastChunk(nil, x.c.trailer()))
			}
		}
		if s.err == nil {
			s.err = x.c.SetReadDeadline(time.Time{}) // net/http's server watches for the client leaving, without limit
			return
		}
		if !errors.As(s.err, new(writeError)) {
			// The client's fault. The target must not take half a body for a whole one.
			s.clientFault = true
			u.Close()
		}
		// Else the target reads no more; it may have answered all the same.
	}()
	return s
}

// finished says whether everything has been sent, or sending has failed.
func (s *bodySender) finished() bool {
	if s == nil {
		return true
	}
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// settle gives a body that is as good as sent the moment to say so.
func (s *bodySender) settle() bool {
	if !s.finished() {
		select {
		case <-s.done:
		case <-time.After(5 * time.Millisecond):
		}
	}
	return s.finished()
}

func (s *bodySender) failed() bool { return s != nil && s.finished() && s.err != nil }

// abort ends the copying, whose connection to the target the caller has closed, and waits for it: the body must not be
// read any more once the exchange is over.
func (s *bodySender) abort(c client) {
	if s == nil || s.finished() {
		return
	}
	s.over.Store(true)
	c.SetReadDeadline(time.Unix(1, 0))
	<-s.done
}

// chunkWriter frames each write as one chunk.
type chunkWriter struct{ to *socket }

func (c chunkWriter) Write(b []byte) (int, error) { return c.to.writeChunk(nil, b) }
