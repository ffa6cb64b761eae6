package proxy

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// bodySender copies the client's body to the target while the answer is awaited: a target may answer before it has
// read everything. A nil sender is a request without a body.
type bodySender struct {
	done chan struct{}
	err  error // after done
	// clientFault: the body ended early, was malformed or stalled; after done.
	clientFault bool
}

// sendBody starts copying. A client that waits for "100 Continue" gets it with the first read, from net/http.
func (x *exchange) sendBody(u *upstream) *bodySender {
	s := &bodySender{done: make(chan struct{})}
	rc := http.NewResponseController(x.w)
	rc.EnableFullDuplex() // otherwise net/http swallows the rest of the body before the answer's first byte
	deadline := time.Time{}
	touch := func() {
		u.touch(x.idle)
		if now := time.Now(); now.Sub(deadline) > x.idle/8 {
			deadline = now
			rc.SetReadDeadline(now.Add(x.idle))
		}
	}
	r := x.r.Request
	go func() {
		defer close(s.done)
		if r.ContentLength > 0 {
			var n int64
			n, s.err = copyTouching(u, r.Body, touch)
			if s.err == nil && n != r.ContentLength {
				s.err = io.ErrUnexpectedEOF
			}
		} else {
			_, s.err = copyTouching(chunkWriter{u}, r.Body, touch)
			if s.err == nil {
				s.err = writeLastChunk(u, r.Trailer)
			}
		}
		if s.err == nil {
			s.err = rc.SetReadDeadline(time.Time{}) // the server watches for the client leaving, without limit
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
// read any more once the handler returns.
func (s *bodySender) abort(w http.ResponseWriter) {
	if s == nil || s.finished() {
		return
	}
	http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	<-s.done
}

// chunkWriter frames each write as one chunk.
type chunkWriter struct{ u *upstream }

func (c chunkWriter) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil // an empty chunk would end the body
	}
	head := strconv.AppendInt(make([]byte, 0, 12), int64(len(b)), 16)
	if _, err := c.u.TCPConn.Write(append(head, "\r\n"...)); err != nil {
		return 0, err
	}
	n, err := c.u.TCPConn.Write(b)
	if err != nil {
		return n, err
	}
	_, err = c.u.TCPConn.Write([]byte("\r\n"))
	return n, err
}

func writeLastChunk(u *upstream, trailer http.Header) error {
	b := []byte("0\r\n")
	for k, vs := range trailer {
		for _, v := range vs {
			b = appendField(b, k, v)
		}
	}
	_, err := u.TCPConn.Write(append(b, "\r\n"...))
	return err
}
