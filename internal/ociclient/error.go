package ociclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Kind classifies a failure.
type Kind int

// The kinds of failures. Only Network and Unavailable are worth another try.
const (
	Network     Kind = iota // no answer: name resolution, connection, TLS, broken transfer
	Unavailable             // the registry answered 5xx or 429
	NotFound                // the registry has no such repository, tag or blob
	Denied                  // the registry wants other credentials
	NoPlatform              // the index has nothing for this host
	Invalid                 // a malformed reference or manifest
)

// Error is a failed exchange with a registry.
type Error struct {
	Kind Kind
	Ref  string // in full: registry, repository, tag or digest
	// Answer is the registry's own "CODE: message"; empty without one.
	Answer string
	Err    error
}

func (e *Error) Error() string {
	switch {
	case e.Kind == NotFound && e.Answer != "":
		return fmt.Sprintf("%s: not found: %s", e.Ref, e.Answer)
	case e.Kind == NotFound:
		return e.Ref + ": not found"
	case e.Kind == Denied && e.Answer != "":
		return "pull access denied, repository does not exist or may require authorization: server message: " + e.Answer
	case e.Kind == Denied:
		return "pull access denied, repository does not exist or may require authorization"
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Retryable says that the same request may succeed later.
func (e *Error) Retryable() bool { return e.Kind == Network || e.Kind == Unavailable }

func classify(ref string, err error) error {
	var done *Error
	if errors.As(err, &done) {
		return done
	}
	e := &Error{Kind: Network, Ref: ref, Err: err}
	var answer *transport.Error
	switch {
	case errors.As(err, &answer):
		words := make([]string, 0, len(answer.Errors))
		for _, d := range answer.Errors {
			words = append(words, strings.TrimSuffix(fmt.Sprintf("%s: %s", d.Code, d.Message), ": "))
		}
		e.Answer = strings.Join(words, "; ")
		switch code := answer.StatusCode; {
		case code == http.StatusNotFound:
			e.Kind = NotFound
		case code == http.StatusUnauthorized || code == http.StatusForbidden:
			e.Kind = Denied
		case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
			e.Kind = Unavailable
		default:
			e.Kind = Invalid
		}
	case errors.Is(err, errPlainHTTP):
		e.Kind = Invalid
	case errors.Is(err, context.Canceled):
		e.Err = context.Canceled
	}
	return e
}
