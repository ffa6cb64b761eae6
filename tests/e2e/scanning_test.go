package e2e

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/ociclient"
)

// TestScanning: an image of Debian's that has a known vulnerability is found out by the AWS CLI, and no service can run it, until the finding is
// suppressed. A repaired one runs at once.
func TestScanning(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("there is no static busybox on this machine (Debian: apt-get install busybox-static)")
	}
	p := startWith(t, "native", []string{"--scan-database", "../../registry/scan/testdata/osv", "--scan-gate", "HIGH"})
	p.aws(nil, "ecr", "put-registry-scanning-configuration", "--scan-type", "BASIC", "--rules", `[{"scanFrequency":"SCAN_ON_PUSH","repositoryFilters":[{"filter":"web*","filterType":"WILDCARD"}]}]`)
	push := func(repository, glibc string) (ref string) {
		return p.push(repository, "v1", ociclient.Config{Entrypoint: []string{"/bin/busybox", "sleep", "600"}}, ociclient.Executable("bin/busybox", busybox),
			ociclient.Text("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
			ociclient.Text("var/lib/dpkg/status", "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\nVersion: "+glibc+"\n"))
	}
	old, repaired := push("web-old", "2.36-9"), push("web-new", "2.36-9+deb12u3")
	p.aws(nil, "ecr", "wait", "image-scan-complete", "--repository-name", "web-old", "--image-id", "imageTag=v1")
	p.aws(nil, "ecr", "wait", "image-scan-complete", "--repository-name", "web-new", "--image-id", "imageTag=v1")
	if got := p.text("[imageScanFindings.findingSeverityCounts.HIGH, imageScanFindings.findings[0].name, imageScanFindings.findings[0].severity]",
		"ecr", "describe-image-scan-findings", "--repository-name", "web-old", "--image-id", "imageTag=v1"); got != "1\tCVE-2023-4911\tHIGH" {
		t.Errorf("found %q", got)
	}
	if got := p.text("imageDetails[0].[imageScanStatus.status, imageScanFindingsSummary.findingSeverityCounts.INFORMATIONAL]", "ecr", "describe-images", "--repository-name", "web-new"); got != "COMPLETE\t1" {
		t.Errorf("the repaired one has %q", got)
	}
	p.refused("An error occurred (LimitExceededException) when calling the StartImageScan operation: The scan quota per image has been exceeded. Wait and try again.",
		"ecr", "start-image-scan", "--repository-name", "web-old", "--image-id", "imageTag=v1")

	bare := p.push("bare", "v1", ociclient.Config{Entrypoint: []string{"/bin/busybox"}}, ociclient.Executable("bin/busybox", busybox))
	p.aws(nil, "ecr", "start-image-scan", "--repository-name", "bare", "--image-id", "imageTag=v1")
	eventually(t, time.Minute, "the scan of "+bare+" to end", func() (bool, string) {
		got := p.text("[imageScanStatus.status, length(imageScanFindings.findings)]", "ecr", "describe-image-scan-findings", "--repository-name", "bare", "--image-id", "imageTag=v1")
		return got == "UNSUPPORTED_IMAGE\t0", got
	})

	service := func(name, image string) {
		p.aws(nil, "ecs", "register-task-definition", "--family", name, "--container-definitions", `[{"name":"web","image":"`+image+`","memory":64}]`)
		p.aws(nil, "ecs", "create-service", "--service-name", name, "--task-definition", name, "--desired-count", "1")
	}
	service("old", old)
	service("repaired", repaired)
	p.aws(nil, "ecs", "wait", "services-stable", "--services", "repaired")
	eventually(t, time.Minute, "the service to say why its tasks do not start", func() (bool, string) {
		got := p.text("services[0].events[].message", "ecs", "describe-services", "--services", "old")
		return strings.Contains(got, "1 findings of severity HIGH or above"), got
	})
	if got := p.text("services[0].runningCount", "ecs", "describe-services", "--services", "old"); got != "0" {
		t.Errorf("%s tasks of it run", got)
	}
	p.rest("POST", "/api/v1/scan-suppressions?vulnerability=CVE-2023-4911&repositories=web-old&reason=no%20setuid%20programs")
	p.aws(nil, "ecs", "wait", "services-stable", "--services", "old")
	if got := p.rest("GET", "/api/v1/scan-suppressions"); !strings.Contains(got, "no setuid programs") {
		t.Errorf("the suppressions are %s", got)
	}
}

// rest asks the REST API.
func (p *platform) rest(method, path string) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.endpoint+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.SetBasicAuth("test", "test")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		p.t.Fatalf("%s %s: %s %s (%v)", method, path, resp.Status, body, err)
	}
	return string(body)
}
