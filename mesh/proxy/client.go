package proxy

import (
	"bufio"
	"io"
	"time"
)

// client is who asked: a connection to one of our sockets (conn), or a request that net/http's server has taken (handled). An
// exchange knows nothing else of it, so that routing, forwarding and counting are written once.
type client interface {
	// watch has i happen once the client has left, until unwatch; which says whether it has not.
	watch(i *interruption)
	unwatch() bool
	left() bool

	// wholeBody takes the request's body if all of it is here already and small; nil: it is to be read.
	wholeBody() []byte
	// body begins the reading of the request's body, beside the answer's writing; a client that waits for 100 gets it.
	body() io.Reader
	// trailer is what followed the body; after its end.
	trailer() header
	// SetReadDeadline bounds the reading of the body.
	SetReadDeadline(t time.Time) error

	// hint sends an interim answer at once.
	hint(status int, h header) error
	// answer begins the final one. With bodyLength h has the length; with last the connection ends after it.
	answer(status int, h header, f framing, last bool) error
	// Write adds to the answer's body. What is small may wait for Flush or finish.
	io.Writer
	Flush() error
	finish(trailer header) error
	// abort ends an answer short, so that the client sees it is not whole. It may panic with http.ErrAbortHandler.
	abort()
	// hijack gives the connection up to the caller, who closes it. Bytes that came early are in the reader.
	hijack() (duplex, *bufio.Reader, error)
}

// duplex is a connection whose directions end apart.
type duplex interface {
	io.WriteCloser
	CloseWrite() error
}

// interruption is what is done about a client that leaves.
type interruption struct{ act func() }
