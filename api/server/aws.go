package server

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/api/wire"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// request is a call in an AWS protocol, so far as it is understood.
type request struct {
	service *service
	codec   *wire.Codec
	name    string // operation
	binding *binding
	decode  func(*wire.Operation) (any, error)
}

// aws answers a request in one of the AWS protocols: the credential scope decides the service, then the service's
// protocol where the operation's name stands.
func (s *Server) aws(x *exchange) {
	sig, err := auth.Parse(x.r)
	if err != nil {
		s.refuse(x, nil, err)
		return
	}
	if sig == nil {
		s.unsigned(x)
		return
	}
	if s.notForTasks(x.r, sig.AccessKeyID) {
		s.refuse(x, nil, auth.WellKnown())
		return
	}
	svc := s.services.signedFor(sig.Service)
	if svc == nil {
		s.refuse(x, nil, awserr.WithStatus(http.StatusNotImplemented, "NotImplemented", "The service %s is not implemented.", sig.Service))
		return
	}
	codec, err := svc.codec()
	if err != nil {
		s.refuse(x, nil, err)
		return
	}
	body, err := x.readBody(svc.name)
	if err != nil {
		s.refuse(x, codec, err)
		return
	}
	q, unknown := s.resolve(x.r, svc, codec, body)
	if unknown == nil && q.binding.Events != nil {
		defer x.untilLeaving()()
	}
	// Before the signature is looked at: the key that made it may be younger than what this server knows.
	if unknown == nil && s.elsewhere(x, q.binding.ForLeader(), body, func(err error) { s.refuse(x, codec, err) }) {
		return
	}
	who, err := s.verifier.Verify(x.r.Context(), x.r, sig, body)
	if err == nil {
		err = unknown
	}
	if err != nil {
		s.refuse(x, codec, err)
		return
	}
	s.answer(x, q, who, sig.Region)
}

// unsigned answers a request without signature, which only few operations take.
func (s *Server) unsigned(x *exchange) {
	var body []byte
	for _, svc := range s.services.services {
		if !svc.hasUnsigned() {
			continue
		}
		codec, err := svc.codec()
		if err != nil || !addressed(x.r, codec) {
			continue
		}
		if body == nil {
			if body, err = x.readBody(svc.name); err != nil {
				s.refuse(x, codec, err)
				return
			}
		}
		if q, err := s.resolve(x.r, svc, codec, body); err == nil && q.binding.Unsigned {
			if s.elsewhere(x, q.binding.ForLeader(), body, func(err error) { s.refuse(x, codec, err) }) {
				return
			}
			s.answer(x, q, api.Identity{Account: s.cfg.Account}, s.cfg.Region)
			return
		}
	}
	s.refuse(x, nil, auth.Missing())
}

func (s *service) hasUnsigned() bool {
	for _, b := range s.bound {
		if b.Unsigned {
			return true
		}
	}
	return false
}

// addressed says whether an unsigned request may be for the service: only its protocol can tell.
func addressed(r *http.Request, codec *wire.Codec) bool {
	switch codec.Protocol() {
	case wire.JSON:
		prefix, _, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		return prefix == codec.Model().TargetPrefix
	case wire.Query, wire.EC2:
		return isForm(r)
	}
	return false
}

// isForm says whether r looks like a query service's. (Some python clients label any upload as a form.)
func isForm(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") || r.URL.Query().Has("Action")
}

const unknownOperation = "The action or operation requested is invalid. Verify that the action is typed correctly."

// resolve finds the operation that r asks svc for. Its errors are AWS's for each protocol; an operation that AWS has and
// we do not is a 501, which no SDK retries.
func (s *Server) resolve(r *http.Request, svc *service, codec *wire.Codec, body []byte) (*request, error) {
	q := &request{service: svc, codec: codec}
	if p := r.Header.Get("Smithy-Protocol"); p != "" {
		return nil, awserr.WithStatus(http.StatusNotImplemented, "NotImplemented", "%s is spoken in %s here, not in %s.", svc.name, codec.Protocol(), p)
	}
	switch codec.Protocol() {
	case wire.JSON:
		prefix, name, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		if prefix != codec.Model().TargetPrefix || codec.Model().Operation(name) == nil {
			return nil, awserr.WithStatus(http.StatusBadRequest, "UnknownOperationException", unknownOperation)
		}
		q.name = name
		q.decode = func(o *wire.Operation) (any, error) { return o.DecodeJSON(body) }
	case wire.Query, wire.EC2:
		form, err := parseForm(r, body)
		if err != nil {
			return nil, err
		}
		if err := q.action(form); err != nil {
			return nil, err
		}
		q.decode = func(o *wire.Operation) (any, error) { return o.DecodeQuery(form) }
	default:
		labels, ok := q.route(r)
		if !ok {
			return nil, awserr.WithStatus(http.StatusNotFound, "UnknownOperationException", unknownOperation)
		}
		q.decode = func(o *wire.Operation) (any, error) { return o.DecodeHTTP(labels, r.URL.Query(), r.Header, body) }
	}
	if q.binding = svc.bound[q.name]; q.binding == nil {
		return nil, notImplemented(svc.name, q.name)
	}
	return q, nil
}

