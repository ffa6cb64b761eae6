package server

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

const restPrefix = "/api/v1"

// route is an operation's REST route in parts: "POST /clusters/{cluster}/services".
type route struct {
	method, path string
	labels       []string
}

func parseRoute(o api.Operation) (route, error) {
	method, path, ok := strings.Cut(o.Route, " ")
	methods := []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	if o.Mode == api.ModeRead {
		methods = []string{http.MethodGet, http.MethodPost}
	}
	if !ok || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "/actions/") || !slices.Contains(methods, method) {
		return route{}, fmt.Errorf("operation %s: the REST route %q does not suit a %s", o.Action(), o.Route, o.Mode)
	}
	r := route{method: method, path: path}
	for seg := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(seg, "{") && strings.HasSuffix(seg, "}") {
			r.labels = append(r.labels, strings.Trim(seg, "{}"))
		}
	}
	return r, nil
}

// pattern is the route as gin spells it.
func (r route) pattern() string {
	return restPrefix + strings.NewReplacer("{", ":", "}", "").Replace(r.path)
}

// params are the parameters of the query string and the path.
func (r route) params(c *gin.Context) url.Values {
	params := c.Request.URL.Query()
	for _, l := range r.labels {
		params[l] = []string{c.Param(l)}
	}
	return params
}

// dropPresigned takes out the parameters that a presigned request is signed by.
func dropPresigned(params url.Values) {
	maps.DeleteFunc(params, func(k string, _ []string) bool { return strings.HasPrefix(k, "X-Amz-") })
}

// newREST makes the handler of /api/v1 from the routes of the table. Every operation is also there as
// POST /api/v1/actions/{service}/{operation}.
func (s *Server) newREST() (h http.Handler, err error) {
	gin.SetMode(gin.ReleaseMode)
	g := gin.New()
	// A name may contain an escaped slash: ARNs, log groups.
	g.UseRawPath, g.UnescapePathValues = true, true
	g.HandleMethodNotAllowed, g.RedirectTrailingSlash = true, false
	g.NoRoute(func(c *gin.Context) {
		exchangeOf(c).plain(http.StatusNotFound, "NotFound", "There is nothing under this path. /api/openapi.json describes the API.")
	})
	g.NoMethod(func(c *gin.Context) {
		exchangeOf(c).plain(http.StatusMethodNotAllowed, "MethodNotAllowed", "This path does not know the method "+c.Request.Method+".")
	})
	defer func() { // gin panics on routes that contradict one another
		if p := recover(); p != nil {
			err = fmt.Errorf("REST routes: %v", p)
		}
	}()
	for _, b := range s.services.byInput {
		if b.Route == "" {
			continue
		}
		r, err := parseRoute(b.Operation)
		if err != nil {
			return nil, err
		}
		g.Handle(r.method, r.pattern(), func(c *gin.Context) { s.restCall(exchangeOf(c), b, r.params(c)) })
	}
	for _, r := range s.resources {
		g.Handle(r.route.method, r.route.pattern(), func(c *gin.Context) { s.restResource(exchangeOf(c), r, r.route.params(c)) })
	}
	g.POST(restPrefix+"/actions/:service/:operation", func(c *gin.Context) {
		x, svc := exchangeOf(c), s.services.services[c.Param("service")]
		if svc == nil {
			x.plain(http.StatusNotFound, "NotFound", fmt.Sprintf("There is no service %q.", c.Param("service")))
			return
		}
		if b := svc.bound[c.Param("operation")]; b != nil {
			s.restCall(x, b, c.Request.URL.Query())
			return
		}
		if codec, err := svc.codec(); err == nil && codec.Model().Operation(c.Param("operation")) != nil {
			s.restRefuse(x, svc, notImplemented(svc.name, c.Param("operation")))
			return
		}
		x.plain(http.StatusNotFound, "NotFound", fmt.Sprintf("The service %s has no operation %q.", svc.name, c.Param("operation")))
	})
	return g, nil
}

