// Package api is what every API family shares: the operation table, the call's context and the way one part of the
// platform calls another.
//
// An operation is a plain method `func(context.Context, *I) (*O, error)` over the official SDK types. Its service and
// name follow from I (package path and type name), so a wrong pairing of method and operation cannot compile. The table
// made of them feeds dispatch, REST, OpenAPI, IAM, forwarding, metrics, audit and docs/OPERATIONS.md; nothing of that is
// known here. This package imports no codec, no HTTP and no state.
package api

import (
	"context"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
)

// Mode says whether an operation changes state: writes go to the leader, reads are answered anywhere.
type Mode uint8

// The two modes.
const (
	ModeRead Mode = iota
	ModeWrite
)

func (m Mode) String() string {
	if m == ModeWrite {
		return "write"
	}
	return "read"
}

// Operation is one line of a family's table.
type Operation struct {
	Service string // SDK package name: "ecs", "elasticloadbalancingv2"
	Name    string // "CreateService"
	Mode    Mode
	In, Out reflect.Type // struct types, not pointers
	// Route is the REST route under /api/v1: "POST /clusters/{cluster}/services". {cluster} names a member of the input,
	// case-insensitively. Empty: the operation has no REST route of its own and is reached as POST /api/v1/actions/SERVICE/NAME.
	Route string
	// Resources renders the ARNs that policies are held against from the input; nil or none means "*".
	Resources func(c *Call, in any) []string
	// Tagged renders the ARN of what the operation makes, where that is not what it is on: tags given along are held against it.
	Tagged func(c *Call, in any) string
	// Keys are the service's own condition keys, in lower case; a function that returns nil says that the input has none.
	Keys map[string]func(c *Call, in any) []string
	// Unsigned operations need no credentials.
	Unsigned bool
	// Open operations need credentials, and no permission.
	Open bool
	// Leader is set for what reads and is answered by the leader alone, as what writes is: it has what the others lack.
	Leader bool
	// Call runs the method. in is *In, out is *Out; exactly one of out and err is set.
	Call func(ctx context.Context, in any) (out any, err error)
	// Events, of an operation that answers with an event stream, emits events until there are no more, the client has left or the server
	// shuts down: that ends ctx. The first one says that this is no error any more; an error of later is the stream's last message.
	// Call is of no use then. nil: the operation answers with its output.
	Events func(ctx context.Context, in any, emit func(event any) error) error

	tags []int // where In has its Tags, a slice or a map; nil: nowhere
}

// Action is the operation's IAM action name, for example "ecs:CreateService".
func (o Operation) Action() string { return actionPrefix(o.Service) + ":" + o.Name }

// Option adjusts an operation.
type Option func(*Operation)

// Route sets the REST route.
func Route(r string) Option { return func(o *Operation) { o.Route = r } }

// Resource sets how the IAM resource is rendered.
func Resource[I any](f func(c *Call, in *I) string) Option {
	return Resources(func(c *Call, in *I) []string { return []string{f(c, in)} })
}

// Resources is Resource for operations on several: all of them must be allowed.
func Resources[I any](f func(c *Call, in *I) []string) Option {
	return func(o *Operation) { o.Resources = func(c *Call, in any) []string { return f(c, in.(*I)) } }
}

// Tagged says what a call's tags are given to, where the operation is on something else.
func Tagged[I any](f func(c *Call, in *I) string) Option {
	return func(o *Operation) { o.Tagged = func(c *Call, in any) string { return f(c, in.(*I)) } }
}

// Key adds one of the service's condition keys: "ecs:cluster". What aws:… keys stand for needs no line in a table.
func Key[I any](name string, f func(c *Call, in *I) []string) Option {
	return func(o *Operation) {
		if o.Keys == nil {
			o.Keys = map[string]func(*Call, any) []string{}
		}
		o.Keys[strings.ToLower(name)] = func(c *Call, in any) []string { return f(c, in.(*I)) }
	}
}

// AtLeader lets the leader answer the operation.
func AtLeader() Option { return func(o *Operation) { o.Leader = true } }

// ForLeader says whether the leader has to answer the operation.
func (o *Operation) ForLeader() bool { return o.Leader || o.Mode == ModeWrite }

// Unsigned lets everybody call the operation.
func Unsigned() Option { return func(o *Operation) { o.Unsigned = true } }

// Open lets everybody with credentials call the operation, whatever policies say.
func Open() Option { return func(o *Operation) { o.Open = true } }

// Needs is what a call of the operation needs: its own action and, where it makes something with tags, that of tagging.
func (o *Operation) Needs(c *Call, in any) []Access {
	a := Access{Action: o.Action(), Input: in, Key: o.key(c, in)}
	if o.Resources != nil {
		a.Resources = o.Resources(c, in)
	}
	needs := []Access{a}
	if o.makes() && o.brings(in) {
		needs = append(needs, o.tagging(c, in, a))
	}
	return needs
}

