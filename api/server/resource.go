package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/wire"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// resource is an api.RESTResource with what its requests are decoded by.
type resource struct {
	api.RESTResource
	route   route
	fields  map[string]int // index in In by the parameter's name, in lower case
	binding binding        // without the call
}

// newResource checks r: what a request meets has been tried at start.
func newResource(r api.RESTResource) (*resource, error) {
	b := binding{Operation: api.Operation{Service: api.Platform, Name: r.Name, Mode: r.Mode, In: r.In, Out: r.Out, Route: r.Route,
		Resources: func(c *api.Call, in any) []string { return []string{r.Target(c, in)} }},
		service: &service{name: api.Platform, codec: func() (*wire.Codec, error) {
			return nil, errors.New("what AWS has no operation for has no AWS protocol")
		}}}
	route, err := parseRoute(b.Operation)
	if err == nil && r.Mode == api.ModeRead && route.method != http.MethodGet {
		err = fmt.Errorf("resource %s: it is read by GET, not by %q", r.Action(), r.Route)
	}
	if err != nil {
		return nil, err
	}
	fields := map[string]int{}
	for i := range r.In.NumField() {
		f := r.In.Field(i)
		if schema := typeSchema(f.Type); schema == nil || schema["type"] == "object" || schema["type"] == "array" || jsonName(f) == "" {
			return nil, fmt.Errorf("resource %s: the field %s is no parameter", r.Action(), f.Name)
		}
		fields[strings.ToLower(jsonName(f))] = i
	}
	for _, l := range route.labels {
		if _, ok := fields[strings.ToLower(l)]; !ok {
			return nil, fmt.Errorf("resource %s: the route's {%s} is no field of the input", r.Action(), l)
		}
	}
	return &resource{r, route, fields, b}, nil
}

func newResources(table []api.RESTResource) ([]*resource, error) {
	var list []*resource
	for _, one := range table {
		r, err := newResource(one)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list, func(o *resource) bool { return o.Name == r.Name }) {
			return nil, fmt.Errorf("resource %s is there twice", r.Action())
		}
		list = append(list, r)
	}
	return list, nil
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// decode makes the input of a request's parameters.
func (r *resource) decode(params url.Values) (any, error) {
	in, seen := reflect.New(r.In), map[int]bool{}
	for name, values := range params {
		i, ok := r.fields[strings.ToLower(name)]
		if !ok {
			return nil, awserr.New("InvalidParameterException", "There is no parameter %s.", name)
		}
		if seen[i] || len(values) != 1 {
			return nil, awserr.New("InvalidParameterException", "The parameter %s is there more than once.", name)
		}
		seen[i] = true
		if err := setParameter(in.Elem().Field(i), values[0]); err != nil {
			return nil, awserr.New("InvalidParameterException", "The parameter %s is %q: %v.", name, values[0], err)
		}
	}
	return in.Interface(), nil
}

func setParameter(field reflect.Value, text string) (err error) {
	var wanted error
	switch v := field.Addr().Interface().(type) {
	case *string:
		*v = text
	case *bool:
		*v, err = strconv.ParseBool(text)
		wanted = errors.New("true or false is wanted")
	case *time.Time:
		*v, err = time.Parse(time.RFC3339, text)
		wanted = errors.New("a time like 2006-01-02T15:04:05Z is wanted")
	default:
		var n uint64
		n, err = strconv.ParseUint(text, 10, field.Type().Bits())
		wanted = errors.New("a number is wanted")
		field.SetUint(n)
	}
	if err != nil {
		return wanted
	}
	return nil
}

