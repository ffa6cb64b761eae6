package scan

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	sample = &Inventory{Distribution: "debian", Release: "12", Packages: []Package{
		{Ecosystem: "Debian:12", Name: "libc6", Version: "2.36-9", Source: "glibc", Origin: "2.36-9", Arch: "amd64", Manager: "OS", Layer: "a"},
		{Ecosystem: "Debian:12", Name: "bash", Version: "5.2.15-2+b2", Source: "bash", Origin: "5.2.15-2", Arch: "amd64", Manager: "OS"},
		{Ecosystem: "Go", Name: "golang.org/x/net", Version: "0.16.0", Source: "golang.org/x/net", Origin: "0.16.0", Manager: "GOBINARY", Path: "app"},
		{Ecosystem: "Go", Name: "golang.org/x/net", Version: "0.16.0", Source: "golang.org/x/net", Origin: "0.16.0", Manager: "GOBINARY", Path: "tool"},
		{Ecosystem: "Go", Name: "stdlib", Version: "1.21.2", Source: "stdlib", Origin: "1.21.2", Manager: "GOBINARY", Path: "app"},
	}}
	sampleImage = Image{Name: "127.0.0.1:4566/app@sha256:abc", Digest: "sha256:abc"}
)

func TestMaterials(t *testing.T) {
	text, err := sample.Materials(sampleImage)
	if err != nil {
		t.Fatal(err)
	}
	var b bom
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range b.Components {
		got = append(got, c.Type+" "+c.PURL)
	}
	want := []string{"operating-system ",
		"library pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=glibc",
		"library pkg:deb/debian/bash@5.2.15-2+b2?arch=amd64&distro=debian-12&upstream=bash%405.2.15-2",
		"library pkg:golang/golang.org/x/net@v0.16.0", "library pkg:golang/stdlib@1.21.2"}
	if !slices.Equal(got, want) || b.Format != "CycloneDX" || b.SpecVersion != "1.5" || b.Metadata.Component.Version != "sha256:abc" {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// What programs answer: references are ours, ours in another document, theirs, or to nothing that is known.
const cyclonedxAnswer = `{"bomFormat": "CycloneDX", "specVersion": "1.5", "metadata": {"tools": {"components": [{"name": "finder"}]}},
 "components": [{"bom-ref": "7", "name": "bash", "version": "5.2.15-2+b2"}, {"bom-ref": "8", "name": "left-pad", "version": "1.0"}],
 "vulnerabilities": [
  {"id": "CVE-1-1", "ratings": [{"severity": "low", "method": "other"}, {"score": 7.8, "severity": "high", "method": "CVSSv31", "vector": "CVSS:3.1/AV:L"}],
   "source": {"name": "nvd", "url": "https://nvd.example/CVE-1-1"}, "description": "one", "advisories": [{"url": "https://a.example"}],
   "affects": [{"ref": "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=glibc"}, {"ref": "urn:cdx:3e67/1#pkg:golang/stdlib@1.21.2"}]},
  {"id": "CVE-1-2", "ratings": [{"score": 10, "method": "CVSSv4"}, {"score": 9.9, "method": "CVSSv3"}, {"score": 10, "method": "CVSSv4"}], "affects": [{"ref": "7"}, {"ref": "8"}]},
  {"id": "GHSA-1", "ratings": [{"score": 5.2, "method": "CVSSv4"}], "affects": [{"ref": "pkg:golang/golang.org/x/net@v0.16.0"}, {"ref": "nobody"}]}]}`

var cyclonedxFindings = []string{"CVE-1-2 CRITICAL 9.9 bash< left-pad<", "CVE-1-1 HIGH 7.8 libc6< stdlib<", "GHSA-1 MEDIUM 5.2 golang.org/x/net< golang.org/x/net< nobody<"}

const sarifAnswer = `{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "Finder", "rules": [
  {"id": "CVE-1-1", "shortDescription": {"text": "libc6: one"}, "fullDescription": {"text": "one"}, "helpUri": "https://nvd.example/CVE-1-1", "properties": {"security-severity": "7.8"}},
  {"id": "CVE-2020-1-bash", "shortDescription": {"text": "two"}, "properties": {"security-severity": 2}}]}},
 "results": [
  {"ruleId": "CVE-1-1", "level": "error", "message": {"text": "Package: libc6\nInstalled Version: 2.36-9\nVulnerability CVE-1-1\nSeverity: HIGH\nFixed Version: 2.36-9+deb12u3\nLink: x"}},
  {"ruleId": "CVE-2020-1-bash", "level": "note", "message": {"text": "A low vulnerability in deb package: bash, version 5.2.15-2+b2 was found at: /x"}},
  {"ruleId": "X1", "level": "warning", "message": {"text": "look at this"}}]}]}`

func TestAnswers(t *testing.T) {
	r, err := readReport([]byte(cyclonedxAnswer), sample)
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(r); !slices.Equal(got, cyclonedxFindings) || r.Source != "finder" {
		t.Errorf("from %s: %q, want %q", r.Source, got, cyclonedxFindings)
	}
	if f := r.Findings[1]; f.URL != "https://nvd.example/CVE-1-1" || f.Vector != "CVSS:3.1/AV:L" || f.Packages[0].Layer != "a" || f.References[0] != "https://a.example" {
		t.Errorf("got %+v", f)
	}

	r, err = readReport([]byte(sarifAnswer), sample)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"CVE-1-1 HIGH 7.8 libc6<2.36-9+deb12u3", "X1 MEDIUM 0.0 <", "CVE-2020-1 LOW 2.0 bash<"}
	if got := summary(r); !slices.Equal(got, want) || r.Source != "Finder" {
		t.Errorf("from %s: %q, want %q", r.Source, got, want)
	}

	for _, bad := range []string{"", "[]", "{}", `{"bomFormat": "SPDX"}`, `{"bomFormat": "CycloneDX", "vulnerabilities": [{}]}`, `{"runs": [{"results": [{}]}]}`, `{"runs": 1}`} {
		if r, err := readReport([]byte(bad), sample); err == nil {
			t.Errorf("%q is %v", bad, r)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(cyclonedxAnswer))
	f.Add([]byte(sarifAnswer))
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := readReport(text, sample); err == nil && r == nil {
			t.Error("neither a report nor an error")
		}
	})
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	answer := filepath.Join(dir, "answer")
	if err := os.WriteFile(answer, []byte(cyclonedxAnswer), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NEARGATE_ROOT_SECRET_ACCESS_KEY", "secret")
	sh := func(script string) (*Report, error) {
		return (&Command{Args: []string{"/bin/sh", "-c", script, "sh", answer}}).Scan(t.Context(), sampleImage, sample)
	}
	r, err := sh(`cat >"$1.in"; echo "$NEARGATE_IMAGE $NEARGATE_IMAGE_DIGEST $NEARGATE_ROOT_SECRET_ACCESS_KEY" >"$1.env"; cat "$1"`)
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(r); !slices.Equal(got, cyclonedxFindings) {
		t.Errorf("got %q", got)
	}
	in, err := os.ReadFile(answer + ".in")
	if want, _ := sample.Materials(sampleImage); err != nil || string(in) != string(want) {
		t.Errorf("it got %s, %v", in, err)
	}
	if env, err := os.ReadFile(answer + ".env"); err != nil || string(env) != "127.0.0.1:4566/app@sha256:abc sha256:abc \n" {
		t.Errorf("its environment was %q, %v", env, err)
	}
	for name, c := range map[string]struct{ script, want string }{
		"fails":               {"echo first >&2; echo 'no database' >&2; exit 3", `sh says "no database": exit status 3`},
		"answers nothing":     {"cat >/dev/null", "what sh answers is neither CycloneDX nor SARIF"},
		"reads nothing":       {`exec cat "$1"`, ""},
		"answers too much":    {"cat /dev/zero", "it answers too much"},
		"leaves one running":  {`sleep 1000 & echo $! >"$1.pid"; cat "$1"`, ""},
		"is not there at all": {"exec /nowhere", "sh says"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sh(c.script)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if pid, err := os.ReadFile(answer + ".pid"); err != nil || !ended(t, strings.TrimSpace(string(pid))) {
		t.Errorf("what it left behind still runs (%v)", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&Command{Args: []string{"/bin/sh", "-c", "sleep 1000"}}).Scan(ctx, sampleImage, sample); err == nil {
		t.Error("a cancelled scan went on")
	}
}

func TestWebhook(t *testing.T) {
	status, answer := http.StatusOK, cyclonedxAnswer
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mac := hmac.New(sha256.New, []byte("shared"))
		fmt.Fprintf(mac, "%s.%s", r.Header.Get("X-Neargate-Timestamp"), body)
		if got, want := r.Header.Get("X-Neargate-Signature"), "sha256="+hex.EncodeToString(mac.Sum(nil)); got != want {
			t.Errorf("signed %s, want %s", got, want)
		}
		if want, _ := sample.Materials(sampleImage); string(body) != string(want) || r.Header.Get("X-Neargate-Image") != sampleImage.Name || r.Header.Get("X-Neargate-Image-Digest") != sampleImage.Digest {
			t.Errorf("got %s with %v", body, r.Header)
		}
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	defer service.Close()
	hook := &Webhook{URL: service.URL, Secret: "shared"}
	r, err := hook.Scan(t.Context(), sampleImage, sample)
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(r); !slices.Equal(got, cyclonedxFindings) {
		t.Errorf("got %q", got)
	}
	answer = "<html>"
	if _, err := hook.Scan(t.Context(), sampleImage, sample); err == nil || !strings.Contains(err.Error(), "neither CycloneDX nor SARIF") {
		t.Errorf("got %v", err)
	}
	status = http.StatusServiceUnavailable
	if _, err := hook.Scan(t.Context(), sampleImage, sample); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("got %v", err)
	}
	service.Close()
	if _, err := hook.Scan(t.Context(), sampleImage, sample); err == nil || !strings.Contains(err.Error(), service.URL) {
		t.Errorf("got %v", err)
	}
}

// ended waits until a killed process has gone, or is a zombie of whoever adopted it.
func ended(t *testing.T, pid string) bool {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return true
		}
	}
	return false
}
