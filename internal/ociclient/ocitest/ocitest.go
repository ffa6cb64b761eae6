// Package ocitest is a registry in the test's own process and images small enough for tests.
package ocitest

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/seed-2f228079/neargate/internal/ociclient"
)

// Registry is an OCI registry on loopback that lives as long as its test.
type Registry struct {
	Host string // "127.0.0.1:port"
	// Cred is what the registry demands; zero: nothing. Set before first use.
	Cred ociclient.Credentials
	// Blobs counts GETs of blobs.
	Blobs atomic.Int64
	// Fail, when set, answers a request by itself and returns true.
	Fail func(http.ResponseWriter, *http.Request) bool
}

// New starts a registry.
func New(t testing.TB) *Registry {
	t.Helper()
	r := &Registry{}
	next := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r.Cred != (ociclient.Credentials{}) {
			if u, p, ok := req.BasicAuth(); !ok || u != r.Cred.User || p != r.Cred.Password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusUnauthorized)
				io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
				return
			}
		}
		if r.Fail != nil && r.Fail(w, req) {
			return
		}
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
			r.Blobs.Add(1)
		}
		next.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	r.Host = strings.TrimPrefix(s.URL, "http://")
	return r
}

// Push puts images (several: an index) under "host/name" and returns that reference.
func (r *Registry) Push(t testing.TB, name string, images ...*ociclient.Built) string {
	t.Helper()
	ref := r.Host + "/" + name
	if _, err := new(ociclient.Client).Push(context.Background(), ref, r.Cred, images...); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
	return ref
}

// Image builds an image or fails the test.
func Image(t testing.TB, cfg ociclient.Config, layers ...[]ociclient.File) *ociclient.Built {
	t.Helper()
	b, err := ociclient.Build(cfg, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
