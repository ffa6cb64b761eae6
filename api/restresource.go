package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Platform is the service that resources of the REST API belong to: what AWS has no operation for. IAM actions begin
// with it.
const Platform = "neargate"

// RESTResource is something that the REST API shows or does and AWS has no operation for. It is authenticated, authorized, counted and
// described like an operation. What it shows answers a GET and changes nothing.
//
// Like an operation it takes one struct, ...Input, from which its name follows. A field is a parameter of the path or
// the query string, by the name in its json tag; its doc tag describes it. Fields are strings, bools, unsigned integers
// and times (RFC 3339). What it answers is written by encoding/json.
type RESTResource struct {
	Name    string // "GetTaskLogs"
	Mode    Mode
	Route   string       // "GET /clusters/{cluster}/tasks/{task}/logs"; of one that writes, another method
	Doc     string       // a sentence for the OpenAPI document
	In, Out reflect.Type // struct types, not pointers
	Stream  bool         // any number of Out, a JSON line each, as they come; otherwise one
	// Target renders the IAM resource ARN from the input.
	Target func(c *Call, in any) string
	// Read answers. in is *In. A stream emits Outs as they come and returns when there are no more; what one call emits goes out
	// at once, and the first call, even of nothing, says that this is no error any more: later ones only cut the answer.
	// Emitting fails when the client has left. Otherwise one Out is emitted.
	Read func(ctx context.Context, in any, emit func(out ...any) error) error
	// Send, if it is set, writes bytes instead, of no length known beforehand.
	Send func(ctx context.Context, in any, w io.Writer) error
	// Take, if it is set, reads the request's body, of any length, and returns its Out.
	Take func(ctx context.Context, in any, body io.Reader) (any, error)
	// Body, if it is set, is the struct type of the JSON document that Take reads: the body is short then, and signed with the request.
	Body reflect.Type
}

// ElsewhereError says that another server of the cluster has what a resource shows. The request is passed on to it, if nothing has been
// emitted yet.
type ElsewhereError struct{ Server string }

func (e *ElsewhereError) Error() string { return "server " + e.Server + " has it" }

// Action is the resource's IAM action name, for example "neargate:GetTaskLogs".
func (r RESTResource) Action() string { return Platform + ":" + r.Name }

// Document makes a resource of one answer.
func Document[I, O any](route, doc string, target func(*Call, *I) string, f func(context.Context, *I) (*O, error)) RESTResource {
	return resource[I, O](route, doc, target, false, func(ctx context.Context, in *I, emit func(...any) error) error {
		out, err := f(ctx, in)
		if err != nil {
			return err
		}
		return emit(out)
	})
}

// Change makes a resource that writes, with one answer. Its parameters stand in path and query string.
func Change[I, O any](route, doc string, target func(*Call, *I) string, f func(context.Context, *I) (*O, error)) RESTResource {
	r := Document(route, doc, target, f)
	r.Mode = ModeWrite
	return r
}

// Create makes a resource that writes what a JSON document says: what must not be in a URL, which others log. A member that B does not have
// is refused.
func Create[I, B, O any](route, doc string, target func(*Call, *I) string, f func(context.Context, *I, *B) (*O, error)) RESTResource {
	r := Upload(route, doc, target, func(ctx context.Context, in *I, body io.Reader) (*O, error) {
		b, d := new(B), json.NewDecoder(body)
		d.DisallowUnknownFields()
		if err := d.Decode(b); err != nil {
			return nil, awserr.New("InvalidParameterException", "The body is not the JSON document that is wanted: %v.", err)
		}
		if _, err := d.Token(); err != io.EOF {
			return nil, awserr.New("InvalidParameterException", "The body has something behind its JSON document.")
		}
		return f(ctx, in, b)
	})
	r.Body = reflect.TypeFor[B]()
	return r
}

// Download makes a resource of bytes.
func Download[I any](route, doc string, target func(*Call, *I) string, f func(ctx context.Context, in *I, w io.Writer) error) RESTResource {
	r := resource[I, struct{}](route, doc, target, false, nil)
	r.Send = func(ctx context.Context, in any, w io.Writer) error { return f(ctx, in.(*I), w) }
	return r
}

// Upload makes a resource that writes what it is sent.
func Upload[I, O any](route, doc string, target func(*Call, *I) string, f func(ctx context.Context, in *I, body io.Reader) (*O, error)) RESTResource {
	r := resource[I, O](route, doc, target, false, nil)
	r.Mode = ModeWrite
	r.Take = func(ctx context.Context, in any, body io.Reader) (any, error) {
		out, err := f(ctx, in.(*I), body)
		if err != nil {
			return nil, err
		}
		return out, nil
	}
	return r
}

// Stream makes a resource of many answers, which f emits.
func Stream[I, O any](route, doc string, target func(*Call, *I) string, f func(ctx context.Context, in *I, emit func(...O) error) error) RESTResource {
	return resource[I, O](route, doc, target, true, func(ctx context.Context, in *I, emit func(...any) error) error {
		return f(ctx, in, func(out ...O) error {
			list := make([]any, len(out))
			for i := range out {
				list[i] = &out[i]
			}
			return emit(list...)
		})
	})
}

// resource panics on an input that is not named after what it is for: the table is built at start, from code.
func resource[I, O any](route, doc string, target func(*Call, *I) string, stream bool, read func(context.Context, *I, func(...any) error) error) RESTResource {
	in, out := reflect.TypeFor[I](), reflect.TypeFor[O]()
	name, ok := strings.CutSuffix(in.Name(), "Input")
	if !ok || in.Kind() != reflect.Struct || out.Kind() != reflect.Struct {
		panic(fmt.Sprintf("api: %s and %s are not a resource's input and answer", in, out))
	}
	return RESTResource{Name: name, Route: route, Doc: doc, In: in, Out: out, Stream: stream,
		Target: func(c *Call, v any) string { return target(c, v.(*I)) },
		Read: func(ctx context.Context, v any, emit func(...any) error) error {
			return read(ctx, v.(*I), emit)
		}}
}
