package server

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/model"
	"github.com/seed-2f228079/neargate/api/wire"
)

// catalogue is every service there is a model of, with the operations that are bound.
type catalogue struct {
	services map[string]*service       // by SDK package name
	byInput  map[reflect.Type]*binding // by pointer type
}

// service is one AWS service. Its model is loaded when it is first called.
type service struct {
	name  string
	codec func() (*wire.Codec, error)
	bound map[string]*binding // by operation name
	paths func() []path       // of a REST service
}

// binding is an operation with its codec, made when it is first called.
type binding struct {
	api.Operation
	service *service
	wire    func() (*wire.Operation, error) // nil: no AWS operation, checked when it was decoded
}

// validate holds decoded input against the model.
func (b *binding) validate(in any) error {
	if b.wire == nil {
		return nil
	}
	w, err := b.wire()
	if err != nil {
		return err
	}
	return w.Validate(in)
}

func newCatalogue(ops []api.Operation) (catalogue, error) {
	c := catalogue{services: map[string]*service{}, byInput: map[reflect.Type]*binding{}}
	for _, name := range model.Services() {
		c.services[name] = newService(name)
	}
	for _, o := range ops {
		svc := c.services[o.Service]
		if svc == nil {
			return catalogue{}, fmt.Errorf("operation %s: there is no model of service %s", o.Name, o.Service)
		}
		if svc.bound[o.Name] != nil {
			return catalogue{}, fmt.Errorf("operation %s is bound twice", o.Action())
		}
		b := &binding{Operation: o, service: svc}
		b.wire = sync.OnceValues(func() (*wire.Operation, error) {
			codec, err := svc.codec()
			if err != nil {
				return nil, err
			}
			return codec.Bind(o.Name, o.In, o.Out)
		})
		svc.bound[o.Name] = b
		c.byInput[reflect.PointerTo(o.In)] = b
	}
	return c, nil
}

func newService(name string) *service {
	s := &service{name: name, bound: map[string]*binding{}}
	s.codec = sync.OnceValues(func() (*wire.Codec, error) { return wire.New(name) })
	s.paths = sync.OnceValue(s.compilePaths)
	return s
}

// Prepare binds every operation now and says what does not fit. Serving does not need it: it is for tests, and for those
// who rather wait at start than at the first call.
func (s *Server) Prepare() error {
	for _, b := range s.services.byInput {
		w, err := b.wire()
		if err != nil {
			return err
		}
		if err := w.Prepare(); err != nil {
			return fmt.Errorf("bind %s: %w", b.Action(), err)
		}
	}
	return nil
}

// signingNames are the services whose credential scope names something else than their SDK package. A test holds it
// against the models; it stands here so that a start need not load them.
var signingNames = map[string][]string{
	"application-autoscaling": {"applicationautoscaling"},
	"ecr-public":              {"ecrpublic"},
	"elasticloadbalancing":    {"elasticloadbalancingv2"},
	"logs":                    {"cloudwatchlogs"},
}

// signedFor is the service that a credential scope names, or nil.
func (c catalogue) signedFor(scope string) *service {
	if names := signingNames[scope]; names != nil {
		return c.services[names[0]]
	}
	return c.services[scope]
}

// path is a REST operation's method and URI.
type path struct {
	method, operation string
	segments          []string   // "{name}" and, last, "{name+}" are labels
	query             url.Values // what the query string must have; an empty value stands for any
}

func (s *service) compilePaths() []path {
	codec, err := s.codec()
	if err != nil || codec.Protocol() != wire.RESTJSON {
		return nil
	}
	m, out := codec.Model(), []path(nil)
	for _, name := range m.Operations() {
		o := m.Operation(name)
		uri, query, _ := strings.Cut(o.URI, "?")
		q, _ := url.ParseQuery(query) // the models' own
		out = append(out, path{o.Method, name, strings.Split(strings.Trim(uri, "/"), "/"), q})
	}
	// The most specific first: fixed segments before labels, more of the query string before less.
	slices.SortStableFunc(out, func(a, b path) int { return b.weight() - a.weight() })
	return out
}

func (p path) weight() int {
	w := len(p.query)
	for _, s := range p.segments {
		if !strings.HasPrefix(s, "{") {
			w += 100
		}
	}
	return w
}

// match compares with an escaped path's segments and returns the labels' values.
func (p path) match(method string, segments []string, query url.Values) (map[string]string, bool) {
	if method != p.method {
		return nil, false
	}
	labels := map[string]string{}
	for i, want := range p.segments {
		if name, greedy := strings.CutSuffix(want, "+}"); greedy && i < len(segments) {
			v, err := url.PathUnescape(strings.Join(segments[i:], "/"))
			if err != nil || v == "" {
				return nil, false
			}
			labels[name[1:]] = v
			segments = segments[:i+1]
			break
		}
		switch {
		case i >= len(segments):
			return nil, false
		case strings.HasPrefix(want, "{"):
			v, err := url.PathUnescape(segments[i])
			if err != nil || v == "" {
				return nil, false
			}
			labels[strings.Trim(want, "{}")] = v
		case want != segments[i]:
			return nil, false
		}
	}
	if len(segments) != len(p.segments) {
		return nil, false
	}
	for k, v := range p.query {
		if got, ok := query[k]; !ok || v[0] != "" && v[0] != got[0] {
			return nil, false
		}
	}
	return labels, true
}