// restResource answers a request for a resource, in the pipeline of all calls.
func (s *Server) restResource(x *exchange, r *resource, params url.Values) {
	refuse := func(err error) { s.restRefuse(x, r.binding.service, err) }
	switch {
	case r.Mode == api.ModeWrite && !r.takes(x.r):
		x.plain(http.StatusUnsupportedMediaType, "UnsupportedMediaType", "The Content-Type of this request must be "+r.contentType()+", and what only has parameters has no body.")
		return
	case r.uploads() && s.streamElsewhere(x, refuse):
		return
	}
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = x.readBody(api.Platform); err != nil {
			refuse(err)
			return
		}
	}
	if !r.uploads() && s.elsewhere(x, r.Mode == api.ModeWrite, body, refuse) {
		return
	}
	who, region, err := s.restIdentity(x.r, body)
	if err != nil {
		refuse(err)
		return
	}
	dropPresigned(params)
	sse := r.Stream && strings.Contains(x.r.Header.Get("Accept"), eventStream)
	if last := x.r.Header.Get("Last-Event-ID"); sse && last != "" {
		params.Set("after", last) // who comes again has seen more than his URL says
	}
	in, err := r.decode(params)
	if err != nil {
		refuse(err)
		return
	}
	// Who follows something has no end of his own: he leaves with the server.
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	defer context.AfterFunc(s.leaving, cancel)()
	a, left := answer{x: x, stream: r.Stream, bytes: r.Send != nil, sse: sse}, false
	var at *api.ElsewhereError
	b := r.binding
	b.Call = func(ctx context.Context, in any) (any, error) {
		var sent io.Reader = x.r.Body
		if r.Body != nil {
			sent = bytes.NewReader(body)
		}
		err := r.perform(ctx, in, sent, &a)
		if left = a.unread || ctx.Err() != nil; left {
			err = nil // the end of somebody's interest is no failure
		}
		if errors.As(err, &at) && !a.begun && s.cfg.Cluster != nil && !isForwarded(x.r) {
			return in, nil // somebody else's call
		}
		at = nil
		return in, err
	}
	_, err = s.perform(ctx, &b, x.call(&b, who, region), in)
	switch {
	case at != nil:
		if !s.send(x, at.Server, passOn(ctx, x.r, nil), refuse) {
			refuse(unavailable("The server that has this cannot be reached just now. Please try again."))
		}
	case a.begun && (err != nil || left):
		panic(http.ErrAbortHandler) // a cut answer must not look whole
	case err != nil:
		refuse(err)
	case !a.begun && !left:
		a.begin()
	}
}

func (r *resource) perform(ctx context.Context, in any, body io.Reader, a *answer) error {
	switch {
	case r.Send != nil:
		return r.Send(ctx, in, a)
	case r.Take != nil:
		out, err := r.Take(ctx, in, body)
		if err != nil {
			return err
		}
		return a.emit(out)
	}
	return r.Read(ctx, in, a.emit)
}

// uploads says whether a request's body may be of any length.
func (r *resource) uploads() bool { return r.Take != nil && r.Body == nil }

// contentType is what a request that writes has to declare: no form can, so a browser asks first before it sends a page's request.
func (r *resource) contentType() string {
	if r.uploads() {
		return "application/octet-stream"
	}
	return "application/json"
}

// takes says whether a request that writes is one that the resource takes.
func (r *resource) takes(q *http.Request) bool {
	if r.Take == nil && q.ContentLength != 0 {
		return false
	}
	declared, _, err := mime.ParseMediaType(q.Header.Get("Content-Type"))
	return q.Method == http.MethodDelete || err == nil && declared == r.contentType()
}

// eventStream is the media type of server-sent events, which clients ask for what is streamed in. They know by an id where they were.
const eventStream = "text/event-stream"

// ndjson is the media type of what is streamed otherwise: JSON lines.
const ndjson = "application/x-ndjson"

// answer is what a resource emits.
type answer struct {
	x      *exchange
	stream bool
	bytes  bool
	sse    bool // as server-sent events
	begun  bool
	unread bool // the client takes no more
}

func (a *answer) begin() {
	a.begun = true
	h := a.x.w.Header()
	h.Set("Content-Type", a.contentType())
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	a.x.w.WriteHeader(http.StatusOK)
}

func (a *answer) contentType() string {
	switch {
	case a.bytes:
		return "application/octet-stream"
	case a.sse:
		return eventStream
	case a.stream:
		return ndjson
	}
	return "application/json"
}

// Write sends bytes as they are.
func (a *answer) Write(b []byte) (int, error) {
	if !a.begun {
		a.begin()
	}
	n, err := a.x.w.Write(b)
	a.unread = err != nil
	return n, err
}

func (a *answer) emit(out ...any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, v := range out {
		if a.sse {
			if n, ok := v.(interface{ EventID() string }); ok {
				b.WriteString("id: " + n.EventID() + "\n")
			}
			b.WriteString("data: ")
		}
		if err := e.Encode(v); err != nil { // a line
			return err
		}
		if a.sse {
			b.WriteByte('\n')
		}
	}
	if !a.begun {
		a.begin()
	}
	_, err := a.x.w.Write(b.Bytes())
	if err == nil && a.stream {
		err = http.NewResponseController(a.x.w).Flush()
	}
	a.unread = err != nil
	return err
}
