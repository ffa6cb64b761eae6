package client

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
)

func TestPlain(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		w.Write([]byte(`{"__type":"ClusterNotFoundException","message":"Cluster not found."}`))
	}))
	c, err := New(Config{Endpoint: s.URL, Region: "us-east-1", AccessKey: "test", SecretKey: "test"})
	if err != nil {
		t.Fatal(err)
	}
	call := func() error {
		_, err := c.ECS.ListTasks(context.Background(), &ecs.ListTasksInput{})
		return c.Plain(err)
	}
	if err := call(); err == nil || err.Error() != "Cluster not found. (ClusterNotFoundException)" {
		t.Errorf("refusal: %v", err)
	}
	s.Close()
	if err := call(); err == nil || !strings.HasPrefix(err.Error(), "nothing answers at "+s.URL) {
		t.Errorf("no platform: %v", err)
	}
	if c.Plain(nil) != nil {
		t.Error("no error became one")
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []string{"NEARGATE_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
		"NEARGATE_ROOT_ACCESS_KEY_ID", "NEARGATE_ROOT_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"} {
		t.Setenv(n, "")
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	if c := (Config{Region: "eu-west-1"}).FromEnvironment(); c != (Config{Endpoint: "http://127.0.0.1:1", Region: "eu-west-1", AccessKey: "test", SecretKey: "test"}) {
		t.Errorf("got %+v", c)
	}
	t.Setenv("NEARGATE_ENDPOINT", "http://127.0.0.1:2")
	if c := (Config{}).FromEnvironment(); c.Endpoint != "http://127.0.0.1:2" {
		t.Errorf("NEARGATE_ENDPOINT does not come first: %+v", c)
	}
	for _, bad := range []string{"", "127.0.0.1:4566", "ftp://x", "http://"} {
		if _, err := New(Config{Endpoint: bad}); err == nil {
			t.Errorf("endpoint %q was taken", bad)
		}
	}
}
