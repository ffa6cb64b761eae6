package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/smithy-go"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

// tailing is a family whose one operation emits what the test wants, until it says how to end.
type tailing struct {
	next chan string // a request id of a start; "" ends
	end  error
	left chan struct{}
}

func newTailing() *tailing {
	return &tailing{next: make(chan string, 10), left: make(chan struct{}, 1)}
}

func (f *tailing) tail(ctx context.Context, _ *cwl.StartLiveTailInput, emit func(types.StartLiveTailResponseStream) error) error {
	defer func() { f.left <- struct{}{} }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case id := <-f.next:
			if id == "" {
				return f.end
			}
			if err := emit(&types.StartLiveTailResponseStreamMemberSessionStart{Value: types.LiveTailSessionStart{RequestId: &id}}); err != nil {
				return err
			}
		}
	}
}

func (f *tailing) wire(c *Config) {
	c.Operations = append(c.Operations, api.EventStream[cwl.StartLiveTailInput, cwl.StartLiveTailOutput](f.tail, api.AtLeader()))
}

// running is s on a port, with a client that has the SDK's host prefix and what stops it.
func running(t *testing.T, s *Server) (client *cwl.Client, url string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	stopped := false
	stop = func() {
		if cancel(); stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String()) // whatever the name is
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return cwl.New(cwl.Options{BaseEndpoint: aws.String("http://localhost:" + port), Region: region, HTTPClient: sdkhttp.New(&http.Client{Transport: transport}),
		RetryMaxAttempts: 1, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		})}), "http://127.0.0.1:" + port, stop
}

var anyGroup = &cwl.StartLiveTailInput{LogGroupIdentifiers: []string{"arn:aws:logs:us-east-1:000000000000:log-group:g"}}

func next(t *testing.T, s *cwl.StartLiveTailEventStream) string {
	t.Helper()
	select {
	case e := <-s.Events():
		if start, ok := e.(*types.StartLiveTailResponseStreamMemberSessionStart); ok {
			return *start.Value.RequestId
		}
		t.Fatalf("got %#v, %v", e, s.Err())
	case <-time.After(time.Minute):
		t.Fatal("no event")
	}
	return ""
}

// over is the error that ends a stream.
func over(t *testing.T, s *cwl.StartLiveTailEventStream) (code string) {
	t.Helper()
	for range s.Events() {
		t.Error("an event behind the last")
	}
	var e smithy.APIError
	if errors.As(s.Err(), &e) {
		return e.ErrorCode()
	}
	if s.Err() != nil {
		t.Errorf("the stream ends with %v", s.Err())
	}
	return ""
}

// TestEventStream: events reach the SDK's client as they are emitted; what ends the stream is its last message, at a shutdown too, and
// a client that leaves ends the handler.
func TestEventStream(t *testing.T) {
	for name, c := range map[string]struct {
		end                error
		byServer, byClient bool
		want               string
	}{
		"no more":           {want: ""},
		"a modelled end":    {end: awserr.New("SessionTimeoutException", "It is late."), want: "SessionTimeoutException"},
		"another end":       {end: awserr.New("Strange", "It is odd."), want: "Strange"},
		"a failure of ours": {end: errors.New("the disk is on fire"), want: "InternalFailure"},
		"the server leaves": {byServer: true, want: "ServiceUnavailable"},
		"the client leaves": {byClient: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newTailing()
			f.end = c.end
			s, _, _ := newTestServer(t, f.wire)
			client, _, stop := running(t, s)
			f.next <- "one"
			out, err := client.StartLiveTail(t.Context(), anyGroup)
			if err != nil {
				t.Fatal(err)
			}
			stream := out.GetStream()
			defer stream.Close()
			if got := next(t, stream); got != "one" {
				t.Errorf("first %q", got)
			}
			f.next <- "two"
			if got := next(t, stream); got != "two" {
				t.Errorf("then %q", got)
			}
			switch {
			case c.byServer:
				stop()
			case c.byClient:
				stream.Close()
				<-f.left
				return
			default:
				f.next <- ""
			}
			if got := over(t, stream); got != c.want {
				t.Errorf("ends with %q, want %q", got, c.want)
			}
			<-f.left
		})
	}
}

// TestEventStreamIsRefused: what fails before the first event is an ordinary error.
func TestEventStreamIsRefused(t *testing.T) {
	f := newTailing()
	f.end = awserr.New("LimitExceededException", "No more.")
	s, _, _ := newTestServer(t, f.wire)
	client, _, _ := running(t, s)
	f.next <- ""
	_, err := client.StartLiveTail(t.Context(), anyGroup)
	var limit *types.LimitExceededException
	if !errors.As(err, &limit) || limit.ErrorMessage() != "No more." {
		t.Errorf("got %v", err)
	}
	if _, err := client.StartLiveTail(t.Context(), &cwl.StartLiveTailInput{LogGroupIdentifiers: []string{}}); err == nil || !strings.Contains(err.Error(), "logGroupIdentifiers") {
		t.Errorf("no group: %v", err)
	}
}

