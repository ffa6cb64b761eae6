package server

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// exchange is one request and its answer.
type exchange struct {
	s  *Server
	w  http.ResponseWriter
	r  *http.Request
	id string // request id, in the answer's x-amzn-RequestId
	at time.Time
}

type exchangeKey struct{}

func (s *Server) newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{s: s, w: w, r: r, id: id.UUID(rand.Reader), at: s.clock.Now()}
	w.Header().Set("X-Amzn-Requestid", x.id)
	return x
}

// recover keeps a panic outside of any handler (those have their own) from passing unseen. Nobody knows how much of an
// answer went out, so the connection is cut.
func (x *exchange) recover() {
	p := recover()
	if p == nil {
		return
	}
	if p != http.ErrAbortHandler {
		x.s.log.Error("panic while answering", "method", x.r.Method, "path", x.r.URL.Path, "requestId", x.id, "panic", p, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

func (x *exchange) write(status int, contentType string, body []byte) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1") // it will pass
	}
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		x.w.Write(body) // the client may be gone; that is its affair
	}
}

func (x *exchange) text(status int, body string) {
	x.write(status, "text/plain; charset=utf-8", []byte(body))
}

// plain answers with the REST API's form of an error, which is also that of everything that belongs to no AWS service.
func (x *exchange) plain(status int, code, message string) {
	body, err := json.Marshal(struct {
		Code      string `json:"code"`
		Message   string `json:"message"`
		RequestID string `json:"requestId"`
	}{code, message, x.id})
	if err != nil {
		panic(err) // three strings
	}
	x.write(status, "application/json", append(body, '\n'))
}

// Limits of an operation's body. Only ECR's layer parts are large: 20 MiB, and a third more as base64.
const (
	maxBody     = 4 << 20
	maxECRBody  = 32 << 20
	bodyTimeout = time.Minute
)

func bodyLimit(service string) int64 {
	if service == "ecr" || service == "ecrpublic" {
		return maxECRBody
	}
	return maxBody
}

// readBody reads the body of a request for service, as far as it is allowed to go on, and for as long.
func (x *exchange) readBody(service string) ([]byte, error) {
	limit := bodyLimit(service)
	if x.r.ContentLength > limit {
		return nil, bodyTooLarge(service, limit)
	}
	if x.r.Body == nil || x.r.ContentLength == 0 {
		return nil, nil
	}
	control := http.NewResponseController(x.w)
	if control.SetReadDeadline(time.Now().Add(bodyTimeout)) == nil { // unsupported in tests that have no connection
		defer control.SetReadDeadline(time.Time{})
	}
	body, err := x.readAll(limit)
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return nil, bodyTooLarge(service, limit)
	case err != nil:
		return nil, awserr.WithStatus(http.StatusBadRequest, "RequestTimeout", "The request body could not be read: %v.", err)
	}
	return body, nil
}

func bodyTooLarge(service string, limit int64) error {
	return awserr.WithStatus(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "The request body is larger than the %d bytes that %s takes.", limit, service)
}

// smallBody is as much as is allocated for a body on the word of its client.
const smallBody = 64 << 10

func (x *exchange) readAll(limit int64) ([]byte, error) {
	if n := x.r.ContentLength; n > 0 && n <= smallBody {
		body := make([]byte, n)
		_, err := io.ReadFull(x.r.Body, body)
		return body, err
	}
	var body bytes.Buffer
	body.Grow(int(min(max(x.r.ContentLength, 0)+bytes.MinRead, smallBody))) // more only for what really comes
	_, err := body.ReadFrom(http.MaxBytesReader(x.w, x.r.Body, limit))
	return body.Bytes(), err
}
