package runtimetest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

// pull looks at what a registry can answer.
func (s *suite) pull(t *testing.T) {
	ctx := context.Background()
	h := s.host(t)

	t.Run("Image", func(t *testing.T) {
		cfg := ProgConfig
		cfg.StopSignal = "SIGINT"
		ref := h.Registry.Push(t, "described:1", ocitest.Image(t, cfg, ProgLayer(t)))
		img, err := h.Pull(ctx, runtime.PullRequest{Image: ref})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(img.Digest, "sha256:") || img.StopSignal != "SIGINT" || len(img.ExposedPorts) != 1 || img.ExposedPorts[0] != "80/tcp" {
			t.Errorf("image = %+v", img)
		}
		again, err := h.Pull(ctx, runtime.PullRequest{Image: h.Registry.Host + "/described@" + img.Digest})
		if err != nil || again.Digest != img.Digest {
			t.Errorf("by digest: %+v, %v", again, err)
		}
	})
	t.Run("Layered", func(t *testing.T) {
		upper := []ociclient.File{ociclient.Text("data/second", "2"), ociclient.Text("data/.wh.from-image", "")}
		ref := h.Registry.Push(t, "layered:1", ocitest.Image(t, ProgConfig, ProgLayer(t), upper))
		c := command("ls", "/data")
		c.Image = ref
		if _, out := h.run(c); out != "second\n" {
			t.Errorf("ls = %q", out)
		}
	})
	t.Run("Index", func(t *testing.T) {
		other := ProgConfig
		other.Platform = ociclient.Platform{OS: "linux", Arch: "s390x"}
		ref := h.Registry.Push(t, "index:1", ocitest.Image(t, other, []ociclient.File{ociclient.Text("x", "not for us")}), ocitest.Image(t, ProgConfig, ProgLayer(t)))
		c := command("print", "ours")
		c.Image = ref
		if _, out := h.run(c); out != "ours\n" {
			t.Errorf("output %q", out)
		}
		only := other
		only.Platform.Arch = "riscv64"
		ref = h.Registry.Push(t, "foreign:1", ocitest.Image(t, other, ProgLayer(t)), ocitest.Image(t, only, ProgLayer(t)))
		s.wantPullError(t, h, runtime.PullRequest{Image: ref}, false, "platform")
	})
	t.Run("NotFound", func(t *testing.T) {
		s.wantPullError(t, h, runtime.PullRequest{Image: h.Registry.Host + "/nope:1"}, false, h.Registry.Host+"/nope:1", "not found")
	})
	t.Run("Auth", func(t *testing.T) {
		private := ocitest.New(t)
		private.Cred = ociclient.Credentials{User: "AWS", Password: "token"}
		ref := private.Push(t, "secret:1", ocitest.Image(t, ProgConfig, ProgLayer(t)))
		s.wantPullError(t, h, runtime.PullRequest{Image: ref}, false, "auth")
		s.wantPullError(t, h, runtime.PullRequest{Image: ref, User: "AWS", Password: "wrong"}, false, "auth")
		if _, err := h.Pull(ctx, runtime.PullRequest{Image: ref, User: "AWS", Password: "token"}); err != nil {
			t.Error(err)
		}
	})
	t.Run("Unavailable", func(t *testing.T) {
		broken := ocitest.New(t)
		broken.Fail = func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}
		s.wantPullError(t, h, runtime.PullRequest{Image: broken.Host + "/any:1"}, true)
		s.wantPullError(t, h, runtime.PullRequest{Image: "127.0.0.1:1/any:1"}, true, "refused")
	})
}

func (s *suite) wantPullError(t *testing.T, h *host, req runtime.PullRequest, retryable bool, words ...string) {
	t.Helper()
	_, err := h.Pull(context.Background(), req)
	var failed *runtime.PullError
	if !errors.As(err, &failed) {
		t.Errorf("pull %s = %v, want a PullError", req.Image, err)
		return
	}
	if failed.Retryable != retryable || !strings.HasPrefix(failed.Reason, "CannotPullContainerError: ") {
		t.Errorf("retryable %v: %s", failed.Retryable, failed.Reason)
	}
	for _, w := range words {
		if !strings.Contains(failed.Reason, w) {
			t.Errorf("no %q in %s", w, failed.Reason)
		}
	}
}
