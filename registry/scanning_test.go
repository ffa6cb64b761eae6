package registry_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/registry/scan"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// debian is a layer with Debian 12 and its C library.
func debian(glibc string) string { return debianWith("glibc", glibc) }

func debianWith(source, version string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, content := range map[string]string{
		"etc/os-release":      "ID=debian\nVERSION_ID=\"12\"\n",
		"var/lib/dpkg/status": "Package: " + source + "-bin\nStatus: install ok installed\nArchitecture: amd64\nSource: " + source + "\nVersion: " + version + "\n",
	} {
		w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644, Typeflag: tar.TypeReg})
		io.WriteString(w, content)
	}
	w.Close()
	z.Close()
	return b.String()
}

func scanning(t *testing.T, change ...func(*registry.Config)) *bench {
	d := scan.NewDatabase("scan/testdata/osv", t.TempDir())
	t.Cleanup(func() { d.Close() })
	return newBench(t, append([]func(*registry.Config){func(c *registry.Config) { c.Scanner, c.Scratch = d, t.TempDir() }}, change...)...)
}

// pushLayers pushes an image of these layers.
func (b *bench) pushLayers(repo, tag string, layers ...string) blob.Digest {
	b.t.Helper()
	m := b.imageOf(repo, `{"architecture":"amd64"}`, layers...)
	b.want(201, "PUT", "/v2/"+repo+"/manifests/"+tag, m, mediaType(ociManifest))
	return blob.Sum([]byte(m))
}

