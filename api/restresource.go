package api

import (
	"context"
	"fmt"
	"reflect"
	"strings"
)

// Platform is the service that resources of the REST API belong to: what AWS has no operation for. IAM actions begin
// with it.
const Platform = "neargate"

// RESTResource is something that the REST API shows and AWS has no operation for: it answers a GET, changes nothing, and is
// authenticated, authorized, counted and described like an operation.
//
// Like an operation it takes one struct, ...Input, from which its name follows. A field is a parameter of the path or
// the query string, by the name in its json tag; its doc tag describes it. Fields are strings, bools, unsigned integers
// and times (RFC 3339). What it answers is written by encoding/json.
type RESTResource struct {
	Name    string       // "GetTaskLogs"
	Route   string       // "GET /clusters/{cluster}/tasks/{task}/logs"
	Doc     string       // a sentence for the OpenAPI document
	In, Out reflect.Type // struct types, not pointers
	Stream  bool         // any number of Out, a JSON line each, as they come; otherwise one
	// Target renders the IAM resource ARN from the input.
	Target func(c *Call, in any) string
	// Read answers. in is *In. A stream emits Outs as they come and returns when there are no more; what one call emits goes out
	// at once, and the first call, even of nothing, says that this is no error any more: later ones only cut the answer.
	// Emitting fails when the client has left. Otherwise one Out is emitted.
	Read func(ctx context.Context, in any, emit func(out ...any) error) error
}

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