// notImplemented is the answer for an operation that exists on AWS only.
func notImplemented(service, name string) error {
	return awserr.WithStatus(http.StatusNotImplemented, "NotImplemented", "The operation %s of %s is not implemented.", name, service)
}

func parseForm(r *http.Request, body []byte) (url.Values, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, awserr.WithStatus(http.StatusBadRequest, "MalformedQueryString", "The request body is not a form: %v.", err)
	}
	for k, v := range r.URL.Query() {
		form[k] = v
	}
	return form, nil
}

func (q *request) action(form url.Values) error {
	m := q.codec.Model()
	action, version := form.Get("Action"), form.Get("Version")
	switch {
	case action == "":
		return awserr.WithStatus(http.StatusBadRequest, "MissingAction", "The request is missing an action or a required parameter.")
	case m.Operation(action) != nil && (version == m.APIVersion || version == ""):
		q.name = action
		return nil
	case q.codec.Protocol() == wire.EC2:
		return awserr.WithStatus(http.StatusBadRequest, "InvalidAction", "The action %s is not valid for this web service.", action)
	}
	return awserr.WithStatus(http.StatusBadRequest, "InvalidAction", "Could not find operation %s for version %s", action, version)
}

func (q *request) route(r *http.Request) (map[string]string, bool) {
	segments := strings.Split(strings.Trim(r.URL.EscapedPath(), "/"), "/")
	query := r.URL.Query()
	for _, p := range q.service.paths() {
		if labels, ok := p.match(r.Method, segments, query); ok {
			q.name = p.operation
			return labels, true
		}
	}
	return nil, false
}

// answer decodes, performs and encodes.
func (s *Server) answer(x *exchange, q *request, who api.Identity, region string) {
	w, err := q.binding.wire()
	if err != nil {
		s.refuse(x, q.codec, err)
		return
	}
	in, err := q.decode(w)
	if err != nil {
		s.refuse(x, q.codec, err)
		return
	}
	if q.binding.Events != nil {
		s.answerEvents(x, q, w, who, region, in)
		return
	}
	out, err := s.perform(x.r.Context(), q.binding, x.call(q.binding, who, region), in)
	if err != nil {
		e, _ := awserr.As(err)
		x.hint(e)
		s.show(x, q.codec.Error(e, x.id))
		return
	}
	switch q.codec.Protocol() {
	case wire.JSON:
		x.encode(q.codec, func(b []byte) []byte { return w.AppendJSON(b, out) })
	case wire.Query, wire.EC2:
		x.encode(q.codec, func(b []byte) []byte { return w.AppendXML(b, out, x.id) })
	default:
		a, err := w.EncodeHTTP(out)
		if err != nil {
			s.refuse(x, q.codec, err)
			return
		}
		s.show(x, a)
	}
}

// encoded keeps what answers were encoded into.
var encoded = sync.Pool{New: func() any { return new([]byte) }}

// encode answers with what is appended.
func (x *exchange) encode(codec *wire.Codec, to func([]byte) []byte) {
	b := encoded.Get().(*[]byte)
	*b = to((*b)[:0])
	x.write(http.StatusOK, codec.ContentType(), *b)
	if cap(*b) <= smallBody {
		encoded.Put(b)
	}
}

// refuse answers a request that has not reached its operation. Without a codec the request's form decides that of the
// answer.
func (s *Server) refuse(x *exchange, codec *wire.Codec, err error) {
	protocol, service := guessProtocol(x.r), "unknown"
	if codec != nil {
		protocol, service = codec.Protocol(), codec.Model().Service
	}
	var f *auth.Failure
	e, ok := awserr.As(err)
	switch {
	case ok:
	case errors.As(err, &f):
		e = f.In(string(protocol))
	default:
		s.log.Error("request failed", "method", x.r.Method, "path", x.r.URL.Path, "requestId", x.id, "error", err)
		e = awserr.WithStatus(http.StatusInternalServerError, "InternalFailure", "An internal error has occurred. The request id leads to it in the log.")
	}
	s.metrics.refusals.WithLabelValues(service, e.Code).Inc()
	s.log.Info("refused", "method", x.r.Method, "path", x.r.URL.Path, "service", service, "code", e.Code, "message", e.Message,
		"from", x.r.RemoteAddr, "requestId", x.id)
	if codec != nil {
		s.show(x, codec.Error(e, x.id))
		return
	}
	s.show(x, foreign(protocol, e, x.id))
}

func (s *Server) show(x *exchange, a wire.Answer) {
	for k, v := range a.Header {
		x.w.Header()[k] = v
	}
	x.write(a.Status, a.Header.Get("Content-Type"), a.Body)
}
