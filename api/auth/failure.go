package auth

import (
	"fmt"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Failure is why a request is not believed. Its code depends on the protocol of the service that was called: see In.
type Failure struct {
	reason  reason
	Message string
}

type reason uint8

const (
	missing      reason = iota // no signature at all
	incomplete                 // a signature that lacks a part
	mismatch                   // a signature that is not right
	skewed                     // a signature from another time
	unknownKey                 // nobody's access key, or not its session token
	expiredToken               // temporary credentials that have ended
	notAllowed                 // a known caller who may not
)

func fail(r reason, format string, args ...any) *Failure {
	return &Failure{r, fmt.Sprintf(format, args...)}
}

// Missing is the failure of a request that carries no signature but needs one.
func Missing() *Failure { return fail(missing, "Missing Authentication Token") }

// WellKnown is the failure of a task that calls with the credentials that everybody knows.
func WellKnown() *Failure {
	return fail(unknownKey, "The credentials test/test are for programs of this machine, not for tasks: give the task a role (taskRoleArn).")
}

// Unauthenticated says that the caller is not known, as against known and not allowed.
func (f *Failure) Unauthenticated() bool { return f.reason != notAllowed }

func (f *Failure) Error() string { return f.Message }

type answer struct {
	code   string
	status int
}

// Codes as the "Common Errors" page of each service and its live answers have them. Services of the JSON protocols name
// exceptions and, but for REST, answer 400 to everything that is the client's fault; query services name codes.
var (
	jsonAnswers = [...]answer{
		missing:      {"MissingAuthenticationTokenException", 400},
		incomplete:   {"IncompleteSignatureException", 400},
		mismatch:     {"InvalidSignatureException", 400},
		skewed:       {"InvalidSignatureException", 400},
		unknownKey:   {"UnrecognizedClientException", 400},
		expiredToken: {"ExpiredTokenException", 400},
		notAllowed:   {"AccessDeniedException", 400},
	}
	queryAnswers = [...]answer{
		missing:      {"MissingAuthenticationToken", 403},
		incomplete:   {"IncompleteSignature", 400},
		mismatch:     {"SignatureDoesNotMatch", 403},
		skewed:       {"SignatureDoesNotMatch", 403},
		unknownKey:   {"InvalidClientTokenId", 403},
		expiredToken: {"ExpiredToken", 403},
		notAllowed:   {"AccessDenied", 403},
	}
	ec2Answers = [...]answer{
		missing:      {"MissingAuthenticationToken", 403},
		incomplete:   {"IncompleteSignature", 400},
		mismatch:     {"AuthFailure", 401},
		skewed:       {"RequestExpired", 400},
		unknownKey:   {"AuthFailure", 401},
		expiredToken: {"RequestExpired", 400},
		notAllowed:   {"UnauthorizedOperation", 403},
	}
)

// In is the failure as a service of this protocol (as service models name it) words it.
func (f *Failure) In(protocol string) *awserr.Error {
	answers, message := &jsonAnswers, f.Message
	switch protocol {
	case "query":
		answers = &queryAnswers
		if f.reason == missing {
			message = "Request is missing Authentication Token"
		}
	case "ec2":
		answers = &ec2Answers
		switch f.reason {
		case mismatch, unknownKey:
			message = "AWS was not able to validate the provided access credentials"
		case notAllowed:
			message = "You are not authorized to perform this operation. " + message
		}
	case "json":
	default: // REST: the same names, but 403
		a := answers[f.reason]
		return awserr.WithStatus(403, a.code, "%s", message)
	}
	a := answers[f.reason]
	return awserr.WithStatus(a.status, a.code, "%s", message)
}
