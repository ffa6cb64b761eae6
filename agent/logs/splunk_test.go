package logs

import (
	"compress/gzip"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// collector is a splunk that takes events, or answers otherwise.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	requests int
	header   http.Header // of the last request
	events   []map[string]any
	answer   func(request int) int // status; nil: 200
}

func newCollector(t *testing.T, secure bool) *collector {
	c := &collector{}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if r.URL.Path != "/services/collector/event/1.0" {
			t.Errorf("path %s", r.URL.Path)
		}
		c.requests++
		c.header = r.Header
		if c.answer != nil {
			if status := c.answer(c.requests); status != 200 {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, `{"text":"not now","code":9}`+"\n")
				return
			}
		}
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(r.Body); err != nil {
				t.Error(err)
				return
			}
		}
		for d := json.NewDecoder(body); r.Method == "POST"; {
			var e map[string]any
			if err := d.Decode(&e); err == io.EOF {
				break
			} else if err != nil {
				t.Error(err)
				break
			}
			c.events = append(c.events, e)
		}
	}))
	c.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not like its certificate
	if secure {
		c.StartTLS()
	} else {
		c.Start()
	}
	t.Cleanup(c.Close)
	return c
}

func (c *collector) got() (events []map[string]any, requests int, header http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]map[string]any(nil), c.events...), c.requests, c.header
}

