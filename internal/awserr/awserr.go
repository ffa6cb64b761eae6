// Package awserr is the error that crosses every layer untouched and becomes a protocol answer.
//
// A handler returns *Error for everything a client should see. Any other error is an internal failure: the client gets
// a request id, the log gets the cause. The HTTP status and the sender/receiver fault of a code come from the service's
// model when Status is 0.
package awserr

import (
	"errors"
	"fmt"
)

// Error is an answer in an AWS protocol.
type Error struct {
	Code    string // as AWS spells it, for example "ClusterNotFoundException"
	Message string // for a person; names the field at fault
	Status  int    // HTTP status; 0 means what the model says, else 400
	// Fields are modelled members of the error shape beyond the message, by wire name.
	Fields map[string]any
	// RetryAfter is after how many seconds to come again; 0: nobody can say.
	RetryAfter int
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// New makes an error with the code's modelled status.
func New(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithStatus makes an error with an explicit HTTP status.
func WithStatus(status int, code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Status: status}
}

// As finds an *Error in err's chain.
func As(err error) (*Error, bool) {
	if e, is := err.(*Error); is || err == nil {
		return e, is // mostly; what follows allocates
	}
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// Is says whether err carries code.
func Is(err error, code string) bool {
	e, ok := As(err)
	return ok && e.Code == code
}
