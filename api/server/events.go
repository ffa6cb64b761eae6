package server

import (
	"context"
	"net/http"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/wire"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// eventTimeout is how long a client may take over a message of an event stream. One that takes longer has left, whatever its connection says.
const eventTimeout = time.Minute

// untilLeaving has the request end when the server begins to shut down: a stream of events has no end of its own. What it returns is for
// the end of the answer.
func (x *exchange) untilLeaving() (done func()) {
	ctx, cancel := context.WithCancel(x.r.Context())
	unhook := context.AfterFunc(x.s.leaving, cancel)
	x.r = x.r.WithContext(ctx)
	return func() {
		unhook()
		cancel()
	}
}

// events is an event stream as it goes out.
type events struct {
	x           *exchange
	contentType string
	initial     []byte // goes out in front of the first event
	encode      func(event any) ([]byte, error)
	begun       bool
	unread      bool // the client takes no more
}

func (e *events) emit(event any) error {
	b, err := e.encode(event)
	if err != nil {
		return err
	}
	return e.send(b)
}

func (e *events) send(b []byte) error {
	if !e.begun {
		e.begun = true
		h := e.x.w.Header()
		h.Set("Content-Type", e.contentType)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		e.x.w.WriteHeader(http.StatusOK)
		b = append(e.initial, b...)
	}
	control := http.NewResponseController(e.x.w)
	if control.SetWriteDeadline(time.Now().Add(eventTimeout)) == nil { // unsupported in tests that have no connection
		defer control.SetWriteDeadline(time.Time{})
	}
	_, err := e.x.w.Write(b)
	if err == nil {
		err = control.Flush()
	}
	e.unread = err != nil
	return err
}

// run has the operation emit its events, in the pipeline of all calls. The error is ready to be shown; without one the stream is over,
// because nobody wants it any more or because there is no more.
func (e *events) run(b *binding, who api.Identity, region string, in any) error {
	s, of := e.x.s, *b
	of.Call = func(ctx context.Context, in any) (any, error) {
		err := b.Events(ctx, in, e.emit)
		if e.unread || ctx.Err() != nil {
			err = nil // the end of somebody's interest is no failure
		}
		return in, err
	}
	_, err := s.perform(e.x.r.Context(), &of, e.x.call(b, who, region), in)
	switch {
	case e.unread:
		panic(http.ErrAbortHandler) // a cut answer must not look whole
	case err == nil && s.leaving.Err() != nil:
		return unavailable("The server is shutting down.")
	}
	return err
}

// answerEvents answers with an event stream in its own encoding. What fails once it has begun is its last message.
func (s *Server) answerEvents(x *exchange, q *request, w *wire.Operation, who api.Identity, region string, in any) {
	encoder, err := w.Events()
	if err != nil {
		s.refuse(x, q.codec, err)
		return
	}
	e := events{x: x, contentType: wire.EventStreamType, initial: encoder.Initial(), encode: encoder.Event}
	err = e.run(q.binding, who, region, in)
	if err == nil && e.begun {
		return
	}
	shown, ok := awserr.As(err)
	switch {
	case !ok: // over before its first event: the client has left
		panic(http.ErrAbortHandler)
	case e.begun:
		if e.send(encoder.Error(shown)) != nil {
			panic(http.ErrAbortHandler)
		}
	default:
		x.hint(shown)
		s.show(x, q.codec.Error(shown, x.id))
	}
}

// restEvents answers with the events as lines of JSON, like a resource that streams.
func (s *Server) restEvents(x *exchange, b *binding, w *wire.Operation, who api.Identity, region string, in any) {
	encoder, err := w.Events()
	if err != nil {
		s.restRefuse(x, b.service, err)
		return
	}
	e := events{x: x, contentType: ndjson, encode: encoder.Line}
	switch err := e.run(b, who, region, in); {
	case err != nil && !e.begun:
		s.restRefuse(x, b.service, err)
	case err != nil || !e.begun:
		panic(http.ErrAbortHandler) // a cut answer must not look whole
	}
}
