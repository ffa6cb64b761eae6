package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/blob/blobtest"
)

// TestScrub spoils a layer on the disk: the platform finds it, says so in its metrics and to `neargate operator scrub`, gives it to nobody, and takes the
// next push of it.
func TestScrub(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startOn(t, "fake")
	p.aws(nil, "ecr", "create-repository", "--repository-name", "web")
	p.pushText("web", "v1")
	login := ociclient.Credentials{User: "test", Password: "test"}
	image, err := new(ociclient.Client).Resolve(t.Context(), p.listen+"/web:v1", login)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer := layers[0].Digest
	says := func(want string) {
		t.Helper()
		eventually(t, time.Minute, "the layers to be read", func() (bool, string) {
			out, errs, err := p.neargate("operator", "scrub")
			return err == nil && strings.Contains(out, want), out + errs
		})
	}
	says("Rotten: 0. Repaired: 0. Lost: 0.")

	p.stop()
	if err := blobtest.Rot(filepath.Join(p.data, "blobs"), blob.Digest(layer)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(p.data, "scrub.json")); err != nil { // which says that the week is not over
		t.Fatal(err)
	}
	p.run()
	says("Rotten: 1. Repaired: 0. Lost: 1.\n" + layer + "\n")
	resp, err := http.Get(p.endpoint + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"neargate_registry_scrub_rotten 1\n", "neargate_registry_scrub_lost 1\n", "neargate_registry_scrub_repaired 0\n"} {
		if !strings.Contains(string(metrics), want) {
			t.Errorf("the metrics have no %q", want)
		}
	}
	if _, _, err := p.try("ecr", "get-download-url-for-layer", "--repository-name", "web", "--layer-digest", layer); err == nil {
		t.Error("a rotten layer is given out")
	}
	// A client that asks for the manifest first has nothing to do under a tag that is there, so it is another one.
	if _, err := new(ociclient.Client).Push(t.Context(), p.listen+"/web:again", login, builtText(t, "v1")); err != nil {
		t.Fatal(err)
	}
	if image, err = new(ociclient.Client).Resolve(t.Context(), p.listen+"/web:v1", login); err != nil {
		t.Fatal(err)
	}
	if layers, err = image.Layers(); err != nil {
		t.Fatal(err)
	}
	r, err := layers[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Error(err)
	}
}