func (b *bench) scan() {
	b.t.Helper()
	if err := b.reg.ScanNow(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func tagged(tag string) *types.ImageIdentifier { return &types.ImageIdentifier{ImageTag: &tag} }

func (b *bench) findings(repo, tag string) *ecr.DescribeImageScanFindingsOutput {
	b.t.Helper()
	return must[ecr.DescribeImageScanFindingsOutput](b, &ecr.DescribeImageScanFindingsInput{RepositoryName: &repo, ImageId: tagged(tag)})
}

// found is the status, counts and names of a scan: "COMPLETE map[HIGH:1] CVE-2023-4911".
func (b *bench) found(repo, tag string) string {
	b.t.Helper()
	out := b.findings(repo, tag)
	s := string(out.ImageScanStatus.Status)
	if f := out.ImageScanFindings; f.ImageScanCompletedAt == nil {
		if f.Findings == nil && f.EnhancedFindings == nil || len(f.Findings)+len(f.EnhancedFindings) > 0 {
			b.t.Errorf("before a scan has ended: %+v", f) // the AWS CLI wants an empty list
		}
	} else {
		s += " " + fmt.Sprint(f.FindingSeverityCounts)
		for _, x := range f.Findings {
			s += " " + *x.Name
		}
		for _, x := range f.EnhancedFindings {
			s += " " + *x.PackageVulnerabilityDetails.VulnerabilityId + ":" + *x.Status
		}
	}
	return s
}

func (b *bench) wantFound(repo, tag, want string) {
	b.t.Helper()
	if got := b.found(repo, tag); got != want {
		b.t.Errorf("%s:%s: %s, want %s", repo, tag, got, want)
	}
}

func scanOnPush(on bool) *types.ImageScanningConfiguration {
	return &types.ImageScanningConfiguration{ScanOnPush: on}
}

func TestScanOnPush(t *testing.T) {
	b := scanning(t)
	must[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: new("users"), ImageScanningConfiguration: scanOnPush(true)})
	b.pushLayers("users", "old", debian("2.36-9"))
	b.pushLayers("users", "new", debian("2.36-9+deb12u3"))
	b.pushLayers("users", "fixed", debian("2.36-9"), debian("2.36-9+deb12u3"))
	b.pushLayers("users", "scratch", "not a tar archive, but then nobody pushes that")
	b.pushLayers("users", "empty")
	b.wantFound("users", "old", "IN_PROGRESS")
	b.scan()
	b.wantFound("users", "old", "COMPLETE map[HIGH:1 INFORMATIONAL:1] CVE-2023-4911 CVE-2010-4756")
	b.wantFound("users", "new", "COMPLETE map[INFORMATIONAL:1] CVE-2010-4756")
	b.wantFound("users", "fixed", "COMPLETE map[INFORMATIONAL:1] CVE-2010-4756")
	b.wantFound("users", "scratch", "FAILED")
	if d := *b.findings("users", "scratch").ImageScanStatus.Description; !strings.Contains(d, "read layer sha256:") {
		t.Errorf("it failed with %q", d)
	}
	b.wantFound("users", "empty", "UNSUPPORTED_IMAGE")

	out := b.findings("users", "old")
	f := out.ImageScanFindings.Findings[0]
	attributes := map[string]string{}
	for _, a := range f.Attributes {
		attributes[*a.Key] = *a.Value
	}
	if want := map[string]string{"package_name": "glibc", "package_version": "2.36-9", "fixed_version": "2.36-9+deb12u3", "CVSS3_SCORE": "7.8", "CVSS3_VECTOR": "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"}; !maps.Equal(attributes, want) {
		t.Errorf("attributes %v", attributes)
	}
	if f.Severity != "HIGH" || *f.Uri != "https://security-tracker.debian.org/tracker/CVE-2023-4911" || !out.ImageScanFindings.ImageScanCompletedAt.Equal(b.clock.Now()) ||
		out.ImageScanFindings.VulnerabilitySourceUpdatedAt.Format(time.DateOnly) != "2025-11-20" {
		t.Errorf("got %+v", out.ImageScanFindings)
	}

	// The findings come in pages, and with the images.
	in := &ecr.DescribeImageScanFindingsInput{RepositoryName: new("users"), ImageId: tagged("old"), MaxResults: new(int32(1))}
	var names []string
	for {
		page := must[ecr.DescribeImageScanFindingsOutput](b, in)
		for _, f := range page.ImageScanFindings.Findings {
			names = append(names, *f.Name)
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			break
		}
	}
	if !slices.Equal(names, []string{"CVE-2023-4911", "CVE-2010-4756"}) {
		t.Errorf("paged: %v", names)
	}
	d := must[ecr.DescribeImagesOutput](b, &ecr.DescribeImagesInput{RepositoryName: new("users"), ImageIds: []types.ImageIdentifier{*tagged("old")}}).ImageDetails[0]
	if d.ImageScanStatus.Status != "COMPLETE" || d.ImageScanFindingsSummary.FindingSeverityCounts["HIGH"] != 1 || d.ImageScanFindingsSummary.ImageScanCompletedAt == nil {
		t.Errorf("the image shows %+v, %+v", d.ImageScanStatus, d.ImageScanFindingsSummary)
	}

	// What nobody scans: indexes, artifacts, and what is pushed elsewhere.
	b.create("other")
	b.pushLayers("other", "v1", debian("2.36-9"))
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{}})
	b.want(201, "PUT", "/v2/users/manifests/index", index, mediaType(ociIndex))
	for repo, tag := range map[string]string{"other": "v1", "users": "index"} {
		_, err := call[ecr.DescribeImageScanFindingsOutput](b, account, region, &ecr.DescribeImageScanFindingsInput{RepositoryName: &repo, ImageId: tagged(tag)})
		if want := "ScanNotFoundException: Image scan does not exist for the image with '{imageDigest:'null', imageTag:'" + tag + "'}' in the repository with name '" + repo + "' in the registry with id '000000000000'"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestStartImageScan(t *testing.T) {
	b := scanning(t)
	b.create("users")
	digest := b.pushLayers("users", "v1", debian("2.36-9"))
	in := &ecr.StartImageScanInput{RepositoryName: new("users"), ImageId: tagged("v1")}
	out := must[ecr.StartImageScanOutput](b, in)
	if out.ImageScanStatus.Status != "IN_PROGRESS" || *out.ImageId.ImageDigest != string(digest) || *out.ImageId.ImageTag != "v1" {
		t.Errorf("got %+v", out)
	}
	exceeded := "LimitExceededException: The scan quota per image has been exceeded. Wait and try again."
	refused[ecr.StartImageScanOutput](b, in, exceeded)
	b.scan()
	b.wantFound("users", "v1", "COMPLETE map[HIGH:1 INFORMATIONAL:1] CVE-2023-4911 CVE-2010-4756")
	b.clock.Advance(24*time.Hour - time.Second)
	refused[ecr.StartImageScanOutput](b, in, exceeded)
	b.clock.Advance(time.Second)
	must[ecr.StartImageScanOutput](b, in)
	b.scan()
	if at := b.findings("users", "v1").ImageScanFindings.ImageScanCompletedAt; !at.Equal(b.clock.Now()) {
		t.Errorf("completed at %v", at)
	}

	b.token = b.login(account, region)
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{}})
	b.want(201, "PUT", "/v2/users/manifests/index", index, mediaType(ociIndex))
	for want, in := range map[string]*ecr.StartImageScanInput{
		"UnsupportedImageTypeException: ": {RepositoryName: new("users"), ImageId: tagged("index")},
		"ImageNotFoundException: ":        {RepositoryName: new("users"), ImageId: tagged("nope")},
		"RepositoryNotFoundException: ":   {RepositoryName: new("nope"), ImageId: tagged("v1")},
	} {
		if _, err := call[ecr.StartImageScanOutput](b, account, region, in); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// scripted is a scanner that says what it is told to.
type scripted struct {
	version string
	report  *scan.Report
	err     error
	asked   int
	during  func()
}

func (s *scripted) Version() (string, error) { return s.version, nil }

func (s *scripted) Scan(_ context.Context, image scan.Image, i *scan.Inventory) (*scan.Report, error) {
	s.asked++
	if s.during != nil {
		s.during()
	}
	if len(i.Packages) == 0 || !strings.Contains(image.Name, "@sha256:") {
		return nil, fmt.Errorf("asked about %v of %v", i, image)
	}
	return s.report, s.err
}

func reportOf(severity scan.Severity, ids ...string) *scan.Report {
	r := &scan.Report{Source: "test"}
	for _, id := range ids {
		r.Findings = append(r.Findings, scan.Finding{ID: id, Severity: severity, Packages: []scan.Vulnerable{{Package: scan.Package{Name: "a", Version: "1", Source: "a-source", Origin: "1"}}}})
	}
	return r
}

// A scan that fails is tried again, ever later, and may be asked for again; without a scanner nobody has to wait for that.
func TestScanFails(t *testing.T) {
	s := &scripted{err: errors.New("no database")}
	b := scanning(t, func(c *registry.Config) { c.Scanner = s })
	must[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: new("users"), ImageScanningConfiguration: scanOnPush(true)})
	b.pushLayers("users", "v1", debian("2.36-9"))
	for i := range 5 {
		b.scan()
		b.wantFound("users", "v1", "FAILED")
		if s.asked != i+1 {
			t.Fatalf("asked %d times, want %d", s.asked, i+1)
		}
		b.scan() // too soon
		b.clock.Advance(30 * time.Second << i)
	}
	b.scan()
	if d := b.findings("users", "v1").ImageScanStatus.Description; s.asked != 5 || *d != "no database" {
		t.Errorf("asked %d times: %q", s.asked, *d)
	}
	s.err, s.report = nil, reportOf(scan.High, "CVE-1-1")
	must[ecr.StartImageScanOutput](b, &ecr.StartImageScanInput{RepositoryName: new("users"), ImageId: tagged("v1")})
	b.scan()
	b.wantFound("users", "v1", "COMPLETE map[HIGH:1] CVE-1-1")

	b.config.Scanner = nil
	b.restart()
	b.pushLayers("users", "v2", debian("2.37"))
	b.scan()
	b.wantFound("users", "v2", "FAILED")
	if d := b.findings("users", "v2").ImageScanStatus.Description; !strings.Contains(*d, "--scan-database") {
		t.Errorf("got %q", *d)
	}
}

