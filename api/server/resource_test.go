package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// GetNewsInput and the others are resources for the tests: ones whose answers show what reached them.
type GetNewsInput struct {
	Cluster string    `json:"cluster" doc:"Whose."`
	Mood    string    `json:"mood"`
	Count   uint32    `json:"count"`
	Loud    bool      `json:"loud"`
	Since   time.Time `json:"since"`
}

type headline struct {
	Text  string    `json:"text"`
	Since time.Time `json:"since"`
	Tags  []string  `json:"tags,omitempty"`
}

type GetFrontPageInput GetNewsInput

// press has a word for every mood.
type press struct {
	next chan string   // follow
	left chan struct{} // closed when a follower's time is over
}

func (p *press) news(ctx context.Context, in *GetNewsInput, emit func(...headline) error) error {
	switch in.Mood {
	case "refused":
		return awserr.New("ClusterNotFoundException", "Cluster not found.")
	case "away":
		return awserr.WithStatus(http.StatusServiceUnavailable, "TargetNotConnectedException", "Nobody is there.")
	case "broken":
		return errors.New("the press is on fire")
	case "panics":
		panic("on purpose")
	case "cut":
		if err := emit(headline{Text: "first"}); err != nil {
			return err
		}
		return errors.New("the press is on fire")
	case "follow":
		defer close(p.left)
		if err := emit(); err != nil {
			return err
		}
		for {
			select {
			case text := <-p.next:
				if err := emit(headline{Text: text}); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	for range in.Count {
		text := in.Cluster
		if in.Loud {
			text = strings.ToUpper(text)
		}
		if err := emit(headline{Text: text + " <" + api.CallFrom(ctx).Account + ">", Since: in.Since}); err != nil {
			return err
		}
	}
	return nil
}

func (p *press) frontPage(ctx context.Context, in *GetFrontPageInput) (*headline, error) {
	if in.Mood == "broken" {
		return nil, errors.New("the press is on fire")
	}
	return &headline{Text: in.Cluster, Tags: []string{api.CallFrom(ctx).Region}}, nil
}

func newPress() *press { return &press{next: make(chan string), left: make(chan struct{})} }

func (p *press) resources() []api.RESTResource {
	return []api.RESTResource{
		api.Document("GET /clusters/{cluster}/front-page", "What is first.", func(_ *api.Call, in *GetFrontPageInput) string { return "page/" + in.Cluster }, p.frontPage),
		api.Stream("GET /clusters/{cluster}/news", "What there is.", func(_ *api.Call, in *GetNewsInput) string { return "news/" + in.Cluster }, p.news),
	}
}

func withPress(p *press) func(*Config) { return func(c *Config) { c.Resources = p.resources() } }

func TestResources(t *testing.T) {
	s, _, log := newTestServer(t, withPress(newPress()))
	basic := []string{"Authorization", "Basic b3RoZXI6c2VjcmV0"} // other:secret, of the second account
	for name, c := range map[string]struct {
		target string
		header []string
		status int
		want   string
	}{
		"lines":                  {"/clusters/one/news?count=2&loud=true&since=2026-01-02T03:04:05Z", basic, 200, `{"text":"ONE <111111111111>","since":"2026-01-02T03:04:05Z"}` + "\n" + `{"text":"ONE`},
		"no line at all":         {"/clusters/one/news", basic, 200, ""},
		"a document":             {"/clusters/one%2Ftwo/front-page", basic, 200, `{"text":"one/two","since":"0001-01-01T00:00:00Z","tags":["us-east-1"]}`},
		"nobody":                 {"/clusters/one/news", nil, 401, `"code":"MissingAuthenticationTokenException"`},
		"the wrong secret":       {"/clusters/one/news", []string{"Authorization", "Basic b3RoZXI6d3Jvbmc="}, 401, `"code":"UnrecognizedClientException"`},
		"refused":                {"/clusters/one/news?mood=refused", basic, 400, `{"code":"ClusterNotFoundException","message":"Cluster not found.","requestId":"`},
		"another status":         {"/clusters/one/news?mood=away", basic, 503, `"code":"TargetNotConnectedException"`},
		"broken":                 {"/clusters/one/news?mood=broken", basic, 500, `"code":"InternalFailure"`},
		"a broken document":      {"/clusters/one/front-page?mood=broken", basic, 500, `"code":"InternalFailure"`},
		"a panic":                {"/clusters/one/news?mood=panics", basic, 500, `"code":"InternalFailure"`},
		"a parameter nobody has": {"/clusters/one/news?colour=red", basic, 400, `There is no parameter colour.`},
		"not a number":           {"/clusters/one/news?count=-1", basic, 400, `The parameter count is \"-1\": a number is wanted.`},
		"too large a number":     {"/clusters/one/news?count=4294967296", basic, 400, `a number is wanted`},
		"not a truth":            {"/clusters/one/news?loud=maybe", basic, 400, `true or false is wanted`},
		"not a time":             {"/clusters/one/news?since=yesterday", basic, 400, `a time like`},
		"the path's, once more":  {"/clusters/one/news?CLUSTER=two", basic, 400, `more than once`},
		"twice":                  {"/clusters/one/news?count=1&count=2", basic, 400, `more than once`},
		"a page's request":       {"/clusters/one/news", append([]string{"Origin", "https://evil.example"}, basic...), 403, `"code":"AccessDenied"`},
		"another name":           {"/clusters/one/news", append([]string{"Host", "evil.example"}, basic...), 403, `"code":"AccessDenied"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(t, s, "GET", "/api/v1"+c.target, "", "", c.header...)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("HTTP %d %s\nwant %d with %s", w.Code, w.Body, c.status, c.want)
			}
		})
	}
	if w := ask(t, s, "GET", "/api/v1/clusters/one/news?count=1", "", "ecs"); w.Code != 200 || w.Header().Get("Content-Type") != "application/x-ndjson" || !strings.Contains(w.Body.String(), account) {
		t.Errorf("signed, in the first account: HTTP %d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := ask(t, s, "POST", "/api/v1/clusters/one/news", "", "ecs"); w.Code != 405 {
		t.Errorf("POST: HTTP %d", w.Code)
	}
	for _, want := range []string{"action=neargate:GetNews resource=news/one code=OK", "action=neargate:GetNews resource=news/one code=InternalFailure", "the press is on fire", "on purpose"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	w := ask(t, s, "GET", "/metrics", "", "")
	if want := `neargate_api_calls_total{code="ClusterNotFoundException",operation="GetNews",service="neargate"} 1`; !strings.Contains(w.Body.String(), want) {
		t.Errorf("the metrics do not say %s", want)
	}
}

// denial refuses one action on one resource.
type denial struct{ action, resource string }

func (d denial) Authorize(ctx context.Context, c *api.Call, a api.Access) error {
	if a.Action == d.action && slices.Equal(a.Resources, []string{d.resource}) {
		nobody := *c
		nobody.Root = false
		return auth.RootOnly{}.Authorize(ctx, &nobody, a)
	}
	return nil
}

func TestResourcesAreAuthorized(t *testing.T) {
	s, _, _ := newTestServer(t, func(c *Config) {
		c.Resources = newPress().resources()
		c.Authorizer = denial{"neargate:GetNews", "news/one"}
	})
	w := ask(t, s, "GET", "/api/v1/clusters/one/news", "", "ecs")
	if w.Code < 400 || w.Code > 403 || !strings.Contains(w.Body.String(), "not authorized to perform: neargate:GetNews on resource: news/one") {
		t.Errorf("HTTP %d %s", w.Code, w.Body)
	}
	if w := ask(t, s, "GET", "/api/v1/clusters/two/news", "", "ecs"); w.Code != 200 {
		t.Errorf("HTTP %d %s", w.Code, w.Body)
	}
}

func get(t *testing.T, ctx context.Context, url string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("other", "secret")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// Lines go out when they are emitted; a follower who leaves is gone, one whom the server leaves is told so.
func TestStreams(t *testing.T) {
	for _, byServer := range []bool{false, true} {
		p := newPress()
		s, _, _ := newTestServer(t, withPress(p))
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		running, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(running, l) }()
		ctx, leave := context.WithCancel(t.Context())
		resp := get(t, ctx, "http://"+l.Addr().String()+"/api/v1/clusters/one/news?mood=follow") // the headers are there before any line
		body := bufio.NewReader(resp.Body)
		for _, text := range []string{"first", "second"} {
			p.next <- text
			if line, err := body.ReadString('\n'); err != nil || !strings.Contains(line, text) {
				t.Fatalf("%q, %v", line, err)
			}
		}
		if byServer {
			stop()
			if _, err := io.ReadAll(body); err == nil {
				t.Error("a cut answer looks whole")
			}
		} else {
			leave()
		}
		<-p.left
		stop()
		leave()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// An error after the first line cuts the answer. And nothing but the exchange writes: the HTTP server has no complaint.
func TestAnswersAreWrittenOnce(t *testing.T) {
	s, _, _ := newTestServer(t, withPress(newPress()))
	var complaints bytes.Buffer
	h := httptest.NewUnstartedServer(s)
	h.Config.ErrorLog = log.New(&lockedWriter{w: &complaints}, "", 0)
	h.Start()
	for path, whole := range map[string]string{"/clusters/one/news?mood=cut": "", "/clusters/one/news?count=1": "{", "/clusters/one/front-page": "{", "/nowhere": "{", "/vpcs": "{"} {
		resp := get(t, t.Context(), h.URL+"/api/v1"+path)
		b, err := io.ReadAll(resp.Body)
		if (err == nil) != (whole != "") || !bytes.HasPrefix(b, []byte("{")) || bytes.Contains(b, []byte("404 page")) {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	h.Close()
	if complaints.Len() > 0 {
		t.Error(complaints.String())
	}
}

type GetListInput struct {
	Names []string `json:"names"`
}

// What cannot be served is refused at start.
func TestResourcesAreChecked(t *testing.T) {
	p := newPress()
	with := func(route string) api.RESTResource { r := p.resources()[1]; r.Route = route; return r }
	for name, table := range map[string][]api.RESTResource{
		"not GET":         {with("POST /clusters/{cluster}/news")},
		"no such field":   {with("GET /clusters/{name}/news")},
		"no route":        {with("")},
		"twice":           {with("GET /a"), with("GET /b")},
		"an odd argument": {api.Document("GET /list", "", nil, func(context.Context, *GetListInput) (*headline, error) { return nil, nil })},
		"taken":           {with("GET /clusters/{cluster}/services")},
	} {
		creds, _ := auth.NewStatic(auth.Root{Account: account, AccessKeyID: "test", SecretAccessKey: "test"})
		if _, err := New(Config{Operations: (&clusters{}).operations(), Resources: table, Credentials: creds, Account: account, Region: region}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestWriteOperationsListsResources(t *testing.T) {
	var b strings.Builder
	if err := WriteOperations(&b, (&clusters{}).operations(), newPress().resources()...); err != nil {
		t.Fatal(err)
	}
	if want := "| GetNews | `GET /clusters/{cluster}/news` | `neargate:GetNews` | What there is. |"; !strings.Contains(b.String(), want) {
		t.Errorf("%s\nwants %s", b.String(), want)
	}
}

// GetTidingsInput is a resource that is resumed.
type GetTidingsInput struct {
	After string `json:"after"`
}

type tiding struct {
	Text string `json:"text"`
}

func (t tiding) EventID() string { return "id of " + t.Text }

// TestServerSentEvents: what is streamed comes as events to a client that asks for them, with the ids that it resumes by.
func TestServerSentEvents(t *testing.T) {
	r := api.Stream("GET /tidings", "News.", func(*api.Call, *GetTidingsInput) string { return "*" }, func(_ context.Context, in *GetTidingsInput, emit func(...tiding) error) error {
		return emit(tiding{"one"}, tiding{"after " + in.After})
	})
	s, _, _ := newTestServer(t, func(c *Config) { c.Resources = []api.RESTResource{r} })
	for name, c := range map[string]struct {
		accept, last, contentType, body string
	}{
		"lines":   {"", "ignored", "application/x-ndjson", "{\"text\":\"one\"}\n{\"text\":\"after url\"}\n"},
		"events":  {"text/event-stream", "", "text/event-stream", "id: id of one\ndata: {\"text\":\"one\"}\n\nid: id of after url\ndata: {\"text\":\"after url\"}\n\n"},
		"resumed": {"text/event-stream", "seen", "text/event-stream", "id: id of one\ndata: {\"text\":\"one\"}\n\nid: id of after seen\ndata: {\"text\":\"after seen\"}\n\n"},
	} {
		q := httptest.NewRequest(http.MethodGet, "http://127.0.0.1/api/v1/tidings?after=url", nil)
		q.SetBasicAuth("test", "test")
		q.Header.Set("Accept", c.accept)
		if c.last != "" {
			q.Header.Set("Last-Event-ID", c.last)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, q)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != c.contentType || w.Body.String() != c.body {
			t.Errorf("%s: %d %s %q", name, w.Code, w.Header().Get("Content-Type"), w.Body.String())
		}
	}
}