// unheard is what gin writes to. Every answer is the exchange's; gin would add its own status to it, and its own text to a 404.
type unheard struct{ header http.Header }

func (u unheard) Header() http.Header       { return u.header }
func (unheard) Write(b []byte) (int, error) { return len(b), nil }
func (unheard) WriteHeader(int)             {}

func exchangeOf(c *gin.Context) *exchange {
	return c.Request.Context().Value(exchangeKey{}).(*exchange)
}

// restCall runs an operation for a REST request: parameters of path and query string and a JSON body, both by the names
// of the input's members.
func (s *Server) restCall(x *exchange, b *binding, params url.Values) {
	if reason := notJSON(x.r); reason != "" {
		x.plain(http.StatusUnsupportedMediaType, "UnsupportedMediaType", reason)
		return
	}
	body, err := x.readBody(b.Service)
	if err != nil {
		s.restRefuse(x, b.service, err)
		return
	}
	if b.Events != nil {
		defer x.untilLeaving()()
	}
	if s.elsewhere(x, b.ForLeader(), body, func(err error) { s.restRefuse(x, b.service, err) }) {
		return
	}
	who, region, err := s.restIdentity(x.r, body)
	if err != nil {
		s.restRefuse(x, b.service, err)
		return
	}
	dropPresigned(params)
	w, err := b.wire()
	if err != nil {
		s.restRefuse(x, b.service, err)
		return
	}
	in, err := w.DecodeREST(body, params)
	if err != nil {
		s.restRefuse(x, b.service, err)
		return
	}
	if b.Events != nil {
		s.restEvents(x, b, w, who, region, in)
		return
	}
	out, err := s.perform(x.r.Context(), b, x.call(b, who, region), in)
	if err != nil {
		s.restRefuse(x, b.service, err)
		return
	}
	x.write(http.StatusOK, "application/json", w.AppendJSON(make([]byte, 0, 1024), out))
}

// notJSON says why a request that may change something is not taken: only a declared JSON body makes a browser ask the
// server before it sends a page's request elsewhere. (It always asks before DELETE.)
func notJSON(r *http.Request) string {
	if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodDelete && r.ContentLength == 0 {
		return ""
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return "The Content-Type of this request must be application/json."
	}
	return ""
}

// restIdentity takes SigV4, with a scope of whatever service, or HTTP Basic with access key id and secret.
func (s *Server) restIdentity(r *http.Request, body []byte) (api.Identity, string, error) {
	sig, err := auth.Parse(r)
	if err != nil {
		return api.Identity{}, "", err
	}
	if sig != nil {
		who, err := s.verifier.Verify(r.Context(), r, sig, body)
		return who, sig.Region, err
	}
	who, ok, err := s.verifier.Basic(r.Context(), r)
	if err == nil && !ok {
		err = auth.Missing()
	}
	return who, s.cfg.Region, err
}

// restRefuse answers an error in the REST API's form, with the service's own status for it.
func (s *Server) restRefuse(x *exchange, svc *service, err error) {
	var f *auth.Failure
	e, ok := awserr.As(err)
	switch {
	case errors.As(err, &f):
		e = f.In("rest-json")
		if f.Unauthenticated() {
			e.Status = http.StatusUnauthorized
			x.w.Header().Set("WWW-Authenticate", `Basic realm="neargate"`)
		}
	case !ok:
		s.log.Error("request failed", "method", x.r.Method, "path", x.r.URL.Path, "requestId", x.id, "error", err)
		e = awserr.WithStatus(http.StatusInternalServerError, "InternalFailure", "An internal error has occurred. The request id leads to it in the log.")
	}
	status := cmp.Or(e.Status, http.StatusBadRequest)
	if codec, err := svc.codec(); err == nil {
		status = codec.Status(e)
	}
	if e.RetryAfter > 0 {
		status = http.StatusTooManyRequests // whatever the service's protocol makes of it
		x.hint(e)
	}
	x.plain(status, e.Code, e.Message)
}
