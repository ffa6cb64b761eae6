package registry_test

import (
	"cmp"
	"os"
	"os/exec"
	"testing"
)

// TestConformance runs the OCI distribution conformance suite, whose program OCI_CONFORMANCE names: make test builds it.
func TestConformance(t *testing.T) {
	suite := os.Getenv("OCI_CONFORMANCE")
	if suite == "" {
		t.Skip("OCI_CONFORMANCE does not name the suite's program")
	}
	b := newBench(t)
	b.create("conformance/one", "conformance/two")
	cmd := exec.CommandContext(t.Context(), suite)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(),
		"OCI_VERSION=1.1", "OCI_REGISTRY="+b.host(), "OCI_TLS=disabled", "OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two",
		"OCI_USERNAME=AWS", "OCI_PASSWORD="+b.token, "OCI_RESULTS_DIR="+cmp.Or(os.Getenv("OCI_RESULTS"), "results"),
		"OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_TAG_PARAM=true")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("conformance: %v", err)
	}
}