// TestEventsAsLines: the REST API has them as JSON lines, and cuts what ends early.
func TestEventsAsLines(t *testing.T) {
	for _, end := range []error{nil, awserr.New("SessionTimeoutException", "It is late.")} {
		f := newTailing()
		f.end = end
		s, _, _ := newTestServer(t, f.wire)
		_, url, _ := running(t, s)
		f.next <- "one"
		r, _ := http.NewRequestWithContext(t.Context(), "POST", url+"/api/v1/actions/cloudwatchlogs/StartLiveTail",
			strings.NewReader(`{"logGroupIdentifiers":["arn:aws:logs:us-east-1:000000000000:log-group:g"]}`))
		r.Header.Set("Content-Type", "application/json")
		r.SetBasicAuth("test", "test")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body := bufio.NewReader(resp.Body)
		line, err := body.ReadString('\n')
		if want := `{"sessionStart":{"requestId":"one"}}` + "\n"; err != nil || line != want || resp.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%q, %v, %v", line, err, resp.Header)
		}
		f.next <- ""
		if rest, err := io.ReadAll(body); (err == nil) != (end == nil) || len(rest) > 0 {
			t.Errorf("the end %v is read as %q, %v", end, rest, err)
		}
	}
}

// TestEventsAreDescribed as lines, not as an output that there is none of.
func TestEventsAreDescribed(t *testing.T) {
	s, _, _ := newTestServer(t, newTailing().wire)
	w := ask(t, s, "GET", "/api/openapi.json", "", "")
	var doc struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct{ Content map[string]any }
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if content := doc.Paths["/actions/cloudwatchlogs/StartLiveTail"]["post"].Responses["200"].Content; content["application/x-ndjson"] == nil || len(content) != 1 {
		t.Errorf("described as %v", content)
	}
}

// TestUnreadEventStreamIsCut: a client that takes no more ends the handler, and what it has does not look whole.
func TestUnreadEventStreamIsCut(t *testing.T) {
	f := newTailing()
	s, _, _ := newTestServer(t, f.wire)
	f.next <- "one"
	r := httptest.NewRequest("POST", "/", strings.NewReader(`{"logGroupIdentifiers":["arn:aws:logs:us-east-1:000000000000:log-group:g"]}`))
	r.Host = "127.0.0.1:4566"
	r.Header.Set("X-Amz-Target", "Logs_20140328.StartLiveTail")
	r.Header.Set("Content-Type", jsonType)
	sign(t, r, `{"logGroupIdentifiers":["arn:aws:logs:us-east-1:000000000000:log-group:g"]}`, "logs")
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("it ends with %v", p)
		}
		<-f.left
	}()
	s.ServeHTTP(deaf{httptest.NewRecorder()}, r)
	t.Error("it ends as if all were read")
}

// deaf is a connection whose client takes nothing.
type deaf struct{ http.ResponseWriter }

func (deaf) Write([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// TestEventStreamOfTheLeader: a server that follows passes the stream on.
func TestEventStreamOfTheLeader(t *testing.T) {
	f := newTailing()
	f.end = awserr.New("SessionTimeoutException", "It is late.")
	leader, _, _ := newTestServer(t, func(c *Config) { f.wire(c); c.Cluster = &cluster{leaders: []string{""}} })
	s, _, _ := newTestServer(t, func(c *Config) {
		newTailing().wire(c)
		c.Cluster = &cluster{leaders: []string{"b"}, servers: map[string]http.Handler{"b": leader.Forwarded()}}
	})
	client, _, _ := running(t, s)
	f.next <- "one"
	f.next <- ""
	out, err := client.StartLiveTail(t.Context(), anyGroup)
	if err != nil {
		t.Fatal(err)
	}
	stream := out.GetStream()
	defer stream.Close()
	if got := next(t, stream); got != "one" {
		t.Errorf("got %q", got)
	}
	if got := over(t, stream); got != "SessionTimeoutException" {
		t.Errorf("ends with %q", got)
	}
}

// TestBothPortsEnd: what waits for data channels on one does not keep the other.
func TestBothPortsEnd(t *testing.T) {
	s, _, _ := newTestServer(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for _, run := range []func(context.Context, net.Listener) error{s.Run, s.RunTasks} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- run(ctx, l) }()
	}
	cancel()
	for range 2 {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a port does not end")
		}
	}
}

// TestStreamPrefixIsOfOurNames: clients put one of two words before the name that they were given.
func TestStreamPrefixIsOfOurNames(t *testing.T) {
	s, _, _ := newTestServer(t, func(c *Config) { c.Names = []string{"neargate.test"} })
	for host, want := range map[string]int{"stream-localhost:4566": 200, "streaming-127.0.0.1:4566": 200, "stream-a.neargate.test": 200, "stream-evil.example": 403,
		"stream-stream-localhost": 403, "xstream-localhost": 403} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/api/openapi.json", nil)
		r.Host = host
		if s.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%s: HTTP %d, want %d", host, w.Code, want)
		}
	}
}
