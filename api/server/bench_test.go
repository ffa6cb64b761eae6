package server

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// BenchmarkCall is a call of an operation that does nothing: all that a server does around one, without net/http's part.
func BenchmarkCall(b *testing.B) {
	s, _, _ := newTestServer(b, func(cfg *Config) {
		cfg.Logger, cfg.Cluster, cfg.Clock = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn})), leading{}, clock.Real{}
		cfg.Rates = Rates{Write: 1e9}
	})
	const body = `{"clusterName": "one"}`
	r, err := http.NewRequest("POST", "http://127.0.0.1:4566/", nil)
	if err != nil {
		b.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonEC2ContainerServiceV20141113.CreateCluster", "Accept-Encoding": "identity",
		"User-Agent": "Boto3/1.43.0", "Amz-Sdk-Invocation-Id": "1d31d1bb-7fa5-4ddb-a84f-3ed14a2b9e5c", "Amz-Sdk-Request": "attempt=1",
	} {
		r.Header.Set(name, value)
	}
	sign(b, r, body, "ecs")
	r.RemoteAddr, r.ContentLength = "127.0.0.1:40000", int64(len(body))
	w := &answered{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(strings.NewReader(body))
		s.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			b.Fatal(w.status)
		}
	}
}

// answered is the least ResponseWriter.
type answered struct {
	header http.Header
	status int
}

func (a *answered) Header() http.Header             { return a.header }
func (a *answered) WriteHeader(status int)          { a.status = status }
func (a *answered) Write(b []byte) (int, error)     { return len(b), nil }
func (a *answered) SetReadDeadline(time.Time) error { return nil }

// leading is a cluster that this server leads.
type leading struct{ Cluster }

func (leading) Leader(context.Context) (string, error) { return "", nil }
