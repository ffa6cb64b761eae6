package s3test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Fault is what becomes of a request instead of what the store would do.
type Fault struct {
	Status  int           // it is answered so, and does nothing
	Cut     bool          // its connection is cut before it does anything
	Lost    bool          // it is done, and its answer is lost
	After   int           // its answer is cut after so many bytes of the body, if any
	Slow    time.Duration // its answer begins so much later
	Release <-chan struct{}
}

// Faults stand in front of a store. They count what comes.
type Faults struct {
	store http.Handler

	mu     sync.Mutex
	fault  func(*http.Request) Fault
	counts map[string]int
}

// NewFaults puts none in front of the store yet.
func NewFaults(store http.Handler) *Faults { return &Faults{store: store, counts: map[string]int{}} }

// Proxy puts faults in front of a store that is somewhere else, and returns the address to use.
func Proxy(t testing.TB, address string) (*Faults, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	f := NewFaults(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host // which is signed
	}})
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return f, server.URL
}

// Inject decides for each request from now on; nil: no faults.
func (f *Faults) Inject(fault func(*http.Request) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// Down cuts every connection, until Inject.
func (f *Faults) Down() { f.Inject(func(*http.Request) Fault { return Fault{Cut: true} }) }

// Count is how many requests there were with the method for the path.
func (f *Faults) Count(method, path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[method+" "+path]
}

// ServeHTTP implements http.Handler.
func (f *Faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.counts[r.Method+" "+r.URL.Path]++
	var fault Fault
	decide := f.fault
	f.mu.Unlock()
	if decide != nil {
		fault = decide(r)
	}
	if fault.Slow > 0 || fault.Release != nil {
		var slow <-chan time.Time
		if fault.Slow > 0 {
			slow = time.After(fault.Slow)
		}
		select {
		case <-slow:
		case <-fault.Release:
		case <-r.Context().Done():
			return
		}
	}
	switch {
	case fault.Cut:
		panic(http.ErrAbortHandler)
	case fault.Status != 0:
		fail(w, r, fault.Status, "InjectedFault")
	case fault.Lost:
		f.store.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case fault.After > 0:
		f.store.ServeHTTP(&cutting{w, fault.After}, r)
	default:
		f.store.ServeHTTP(w, r)
	}
}

// cutting ends the connection after so many bytes.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(b []byte) (int, error) {
	if len(b) < c.left {
		c.left -= len(b)
		return c.ResponseWriter.Write(b)
	}
	c.ResponseWriter.Write(b[:c.left])
	http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}
