package registry

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// scanQuota is how often a scan of an image can be asked for.
const scanQuota = 24 * time.Hour

// startImageScan implements ecr:StartImageScan. The scanning loop does it; one that failed may be asked for again at once.
func (r *Registry) startImageScan(ctx context.Context, in *ecr.StartImageScanInput) (*ecr.StartImageScanOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if registryRecord(r.Store.View(), repo.Account, repo.Region).scanning().ScanType == types.ScanTypeEnhanced {
		return nil, awserr.New("ValidationException", "This feature is disabled")
	}
	m, err := r.identified(repo, in.ImageId)
	if err != nil {
		return nil, err
	}
	if !m.scannable() {
		return nil, awserr.New("UnsupportedImageTypeException", "The operation failed because the image %s of type %s cannot be scanned", m.Digest, m.MediaType)
	}
	if err := pullable(repo, m); err != nil {
		return nil, err
	}
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		if _, ok := Manifests.Get(tx, Manifests.Key(m)); !ok {
			return imageNotFound(repo, m.Digest, value(in.ImageId.ImageTag))
		}
		before, _ := Scans.Get(tx, Manifests.Key(m))
		failed := before != nil && before.Status == string(types.ScanStatusFailed) && (before.Attempts > 0 || !before.Pending)
		if before != nil && !failed && r.Clock.Now().Sub(before.Requested.AsTime()) < scanQuota {
			return awserr.New("LimitExceededException", "The scan quota per image has been exceeded. Wait and try again.")
		}
		next := r.requestScan(before, repo, m)
		next.Inventory = "" // what is asked for is a scan of the image, not of what was found in it
		Scans.Put(tx, next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.StartImageScanOutput{
		ImageId: new(imageID(m.Digest, value(in.ImageId.ImageTag))), ImageScanStatus: &types.ImageScanStatus{Status: types.ScanStatusInProgress},
		RegistryId: new(repo.Account), RepositoryName: new(repo.Name),
	}, nil
}

// findingsPage is the usual and the largest number of findings in an answer.
const (
	findingsPage = 100
	findingsMost = 1000
)

// describeImageScanFindings implements ecr:DescribeImageScanFindings: in the shape of basic or of enhanced scanning, whichever the registry has now.
func (r *Registry) describeImageScanFindings(ctx context.Context, in *ecr.DescribeImageScanFindingsInput) (*ecr.DescribeImageScanFindingsOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	m, err := r.identified(repo, in.ImageId)
	if err != nil {
		return nil, err
	}
	v := r.Store.View()
	s, ok := Scans.Get(v, Manifests.Key(m))
	if !ok {
		return nil, awserr.New("ScanNotFoundException", "Image scan does not exist for the image with '{imageDigest:'%s', imageTag:'%s'}' in the repository with name '%s' in the registry with id '%s'",
			orNull(in.ImageId.ImageDigest), orNull(in.ImageId.ImageTag), repo.Name, repo.Account)
	}
	p := planOf(registryRecord(v, repo.Account, repo.Region).scanning(), repo)
	out := &ecr.DescribeImageScanFindingsOutput{
		ImageId: new(imageID(m.Digest, value(in.ImageId.ImageTag))), ImageScanStatus: s.shownStatus(p), RegistryId: new(repo.Account), RepositoryName: new(repo.Name),
		// Also when there are none: the AWS CLI, which collects the findings of all pages, cannot do without.
		ImageScanFindings: &types.ImageScanFindings{FindingSeverityCounts: s.Counts, ImageScanCompletedAt: optionalTime(s.Completed), VulnerabilitySourceUpdatedAt: optionalTime(s.SourceUpdated)},
	}
	if p.enhanced {
		out.ImageScanFindings.EnhancedFindings = []types.EnhancedImageScanFinding{}
	} else {
		out.ImageScanFindings.Findings = []types.ImageScanFinding{}
	}
	if s.Completed == nil {
		return out, nil
	}
	var list findings
	if err := r.readKept(ctx, s.Findings, &list); err != nil {
		return nil, fmt.Errorf("read findings: %w", err)
	}
	page, next, err := api.Page(ctx, r.pages, in, api.PageSize(in.MaxResults, findingsPage, findingsMost), func(after string) iter.Seq[finding] {
		return func(yield func(finding) bool) {
			for _, f := range list.Findings {
				// What is suppressed has a status in enhanced scanning; in basic scanning there is no place for it.
				if f.key() > after && (p.enhanced || f.Suppressed == "") && !yield(f) {
					return
				}
			}
		}
	}, finding.key)
	if err != nil {
		return nil, err
	}
	out.NextToken = next
	if p.enhanced {
		for _, f := range page {
			out.ImageScanFindings.EnhancedFindings = append(out.ImageScanFindings.EnhancedFindings, f.enhanced(v, repo, m, s, list.Source))
		}
		return out, nil
	}
	for _, f := range page {
		out.ImageScanFindings.Findings = append(out.ImageScanFindings.Findings, f.basic())
	}
	return out, nil
}

func orNull(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// key sorts as the findings do: the worst first.
func (f finding) key() string {
	return fmt.Sprintf("%d %05.1f %s", 9-f.Severity.Rank(), 100-f.Score, f.ID)
}

// The limits of ECR on attributes.
const (
	maxAttributes     = 50
	maxAttributeValue = 256
)

// basic is the finding in the shape of basic scanning. One that is about several packages names each.
func (f finding) basic() types.ImageScanFinding {
	out := types.ImageScanFinding{Name: new(f.ID), Severity: types.FindingSeverity(f.Severity), Description: optional(f.Description), Uri: optional(f.URL), Attributes: []types.Attribute{}}
	add := func(key, value string) {
		if value != "" && len(out.Attributes) < maxAttributes {
			out.Attributes = append(out.Attributes, types.Attribute{Key: &key, Value: new(value[:min(len(value), maxAttributeValue)])})
		}
	}
	if f.Score > 0 {
		version := "CVSS3"
		if strings.HasPrefix(f.Vector, "CVSS:4.") {
			version = "CVSS4"
		}
		add(version+"_SCORE", strconv.FormatFloat(f.Score, 'f', 1, 64))
		add(version+"_VECTOR", f.Vector)
	}
	seen := map[[2]string]bool{}
	for _, p := range f.Packages {
		name, version := p.Source, p.Origin // as vulnerability databases have it
		if name == "" {
			name, version = p.Name, p.Version
		}
		if seen[[2]string{name, version}] {
			continue
		}
		seen[[2]string{name, version}] = true
		add("package_name", name)
		add("package_version", version)
		add("fixed_version", p.FixedIn)
	}
	return out
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// enhanced is the finding in the shape that Amazon Inspector's have.
func (f finding) enhanced(v state.Reader, repo *Repository, m *Manifest, s *Scan, source string) types.EnhancedImageScanFinding {
	details := &types.PackageVulnerabilityDetails{
		VulnerabilityId: new(f.ID), Source: optional(source), SourceUrl: optional(f.URL), VendorSeverity: new(string(f.Severity)), ReferenceUrls: append([]string{}, f.References...),
		RelatedVulnerabilities: append([]string{}, f.Related...), VendorCreatedAt: knownTime(f.Published), VendorUpdatedAt: knownTime(f.Modified), Cvss: []types.CvssScore{},
	}
	out := types.EnhancedImageScanFinding{
		AwsAccountId: new(repo.Account), Description: optional(f.Description), FirstObservedAt: optionalTime(s.First), LastObservedAt: optionalTime(s.Completed),
		UpdatedAt: optionalTime(s.Completed), FindingArn: new(arn.New("inspector2", repo.Region, repo.Account, "finding/"+id.UUIDOf(s.Repository+s.Digest+f.ID)).String()),
		Severity: new(string(f.Severity)), Status: new("ACTIVE"), Type: new("PACKAGE_VULNERABILITY"), PackageVulnerabilityDetails: details,
		Remediation: &types.Remediation{Recommendation: &types.Recommendation{Text: new("None Provided")}}, ExploitAvailable: new("NO"),
	}
	if f.Suppressed != "" {
		out.Status = new("SUPPRESSED")
	}
	if f.Score > 0 {
		version := strings.TrimPrefix(strings.SplitN(f.Vector, "/", 2)[0], "CVSS:")
		details.Cvss = append(details.Cvss, types.CvssScore{BaseScore: f.Score, ScoringVector: optional(f.Vector), Source: optional(source), Version: optional(version)})
		out.Score = f.Score
		out.ScoreDetails = &types.ScoreDetails{Cvss: &types.CvssScoreDetails{Score: f.Score, ScoreSource: optional(source), ScoringVector: optional(f.Vector), Version: optional(version)}}
	}
	fixed := 0
	var names []string
	for _, p := range f.Packages {
		if p.FixedIn != "" {
			fixed++
		}
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
		details.VulnerablePackages = append(details.VulnerablePackages, types.VulnerablePackage{
			Name: new(p.Name), Version: optional(p.Version), Arch: optional(p.Arch), PackageManager: optional(p.Manager), FilePath: optional(p.Path),
			SourceLayerHash: optional(p.Layer), FixedInVersion: optional(p.FixedIn),
		})
	}
	out.Title = new(f.ID + " - " + strings.Join(names, ", "))
	switch fixed {
	case 0:
		out.FixAvailable = new("NO")
	case len(f.Packages):
		out.FixAvailable = new("YES")
	default:
		out.FixAvailable = new("PARTIAL")
	}
	out.Resources = []types.Resource{{
		Id: new(repo.arn() + "/" + m.Digest), Type: new("AWS_ECR_CONTAINER_IMAGE"),
		Details: &types.ResourceDetails{AwsEcrContainerImage: &types.AwsEcrContainerImageDetails{
			ImageHash: new(m.Digest), ImageTags: tagsOf(v, m), PushedAt: new(m.Pushed.AsTime()), Registry: new(repo.Account), RepositoryName: new(repo.Name),
		}},
	}}
	return out
}

func knownTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// putImageScanningConfiguration implements ecr:PutImageScanningConfiguration.
func (r *Registry) putImageScanningConfiguration(ctx context.Context, in *ecr.PutImageScanningConfigurationInput) (*ecr.PutImageScanningConfigurationOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		now, err := repo.still(tx)
		if err != nil {
			return err
		}
		repo = proto.CloneOf(now)
		repo.ScanOnPush = in.ImageScanningConfiguration.ScanOnPush
		Repositories.Put(tx, repo)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutImageScanningConfigurationOutput{ImageScanningConfiguration: in.ImageScanningConfiguration, RegistryId: new(repo.Account), RepositoryName: new(repo.Name)}, nil
}

// scanFrequencies are what rules of a scan type may ask for.
var scanFrequencies = map[types.ScanType][]types.ScanFrequency{
	types.ScanTypeBasic:    {types.ScanFrequencyScanOnPush, types.ScanFrequencyManual},
	types.ScanTypeEnhanced: {types.ScanFrequencyScanOnPush, types.ScanFrequencyContinuousScan},
}

// putRegistryScanningConfiguration implements ecr:PutRegistryScanningConfiguration. Continuous scanning concerns the images that are there, too.
func (r *Registry) putRegistryScanningConfiguration(ctx context.Context, in *ecr.PutRegistryScanningConfigurationInput) (*ecr.PutRegistryScanningConfigurationOutput, error) {
	c := api.CallFrom(ctx)
	config := &types.RegistryScanningConfiguration{ScanType: in.ScanType, Rules: append([]types.RegistryScanningRule{}, in.Rules...)}
	if config.ScanType == "" {
		config.ScanType = types.ScanTypeBasic
	}
	seen := map[types.ScanFrequency]bool{}
	for _, rule := range config.Rules {
		if !slices.Contains(scanFrequencies[config.ScanType], rule.ScanFrequency) {
			return nil, invalidParameter("rules", fmt.Sprintf("the scan frequency %s is not one of scan type %s", rule.ScanFrequency, config.ScanType))
		}
		if seen[rule.ScanFrequency] {
			return nil, invalidParameter("rules", fmt.Sprintf("there is one rule at most for the scan frequency %s", rule.ScanFrequency))
		}
		seen[rule.ScanFrequency] = true
	}
	err := r.changeRegistry(ctx, c.Account, c.Region, func(s *RegistrySettings) error {
		s.ScanningJson = controlplane.EncodeShape(*config)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutRegistryScanningConfigurationOutput{RegistryScanningConfiguration: config}, nil
}

// getRegistryScanningConfiguration implements ecr:GetRegistryScanningConfiguration.
func (r *Registry) getRegistryScanningConfiguration(ctx context.Context, _ *ecr.GetRegistryScanningConfigurationInput) (*ecr.GetRegistryScanningConfigurationOutput, error) {
	c := api.CallFrom(ctx)
	return &ecr.GetRegistryScanningConfigurationOutput{RegistryId: new(c.Account), ScanningConfiguration: registryRecord(r.Store.View(), c.Account, c.Region).scanning()}, nil
}

// batchGetRepositoryScanningConfiguration implements ecr:BatchGetRepositoryScanningConfiguration.
func (r *Registry) batchGetRepositoryScanningConfiguration(ctx context.Context, in *ecr.BatchGetRepositoryScanningConfigurationInput) (*ecr.BatchGetRepositoryScanningConfigurationOutput, error) {
	c := api.CallFrom(ctx)
	v := r.Store.View()
	config := registryRecord(v, c.Account, c.Region).scanning()
	out := &ecr.BatchGetRepositoryScanningConfigurationOutput{ScanningConfigurations: []types.RepositoryScanningConfiguration{}, Failures: []types.RepositoryScanningConfigurationFailure{}}
	for _, name := range in.RepositoryNames {
		repo, err := repository(v, c.Account, c.Region, name)
		if awserr.Is(err, "RepositoryNotFoundException") {
			out.Failures = append(out.Failures, types.RepositoryScanningConfigurationFailure{FailureCode: types.ScanningConfigurationFailureCodeRepositoryNotFound,
				FailureReason: new(err.(*awserr.Error).Message), RepositoryName: &name})
			continue
		}
		if err != nil {
			return nil, err
		}
		p := planOf(config, repo)
		out.ScanningConfigurations = append(out.ScanningConfigurations, types.RepositoryScanningConfiguration{
			AppliedScanFilters: append([]types.ScanningRepositoryFilter{}, p.filters...), RepositoryArn: new(repo.arn()), RepositoryName: new(repo.Name),
			ScanFrequency: p.frequency, ScanOnPush: p.frequency != types.ScanFrequencyManual,
		})
	}
	return out, nil
}
