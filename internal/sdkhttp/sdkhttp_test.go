package sdkhttp_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

// An answer that is there before the request's end was looked for does not cost the connection.
func TestAnswerIsFaster(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		io.WriteString(w, `{"clusters": []}`)
	}))
	defer server.Close()
	h := &held{closed: make(chan struct{}), wrote: make(chan error, 1)}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return heldConn{c, h}, err
	}}
	defer transport.CloseIdleConnections()
	h.Client.Transport = transport
	c := ecs.New(ecs.Options{
		BaseEndpoint: &server.URL, Region: "us-east-1", HTTPClient: sdkhttp.New(h), RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		}),
	})
	if _, err := c.DescribeClusters(t.Context(), &ecs.DescribeClustersInput{Clusters: []string{marker}}); err != nil {
		t.Error(err)
	}
	if err := <-h.wrote; err != nil {
		t.Errorf("the request was written with %v", err)
	}
}

const marker = "in-the-body"

// held sends requests, and has whoever writes one wait at its end until the body is closed.
type held struct {
	http.Client
	closed chan struct{}
	wrote  chan error
}

func (h *held) Do(r *http.Request) (*http.Response, error) {
	closed := sync.OnceFunc(func() { close(h.closed) })
	if to, ok := r.Body.(io.WriterTo); ok {
		r.Body = struct {
			io.ReadCloser
			io.WriterTo
		}{heldBody{r.Body, closed}, to}
	} else {
		r.Body = heldBody{r.Body, closed}
	}
	trace := &httptrace.ClientTrace{WroteRequest: func(i httptrace.WroteRequestInfo) { h.wrote <- i.Err }}
	return h.Client.Do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
}

type heldBody struct {
	io.ReadCloser
	closed func()
}

func (b heldBody) Close() error {
	defer b.closed()
	return b.ReadCloser.Close()
}

type heldConn struct {
	net.Conn
	h *held
}

func (c heldConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if bytes.Contains(b, []byte(marker)) {
		<-c.h.closed
	}
	return n, err
}
