package logs

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// splunk sends lines to an HTTP event collector as Docker's driver does, in its three formats: an event a line, events of many lines in one
// request. What is not taken for now (no connection, too many requests, an error of the server) is tried again until the container has ended; what
// the collector refuses is lost.
type splunk struct {
	o      options
	c      Config
	client *http.Client
	event  splunkEvent // what is the same in all
	tag    string
	prefix string // of a raw line
	body   bytes.Buffer
}

// splunkOptions are its own.
type splunkOptions struct {
	url, token                string
	source, sourceType, index string
	caFile, serverName        string
	skipVerify, verify        bool
	format                    string
	compress                  bool
	level                     int
	acknowledged              bool
}

// splunkEvent is what the collector takes.
type splunkEvent struct {
	Event      any    `json:"event"`
	Time       string `json:"time"` // seconds
	Host       string `json:"host"`
	Source     string `json:"source,omitempty"`
	SourceType string `json:"sourcetype,omitempty"`
	Index      string `json:"index,omitempty"`
}

// splunkLine is an event of the formats inline and json.
type splunkLine struct {
	Line   any               `json:"line"`
	Source string            `json:"source"`
	Tag    string            `json:"tag,omitempty"`
	Attrs  map[string]string `json:"attrs,omitempty"`
}

const (
	splunkPath      = "/services/collector/event/1.0"
	splunkBatch     = 1000             // lines of one request
	splunkWithin    = 30 * time.Second // a request
	splunkFirstWait = time.Second      // before the next try
	splunkLastWait  = 30 * time.Second
	splunkAnswer    = 1024 // bytes of an answer that are told
)

func (o *options) splunkOf(opt map[string]string) error {
	u, err := url.Parse(opt["splunk-url"])
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("splunk: expected format scheme://dns_name_or_ip:port for splunk-url")
	}
	u.Path = splunkPath
	s := splunkOptions{
		url: u.String(), token: opt["splunk-token"], source: opt["splunk-source"], sourceType: opt["splunk-sourcetype"], index: opt["splunk-index"],
		caFile: opt["splunk-capath"], serverName: opt["splunk-caname"], format: opt["splunk-format"], verify: true, level: gzip.DefaultCompression,
	}
	if s.token == "" {
		return errors.New("splunk: splunk-token is expected")
	}
	for name, to := range map[string]*bool{"splunk-insecureskipverify": &s.skipVerify, "splunk-verify-connection": &s.verify, "splunk-gzip": &s.compress,
		"splunk-index-acknowledgment": &s.acknowledged} {
		if text := opt[name]; text != "" {
			if *to, err = strconv.ParseBool(text); err != nil {
				return fmt.Errorf("log option %s: %w", name, err)
			}
		}
	}
	if text := opt["splunk-gzip-level"]; text != "" {
		if s.level, err = strconv.Atoi(text); err != nil || s.level < gzip.DefaultCompression || s.level > gzip.BestCompression {
			return fmt.Errorf("not supported level '%s' for splunk-gzip-level (supported values between %d and %d)", text, gzip.DefaultCompression, gzip.BestCompression)
		}
	}
	switch s.format {
	case "":
		s.format = "inline"
	case "inline", "json", "raw":
	default:
		return fmt.Errorf("unknown format specified %s, supported formats are inline, json and raw", s.format)
	}
	o.splunk = s
	return nil
}

