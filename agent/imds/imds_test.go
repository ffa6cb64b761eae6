package imds_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/agent/imds"
)

// service answers as EC2's does, to those who have got a token.
func service(t *testing.T, values map[string]string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "" {
			io.WriteString(w, "the token")
			return
		}
		if r.Header.Get("X-aws-ec2-metadata-token") != "the token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		value, ok := values[strings.TrimPrefix(r.URL.Path, "/latest/meta-data/")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		io.WriteString(w, value)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestRead(t *testing.T) {
	s := service(t, map[string]string{"instance-id": "i-0123", "instance-type": "m7i.large\n", "placement/availability-zone": "eu-west-1b"})
	got, err := imds.Read(t.Context(), s.URL)
	if want := (imds.Instance{ID: "i-0123", Type: "m7i.large", Zone: "eu-west-1b"}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if got, want := got.Attributes(), map[string]string{"ecs.instance-id": "i-0123", "ecs.instance-type": "m7i.large"}; !maps.Equal(got, want) {
		t.Errorf("the attributes are %v, want %v", got, want)
	}
}

func TestReadFails(t *testing.T) {
	long := service(t, map[string]string{"instance-id": "i", "instance-type": "t", "ami-id": strings.Repeat("x", 5000), "placement/availability-zone": "z"})
	none := httptest.NewServer(http.NotFoundHandler())
	defer none.Close()
	elsewhere := httptest.NewServer(http.RedirectHandler(long.URL, http.StatusFound))
	defer elsewhere.Close()
	for at, want := range map[string]string{long.URL: "more than 4096 bytes", none.URL: "404 Not Found", elsewhere.URL: "302 Found", "http://127.0.0.1:1": "refused"} {
		if got, err := imds.Read(t.Context(), at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v, want %s", at, got, err, want)
		}
	}
}

// Nobody is asked on a machine that is no instance.
func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		env, files map[string]string
		want       string
	}{
		"any machine":      {want: ""},
		"another's":        {files: map[string]string{"class/dmi/id/sys_vendor": "QEMU\n", "hypervisor/uuid": "0ec2"}},
		"Nitro":            {files: map[string]string{"class/dmi/id/sys_vendor": "Amazon EC2\n"}, want: imds.Endpoint},
		"Xen":              {files: map[string]string{"hypervisor/uuid": "ec2e1916-9099"}, want: imds.Endpoint},
		"told where":       {env: map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://[fd00:ec2::254]/"}, want: "http://[fd00:ec2::254]"},
		"told not to":      {env: map[string]string{"AWS_EC2_METADATA_DISABLED": "True"}, files: map[string]string{"class/dmi/id/sys_vendor": "Amazon EC2\n"}},
		"told not to, too": {env: map[string]string{"AWS_EC2_METADATA_DISABLED": "true", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://x"}},
	} {
		sys := t.TempDir()
		for file, text := range c.files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(sys, file)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(sys, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := imds.Find(func(name string) string { return c.env[name] }, sys); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