// TestSplunkEvents: each format, compressed or not, with what is the same in all events.
func TestSplunkEvents(t *testing.T) {
	host, _ := os.Hostname()
	event := func(of any) map[string]any {
		return map[string]any{"event": of, "host": host, "source": "s", "sourcetype": "st", "index": "i"}
	}
	line := func(l any, tag string) any {
		e := map[string]any{"line": l, "source": "stderr", "attrs": map[string]any{"team": "a"}}
		if tag != "" {
			e["tag"] = tag
		}
		return e
	}
	for name, test := range map[string]struct {
		options []string
		want    []any
	}{
		"default": {nil, []any{line("plain", "tag.x"), line(`{"a":1}`, "tag.x"), line("", "tag.x")}},
		"json":    {[]string{"splunk-format=json", "tag="}, []any{line("plain", ""), line(map[string]any{"a": 1.0}, ""), line("", "")}},
		"raw":     {[]string{"splunk-format=raw", "splunk-gzip=true", "splunk-gzip-level=9"}, []any{"tag.x team=a plain", `tag.x team=a {"a":1}`}},
		"ack":     {[]string{"splunk-format=raw", "tag=", "splunk-index-acknowledgment=true", "splunk-verify-connection=false"}, []any{"team=a plain", `team=a {"a":1}`}},
	} {
		s := newCollector(t, false)
		c := config(t, DriverSplunk, append(test.options, "mode=blocking", "splunk-url="+s.URL, "splunk-token=t0", "splunk-source=s", "splunk-sourcetype=st", "splunk-index=i")...)
		c.Attrs = map[string]string{"team": "a"}
		o, err := Start(c, dialer)
		if err != nil {
			t.Fatal(err)
		}
		o.Copy(strings.NewReader("plain\n{\"a\":1}\n\n"), true)
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		events, _, header := s.got()
		var got, want []map[string]any
		for _, e := range events {
			at, err := strconv.ParseFloat(fmt.Sprint(e["time"]), 64)
			if age := time.Since(time.UnixMicro(int64(at * 1e6))); err != nil || age < -time.Second || age > time.Minute {
				t.Errorf("the time is %v", e["time"])
			}
			delete(e, "time")
			got = append(got, e)
		}
		for _, e := range test.want {
			want = append(want, event(e))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if header.Get("Authorization") != "Splunk t0" || (header.Get("X-Splunk-Request-Channel") != "") != (name == "ack") {
			t.Errorf("%s: header %v", name, header)
		}
		if lines := kept(t, c.Path); len(lines) != 3 {
			t.Errorf("%s: kept here is %q", name, lines)
		}
	}
}

// TestSplunkIsVerified: who it is, and that it takes events, before a container starts.
func TestSplunkIsVerified(t *testing.T) {
	s := newCollector(t, true)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for options, want := range map[string]string{
		"splunk-capath=" + ca:                                "",
		"splunk-capath=" + ca + " splunk-caname=example.com": "",
		"splunk-capath=" + ca + " splunk-caname=other.test":  "certificate is valid for",
		"splunk-insecureskipverify=true":                     "",
		"splunk-verify-connection=true":                      "certificate signed by unknown authority",
		"splunk-verify-connection=false":                     "",
		"splunk-capath=/nowhere":                             "no such file",
		"splunk-format=xml":                                  "unknown format specified xml",
		"splunk-gzip-level=11":                               "not supported level '11'",
		"splunk-gzip=perhaps":                                "splunk-gzip",
		"splunk-url=" + s.URL + "/x":                         "expected format scheme://dns_name_or_ip:port",
		"splunk-token=":                                      "splunk-token is expected",
	} {
		c := config(t, DriverSplunk, append([]string{"splunk-url=" + s.URL, "splunk-token=t"}, strings.Fields(options)...)...)
		o, err := Start(c, dialer)
		if err == nil {
			o.Close()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", options, err, want)
		}
	}
	s.answer = func(int) int { return 403 }
	if _, err := Start(config(t, DriverSplunk, "splunk-url="+s.URL, "splunk-token=t", "splunk-insecureskipverify=true"), dialer); err == nil ||
		err.Error() != `failed to initialize logging driver: splunk: failed to verify connection - 403 Forbidden - {"text":"not now","code":9}` {
		t.Errorf("refused: %v", err)
	}
}

// TestSplunkTriesAgain: what is not taken for now is sent again, each line once and in order, many in a request; what is refused is lost, and said.
func TestSplunkTriesAgain(t *testing.T) {
	s := newCollector(t, false)
	s.answer = func(request int) int {
		if request == 1 {
			return 503
		}
		return 200
	}
	c := config(t, DriverSplunk, "splunk-url="+s.URL, "splunk-token=t", "splunk-verify-connection=false")
	o, err := Start(c, dialer)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i := range 3000 {
		fmt.Fprintln(&text, i)
	}
	o.Copy(strings.NewReader(text.String()), false)
	await(t, "all lines", func() bool { e, _, _ := s.got(); return len(e) == 3000 })
	events, requests, _ := s.got()
	for i, e := range events {
		if e["event"].(map[string]any)["line"] != strconv.Itoa(i) {
			t.Fatalf("line %d is %v", i, e)
		}
	}
	if requests > 20 {
		t.Errorf("3,000 lines took %d requests", requests)
	}
	s.mu.Lock()
	s.answer = func(int) int { return 400 }
	s.mu.Unlock()
	o.Copy(strings.NewReader("bad\n"), false)
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	lines := kept(t, c.Path)
	if last := lines[len(lines)-1]; last != `neargate: log driver splunk lost 1 lines: splunk: failed to send event - 400 Bad Request - {"text":"not now","code":9}` {
		t.Errorf("the last line kept here is %q", last)
	}
}

// TestSplunkThatTakesNothing: in mode blocking who writes waits, until its end; in the other what finds the queue full is dropped.
func TestSplunkThatTakesNothing(t *testing.T) {
	s := newCollector(t, false)
	s.answer = func(int) int { return 429 }
	c := config(t, DriverSplunk, "splunk-url="+s.URL, "splunk-token=t", "splunk-verify-connection=false", "mode=blocking")
	o, err := Start(c, dialer)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		o.Copy(strings.NewReader("waits\n"), false)
		close(done)
	}()
	await(t, "a second try", func() bool { _, n, _ := s.got(); return n > 1 })
	select {
	case <-done:
		t.Error("it is not held up")
	default:
	}
	o.GiveUp()
	<-done
	o.Close()

	c = config(t, DriverSplunk, "splunk-url="+s.URL, "splunk-token=t", "splunk-verify-connection=false", "max-buffer-size=1k")
	if o, err = Start(c, dialer); err != nil {
		t.Fatal(err)
	}
	o.Copy(strings.NewReader(strings.Repeat("x\n", 1000)), false)
	o.GiveUp()
	o.Close()
	lines := kept(t, c.Path)
	if len(lines) < 1001 || !strings.HasPrefix(lines[len(lines)-1], "neargate: log driver splunk lost ") {
		t.Errorf("%d lines are kept here, the last %q", len(lines), lines[len(lines)-1])
	}
}