func newSplunk(ctx context.Context, c Config, o options, dial Dial) (*splunk, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	q := o.splunk
	secure := &tls.Config{InsecureSkipVerify: q.skipVerify, ServerName: q.serverName}
	if q.caFile != "" {
		pem, err := os.ReadFile(q.caFile)
		if err != nil {
			return nil, fmt.Errorf("log option splunk-capath: %w", err)
		}
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("log option splunk-capath: there is no certificate in %s", q.caFile)
		}
	}
	s := &splunk{o: o, c: c, tag: c.Tag, event: splunkEvent{Host: host, Source: q.source, SourceType: q.sourceType, Index: q.index},
		client: &http.Client{Transport: &http.Transport{DialContext: dial, TLSClientConfig: secure, MaxIdleConns: 1, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if tag, given := c.Options["tag"]; given && tag == "" {
		s.tag = ""
	}
	if s.tag != "" {
		s.prefix = s.tag + " "
	}
	for _, k := range slices.Sorted(maps.Keys(c.Attrs)) {
		s.prefix += k + "=" + c.Attrs[k] + " "
	}
	if q.verify {
		if _, err := s.request(ctx, http.MethodOptions, nil); err != nil {
			return nil, fmt.Errorf("splunk: failed to verify connection - %w", err)
		}
	}
	return s, nil
}

func (s *splunk) close() { s.client.CloseIdleConnections() }

func (s *splunk) send(ctx context.Context, l line) error { return s.sendAll(ctx, []line{l}) }

func (s *splunk) most() int { return splunkBatch }

// sendAll is a batch: all of it is with the collector, or lost.
func (s *splunk) sendAll(ctx context.Context, lines []line) error {
	if err := s.encode(lines); err != nil || s.body.Len() == 0 {
		return err
	}
	for wait := splunkFirstWait; ; wait = min(2*wait, splunkLastWait) {
		again, err := s.request(ctx, http.MethodPost, s.body.Bytes())
		if err == nil {
			return nil
		}
		if !again {
			return fmt.Errorf("splunk: failed to send event - %w", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("the container has ended; the last error: %w", err)
		}
	}
}

// encode makes the request's body: one event behind the other.
func (s *splunk) encode(lines []line) error {
	s.body.Reset()
	var w io.Writer = &s.body
	var compressed *gzip.Writer
	if s.o.splunk.compress {
		var err error
		if compressed, err = gzip.NewWriterLevel(&s.body, s.o.splunk.level); err != nil {
			return err
		}
		w = compressed
	}
	events := 0
	for _, l := range lines {
		e := s.event
		e.Time = fmt.Sprintf("%d.%06d", l.at.Unix(), l.at.Nanosecond()/1e3)
		if e.Event = s.eventOf(l); e.Event == nil {
			continue
		}
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		events++
	}
	if events == 0 {
		s.body.Reset()
		return nil
	}
	if compressed != nil {
		return compressed.Close()
	}
	return nil
}

// eventOf is a line in the driver's format; nil: it is none.
func (s *splunk) eventOf(l line) any {
	if s.o.splunk.format == "raw" {
		if len(bytes.TrimSpace(l.text)) == 0 { // the collector takes none that is blank
			return nil
		}
		return s.prefix + string(l.text)
	}
	e := splunkLine{Line: string(l.text), Source: "stdout", Tag: s.tag, Attrs: s.c.Attrs}
	if l.stderr {
		e.Source = "stderr"
	}
	if s.o.splunk.format == "json" && json.Valid(l.text) {
		e.Line = json.RawMessage(l.text)
	}
	return e
}

// request is one, and says whether it may be tried again.
func (s *splunk) request(ctx context.Context, method string, body []byte) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, splunkWithin)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, s.o.splunk.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	if method == http.MethodPost {
		r.Header.Set("Authorization", "Splunk "+s.o.splunk.token)
		if s.o.splunk.compress {
			r.Header.Set("Content-Encoding", "gzip")
		}
		if s.o.splunk.acknowledged {
			id := make([]byte, 16)
			rand.Read(id) // never fails
			r.Header.Set("X-Splunk-Request-Channel", fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]))
		}
	}
	res, err := s.client.Do(r)
	if err != nil {
		return true, err
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(res.Body, splunkAnswer))
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)) // so that the connection can be used again
	if res.StatusCode == http.StatusOK {
		return false, nil
	}
	again = res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusRequestTimeout
	return again, fmt.Errorf("%s - %s", res.Status, strings.TrimSpace(string(answer)))
}