// What happens to an image while it is scanned is not undone by the scan's end.
func TestScanMeanwhile(t *testing.T) {
	s := &scripted{report: reportOf(scan.High, "CVE-1-1")}
	b := scanning(t, func(c *registry.Config) { c.Scanner = s })
	must[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: new("users"), ImageScanningConfiguration: scanOnPush(true)})
	b.pushLayers("users", "v1", debian("2.36-9"))
	s.during = func() { b.want(202, "DELETE", "/v2/users/manifests/v1", nil); b.deleteUntagged("users") }
	b.scan()
	s.during = nil
	for range registry.Scans.Scan(b.store.View(), state.K()) {
		t.Error("the scan of a deleted image is kept")
	}
	b.age(48 * time.Hour)
	b.collect()
	if left := b.stored(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func (b *bench) deleteUntagged(repo string) {
	b.t.Helper()
	for digest := range b.images(repo) {
		must[ecr.BatchDeleteImageOutput](b, &ecr.BatchDeleteImageInput{RepositoryName: &repo, ImageIds: []types.ImageIdentifier{{ImageDigest: &digest}}})
	}
}

// Findings stay as long as their image, and no longer; a deleted repository leaves none.
func TestScanCollected(t *testing.T) {
	b := scanning(t)
	for _, name := range []string{"users", "gone"} {
		must[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: &name, ImageScanningConfiguration: scanOnPush(true)})
		b.pushLayers(name, "v1", debian("2.36-9"))
	}
	b.scan()
	b.age(48 * time.Hour)
	b.collect()
	b.restart().wantFound("users", "v1", "COMPLETE map[HIGH:1 INFORMATIONAL:1] CVE-2023-4911 CVE-2010-4756")
	must[ecr.DeleteRepositoryOutput](b, &ecr.DeleteRepositoryInput{RepositoryName: new("gone"), Force: true})
	b.collect()
	b.wantFound("users", "v1", "COMPLETE map[HIGH:1 INFORMATIONAL:1] CVE-2023-4911 CVE-2010-4756")
	b.deleteUntagged("users")
	b.age(48 * time.Hour)
	b.collect()
	if left := b.stored(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func filter(f string) types.ScanningRepositoryFilter {
	return types.ScanningRepositoryFilter{Filter: &f, FilterType: types.ScanningRepositoryFilterTypeWildcard}
}

func rule(frequency types.ScanFrequency, filters ...string) types.RegistryScanningRule {
	r := types.RegistryScanningRule{ScanFrequency: frequency}
	for _, f := range filters {
		r.RepositoryFilters = append(r.RepositoryFilters, filter(f))
	}
	return r
}

func TestScanningConfiguration(t *testing.T) {
	b := scanning(t)
	b.create("users", "team/prod-a", "team/dev-a")
	if c := must[ecr.GetRegistryScanningConfigurationOutput](b, &ecr.GetRegistryScanningConfigurationInput{}); c.ScanningConfiguration.ScanType != "BASIC" || *c.RegistryId != account {
		t.Errorf("at first %+v", c)
	}
	configured := func(names ...string) (out []string) {
		got := must[ecr.BatchGetRepositoryScanningConfigurationOutput](b, &ecr.BatchGetRepositoryScanningConfigurationInput{RepositoryNames: names})
		for _, c := range got.ScanningConfigurations {
			s := fmt.Sprint(*c.RepositoryName, " ", c.ScanFrequency, " ", c.ScanOnPush)
			for _, f := range c.AppliedScanFilters {
				s += " " + *f.Filter
			}
			out = append(out, s)
		}
		for _, f := range got.Failures {
			out = append(out, *f.RepositoryName+" "+string(f.FailureCode))
		}
		return out
	}
	check := func(want ...string) {
		t.Helper()
		if got := configured("users", "team/prod-a", "team/dev-a", "nope"); !slices.Equal(got, append(want, "nope REPOSITORY_NOT_FOUND")) {
			t.Errorf("got %q", got)
		}
	}
	check("users MANUAL false", "team/prod-a MANUAL false", "team/dev-a MANUAL false")
	must[ecr.PutImageScanningConfigurationOutput](b, &ecr.PutImageScanningConfigurationInput{RepositoryName: new("users"), ImageScanningConfiguration: scanOnPush(true)})
	must[ecr.PutRegistryScanningConfigurationOutput](b, &ecr.PutRegistryScanningConfigurationInput{ScanType: "BASIC", Rules: []types.RegistryScanningRule{rule("SCAN_ON_PUSH", "prod")}})
	check("users SCAN_ON_PUSH true", "team/prod-a SCAN_ON_PUSH true prod", "team/dev-a MANUAL false")
	must[ecr.PutRegistryScanningConfigurationOutput](b, &ecr.PutRegistryScanningConfigurationInput{ScanType: "ENHANCED", Rules: []types.RegistryScanningRule{
		rule("SCAN_ON_PUSH", "team/*"), rule("CONTINUOUS_SCAN", "*prod*", "x*")}})
	check("users MANUAL false", "team/prod-a CONTINUOUS_SCAN true team/* *prod*", "team/dev-a SCAN_ON_PUSH true team/*")
	refused[ecr.StartImageScanOutput](b, &ecr.StartImageScanInput{RepositoryName: new("users"), ImageId: tagged("v1")}, "ValidationException: This feature is disabled")
	for want, in := range map[string]*ecr.PutRegistryScanningConfigurationInput{
		"the scan frequency CONTINUOUS_SCAN is not one of scan type BASIC": {Rules: []types.RegistryScanningRule{rule("CONTINUOUS_SCAN", "*")}},
		"the scan frequency MANUAL is not one of scan type ENHANCED":       {ScanType: "ENHANCED", Rules: []types.RegistryScanningRule{rule("MANUAL", "*")}},
		"there is one rule at most for the scan frequency SCAN_ON_PUSH":    {ScanType: "BASIC", Rules: []types.RegistryScanningRule{rule("SCAN_ON_PUSH", "a*"), rule("SCAN_ON_PUSH", "b*")}},
	} {
		refused[ecr.PutRegistryScanningConfigurationOutput](b, in, "InvalidParameterException: Invalid parameter at 'rules' failed to satisfy constraint: '"+want+"'")
	}
	c := must[ecr.GetRegistryScanningConfigurationOutput](b, &ecr.GetRegistryScanningConfigurationInput{}).ScanningConfiguration
	if c.ScanType != "ENHANCED" || len(c.Rules) != 2 || *c.Rules[1].RepositoryFilters[0].Filter != "*prod*" {
		t.Errorf("refusals changed it: %+v", c)
	}
}

// Continuous scanning covers images that were there before, and looks again when the scanner has learnt something, or after a day when it cannot tell.
func TestScanContinuously(t *testing.T) {
	s := &scripted{version: "1", report: reportOf(scan.Low, "CVE-1-1")}
	b := scanning(t, func(c *registry.Config) { c.Scanner = s })
	b.create("users", "other")
	b.pushLayers("users", "v1", debian("2.36-9"))
	b.pushLayers("other", "v1", debian("2.36-9"))
	must[ecr.PutRegistryScanningConfigurationOutput](b, &ecr.PutRegistryScanningConfigurationInput{ScanType: "ENHANCED", Rules: []types.RegistryScanningRule{rule("CONTINUOUS_SCAN", "users")}})
	asked := func(n int, why string) {
		t.Helper()
		b.scan()
		if s.asked != n {
			t.Errorf("%s: asked %d times, want %d", why, s.asked, n)
		}
	}
	asked(1, "the image that was there")
	b.wantFound("users", "v1", "ACTIVE map[LOW:1] CVE-1-1:ACTIVE")
	b.clock.Advance(48 * time.Hour)
	asked(1, "nothing new")
	s.version, s.report = "2", reportOf(scan.Critical, "CVE-1-2", "CVE-1-1")
	asked(2, "the scanner learnt something")
	b.wantFound("users", "v1", "ACTIVE map[CRITICAL:2] CVE-1-2:ACTIVE CVE-1-1:ACTIVE")
	f := b.findings("users", "v1").ImageScanFindings.EnhancedFindings[0]
	if !f.FirstObservedAt.Add(48*time.Hour).Equal(*f.LastObservedAt) || *f.FixAvailable != "NO" || *f.PackageVulnerabilityDetails.VulnerablePackages[0].Name != "a" ||
		*f.Resources[0].Details.AwsEcrContainerImage.RepositoryName != "users" || !strings.HasPrefix(*f.FindingArn, "arn:aws:inspector2:us-east-1:000000000000:finding/") {
		t.Errorf("got %+v", f)
	}
	s.version = ""
	asked(2, "it cannot tell, and it is early")
	b.clock.Advance(24 * time.Hour)
	asked(3, "a day later")
	b.setClass("users", "v1", types.TargetStorageClassArchive)
	b.clock.Advance(24 * time.Hour)
	asked(3, "archived images are left alone")
}

func (b *bench) resource(name string, in any) (any, error) {
	b.t.Helper()
	for _, r := range b.reg.Resources() {
		if r.Name == name {
			var out any
			err := r.Read(b.in(account, region), in, func(v ...any) error { out = v[0]; return nil })
			return out, err
		}
	}
	b.t.Fatalf("there is no %s", name)
	return nil, nil
}

func TestScanSuppressions(t *testing.T) {
	s := &scripted{version: "1", report: reportOf(scan.High, "CVE-1-1", "CVE-1-2")}
	b := scanning(t, func(c *registry.Config) { c.Scanner = s })
	for _, name := range []string{"users", "other"} {
		must[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: &name, ImageScanningConfiguration: scanOnPush(true)})
		b.pushLayers(name, "v1", debian("2.36-9"))
	}
	b.scan()
	all := "COMPLETE map[HIGH:2] CVE-1-1 CVE-1-2"
	b.wantFound("users", "v1", all)
	made, err := b.resource("CreateScanSuppression", &registry.CreateScanSuppressionInput{Vulnerability: "CVE-1-1", Repositories: "user*", Package: "a-source", Reason: "we do not call it", Until: b.clock.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	b.scan()
	b.wantFound("users", "v1", "COMPLETE map[HIGH:1] CVE-1-2")
	b.wantFound("other", "v1", all)
	b.pushLayers("users", "v2", debian("2.36-9"), "")
	if s.asked != 2 {
		t.Errorf("the scanner was asked %d times", s.asked)
	}
	// Enhanced scanning shows what is suppressed.
	must[ecr.PutRegistryScanningConfigurationOutput](b, &ecr.PutRegistryScanningConfigurationInput{ScanType: "ENHANCED"})
	b.wantFound("users", "v1", "COMPLETE map[HIGH:1] CVE-1-1:SUPPRESSED CVE-1-2:ACTIVE")
	must[ecr.PutRegistryScanningConfigurationOutput](b, &ecr.PutRegistryScanningConfigurationInput{ScanType: "BASIC"})
	b.clock.Advance(time.Hour)
	b.scan()
	b.wantFound("users", "v1", all)

	if _, err := b.resource("CreateScanSuppression", &registry.CreateScanSuppressionInput{Vulnerability: "CVE-1-1", Package: "another", Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	b.scan()
	b.wantFound("users", "v1", all)
	list, err := b.resource("ListScanSuppressions", &registry.ListScanSuppressionsInput{})
	if err != nil {
		t.Fatal(err)
	}
	if got := list.(*registry.ListScanSuppressionsOutput).Suppressions; len(got) != 2 {
		t.Errorf("got %v", got)
	}
	id := made.(*registry.ScanSuppressionShape).ID
	if _, err := b.resource("DeleteScanSuppression", &registry.DeleteScanSuppressionInput{ID: id}); err != nil {
		t.Error(err)
	}
	if _, err := b.resource("DeleteScanSuppression", &registry.DeleteScanSuppressionInput{ID: id}); err == nil || !strings.HasPrefix(err.Error(), "ResourceNotFoundException") {
		t.Errorf("got %v", err)
	}
	for field, in := range map[string]*registry.CreateScanSuppressionInput{
		"vulnerability": {Reason: "x"}, "reason": {Vulnerability: "CVE-1-1"}, "until": {Vulnerability: "CVE-1-1", Reason: "x", Until: b.clock.Now()},
		"repositories": {Vulnerability: "CVE-1-1", Reason: "x", Repositories: strings.Repeat("a", 257)},
	} {
		if _, err := b.resource("CreateScanSuppression", in); err == nil || !strings.HasPrefix(err.Error(), "InvalidParameterException: Invalid parameter at '"+field+"'") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// The gate is for tasks: they get no image with findings, nor one of which nobody knows yet; people do.
func TestScanGate(t *testing.T) {
	s := &scripted{report: reportOf(scan.Medium, "CVE-1-1")}
	b := scanning(t, func(c *registry.Config) { c.Scanner, c.Gate = s, scan.High })
	must[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: new("users"), ImageScanningConfiguration: scanOnPush(true)})
	task := b.reg.PullToken(account, region, "users")
	digest := b.pushLayers("users", "v1", debian("2.36-9"))
	refusal := func(tag string) string {
		t.Helper()
		a := b.do("GET", "/v2/users/manifests/"+tag, nil, basic("AWS", task))
		if a.StatusCode == 200 {
			return ""
		}
		if a.StatusCode != 403 || a.code() != "DENIED" {
			t.Errorf("%s: %s", a.Status, a.body)
		}
		return a.body
	}
	if got := refusal("v1"); !strings.Contains(got, "is not scanned yet") {
		t.Errorf("before the scan: %q", got)
	}
	b.scan()
	if got := refusal("v1"); got != "" {
		t.Errorf("MEDIUM is refused: %q", got)
	}
	s.report = reportOf(scan.Critical, "CVE-1-1", "CVE-1-2")
	b.clock.Advance(24 * time.Hour)
	b.token = b.login(account, region)
	task = b.reg.PullToken(account, region, "users")
	must[ecr.StartImageScanOutput](b, &ecr.StartImageScanInput{RepositoryName: new("users"), ImageId: tagged("v1")})
	b.scan()
	for _, ref := range []string{"v1", string(digest)} {
		if got := refusal(ref); !strings.Contains(got, "has 2 findings of severity HIGH or above, the worst CRITICAL") {
			t.Errorf("%s: %q", ref, got)
		}
	}
	b.want(200, "GET", "/v2/users/manifests/v1", nil)
	for _, id := range []string{"CVE-1-1", "CVE-1-2"} {
		if _, err := b.resource("CreateScanSuppression", &registry.CreateScanSuppressionInput{Vulnerability: id, Reason: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	b.scan()
	if got := refusal("v1"); got != "" {
		t.Errorf("suppressed findings count: %q", got)
	}
}

// The loop finds what is to be done by itself: a push, a setting, the passing of time.
func TestScanLoop(t *testing.T) {
	b := scanning(t)
	b.create("users")
	b.run()
	b.pushLayers("users", "v1", debian("2.36-9"))
	must[ecr.PutRegistryScanningConfigurationOutput](b, &ecr.PutRegistryScanningConfigurationInput{ScanType: "ENHANCED", Rules: []types.RegistryScanningRule{rule("CONTINUOUS_SCAN", "*")}})
	done := func(n int) {
		t.Helper()
		b.eventually(time.Second, func(v *state.View) bool {
			complete := 0
			for s := range registry.Scans.Scan(v, state.K()) {
				if s.Completed != nil && !s.Pending {
					complete++
				}
			}
			return complete == n
		})
	}
	done(1)
	b.pushLayers("users", "v2", debian("2.36-9+deb12u3"))
	done(2)
	if _, err := b.resource("CreateScanSuppression", &registry.CreateScanSuppressionInput{Vulnerability: "CVE-2010-4756", Reason: "minor"}); err != nil {
		t.Fatal(err)
	}
	b.eventually(time.Second, func(v *state.View) bool {
		for s := range registry.Scans.Scan(v, state.K()) {
			if s.Counts["INFORMATIONAL"] > 0 {
				return false
			}
		}
		return true
	})
}

// A score says which version of CVSS it is of.
func TestScanCVSS4(t *testing.T) {
	report := reportOf(scan.Medium, "CVE-1-1")
	report.Findings[0].Score, report.Findings[0].Vector = 5.2, "CVSS:4.0/AV:L/AC:L/AT:N/PR:L/UI:P/VC:N/VI:H/VA:H/SC:N/SI:L/SA:L"
	b := scanning(t, func(c *registry.Config) { c.Scanner = &scripted{version: "1", report: report} })
	must[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: new("users"), ImageScanningConfiguration: scanOnPush(true)})
	b.pushLayers("users", "v1", debian("2.36-9"))
	b.scan()
	attributes := map[string]string{}
	for _, a := range b.findings("users", "v1").ImageScanFindings.Findings[0].Attributes {
		attributes[*a.Key] = *a.Value
	}
	if attributes["CVSS4_SCORE"] != "5.2" || attributes["CVSS4_VECTOR"] != report.Findings[0].Vector || attributes["CVSS3_SCORE"] != "" {
		t.Errorf("attributes %v", attributes)
	}
	must[ecr.PutRegistryScanningConfigurationOutput](b, &ecr.PutRegistryScanningConfigurationInput{ScanType: "ENHANCED"})
	if d := b.findings("users", "v1").ImageScanFindings.EnhancedFindings[0]; d.ScoreDetails == nil || *d.ScoreDetails.Cvss.Version != "4.0" || d.ScoreDetails.Cvss.Score != 5.2 {
		t.Errorf("score details %+v", d.ScoreDetails)
	}
}