// makes says whether the operation makes what its Tags are for.
func (o *Operation) makes() bool {
	return o.Mode == ModeWrite && slices.ContainsFunc([]string{"Create", "PutParameter", "Register", "Run", "Start"}, func(p string) bool { return strings.HasPrefix(o.Name, p) })
}

// brings says whether the input has tags.
func (o *Operation) brings(in any) bool {
	if o.tags == nil {
		return len(RequestTags(in)) > 0
	}
	return reflect.ValueOf(in).Elem().FieldByIndex(o.tags).Len() > 0
}

// tagging is "Grant permission to tag resources on creation" of ECS's and others' guides: the action that tags what is there is
// needed too, with the key CreateAction. IAM has one for each kind, TagUser and TagRole, and no such key.
func (o *Operation) tagging(c *Call, in any, a Access) Access {
	prefix := actionPrefix(o.Service)
	action := "TagResource"
	switch o.Service {
	case "iam":
		action = "Tag" + strings.TrimPrefix(o.Name, "Create")
	case "elasticloadbalancingv2":
		action = "AddTags"
	case "ssm":
		action = "AddTagsToResource"
	case "ec2":
		action = "CreateTags"
	}
	t := Access{Action: prefix + ":" + action, Resources: a.Resources, Input: in, Key: func(key string) ([]string, bool) {
		if key == prefix+":createaction" {
			return []string{o.Name}, true
		}
		if a.Key == nil {
			return nil, false
		}
		return a.Key(key)
	}}
	if o.Tagged != nil {
		t.Resources = []string{o.Tagged(c, in)}
	}
	return t
}

// key answers the service's condition keys; nil when the operation has none.
func (o *Operation) key(c *Call, in any) func(string) ([]string, bool) {
	if len(o.Keys) == 0 {
		return nil
	}
	return func(key string) ([]string, bool) {
		f := o.Keys[key]
		if f == nil {
			return nil, false
		}
		values := f(c, in)
		return values, values != nil
	}
}

// Read makes an operation that changes nothing.
func Read[I, O any](f func(context.Context, *I) (*O, error), opts ...Option) Operation {
	return operation(ModeRead, f, opts)
}

// Write makes an operation that changes state.
func Write[I, O any](f func(context.Context, *I) (*O, error), opts ...Option) Operation {
	return operation(ModeWrite, f, opts)
}

// EventStream makes an operation that changes nothing and answers with events, which are variants of the SDK's union E.
func EventStream[I, O, E any](f func(ctx context.Context, in *I, emit func(E) error) error, opts ...Option) Operation {
	o := operation(ModeRead, func(context.Context, *I) (*O, error) {
		return nil, fmt.Errorf("%s answers with an event stream, and was called for an output", reflect.TypeFor[I]())
	}, opts)
	o.Events = func(ctx context.Context, in any, emit func(any) error) error {
		return f(ctx, in.(*I), func(e E) error { return emit(e) })
	}
	return o
}

// operation panics on an input type that is not an SDK one: the table is built at start, from code.
func operation[I, O any](m Mode, f func(context.Context, *I) (*O, error), opts []Option) Operation {
	in, out := reflect.TypeFor[I](), reflect.TypeFor[O]()
	name, ok := strings.CutSuffix(in.Name(), "Input")
	if !ok || in.PkgPath() != out.PkgPath() || out.Name() != name+"Output" {
		panic(fmt.Sprintf("api: %s and %s are not an SDK operation's input and output", in, out))
	}
	o := Operation{
		Service: path.Base(in.PkgPath()), Name: name, Mode: m, In: in, Out: out,
		Call: func(ctx context.Context, v any) (any, error) {
			r, err := f(ctx, v.(*I))
			if (r == nil) == (err == nil) {
				panic(fmt.Sprintf("api: %s returned output %v and error %v; exactly one is due", name, r, err))
			}
			if err != nil {
				return nil, err
			}
			return r, nil
		},
	}
	if f, ok := in.FieldByName("Tags"); ok && (f.Type.Kind() == reflect.Slice || f.Type.Kind() == reflect.Map) {
		o.tags = f.Index
	}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// actionPrefix is the IAM prefix where it differs from the SDK's package name.
func actionPrefix(service string) string {
	switch service {
	case "elasticloadbalancingv2":
		return "elasticloadbalancing"
	case "applicationautoscaling":
		return "application-autoscaling"
	case "cloudwatchlogs":
		return "logs"
	case "ecrpublic":
		return "ecr-public"
	}
	return service
}
