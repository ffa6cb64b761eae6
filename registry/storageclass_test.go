package registry_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

func (b *bench) setClass(repo, tag string, class types.TargetStorageClass) *ecr.UpdateImageStorageClassOutput {
	b.t.Helper()
	return must[ecr.UpdateImageStorageClassOutput](b, &ecr.UpdateImageStorageClassInput{RepositoryName: &repo, ImageId: &types.ImageIdentifier{ImageTag: &tag}, TargetStorageClass: class})
}

func TestUpdateImageStorageClass(t *testing.T) {
	b := newBench(t)
	b.create("users")
	d := b.pushImage("users", "v1", "1")
	b.pushImage("users", "v2", "2")
	layer := string(blob.Sum([]byte("1")))
	archived := b.clock.Now()
	if out := b.setClass("users", "v1", types.TargetStorageClassArchive); out.ImageStatus != types.ImageStatusArchived || *out.ImageId.ImageDigest != string(d) || *out.ImageId.ImageTag != "v1" {
		t.Errorf("%+v", out)
	}
	b.clock.Advance(time.Minute)
	b.setClass("users", "v1", types.TargetStorageClassArchive) // changes nothing

	// It cannot be pulled, is not among the active images, and is described when asked for.
	if a := b.want(404, "GET", "/v2/users/manifests/v1", nil); a.code() != "MANIFEST_UNKNOWN" {
		t.Error(a.body)
	}
	b.want(404, "HEAD", "/v2/users/manifests/"+string(d), nil)
	got := must[ecr.BatchGetImageOutput](b, &ecr.BatchGetImageInput{RepositoryName: new("users"), ImageIds: []types.ImageIdentifier{{ImageTag: new("v1")}}})
	if len(got.Images) != 0 || got.Failures[0].FailureCode != types.ImageFailureCodeImageNotFound {
		t.Errorf("%+v", got)
	}
	for status, want := range map[types.ImageStatusFilter][]string{"": {"v2"}, "ACTIVE": {"v2"}, "ARCHIVED": {"v1"}, "ACTIVATING": nil, "ANY": {"v1", "v2"}} {
		var described, listed []string
		for _, i := range must[ecr.DescribeImagesOutput](b, &ecr.DescribeImagesInput{RepositoryName: new("users"), Filter: &types.DescribeImagesFilter{ImageStatus: status}}).ImageDetails {
			described = append(described, i.ImageTags...)
		}
		for _, i := range must[ecr.ListImagesOutput](b, &ecr.ListImagesInput{RepositoryName: new("users"), Filter: &types.ListImagesFilter{ImageStatus: status}}).ImageIds {
			listed = append(listed, *i.ImageTag)
		}
		slices.Sort(described)
		slices.Sort(listed)
		if !slices.Equal(described, want) || !slices.Equal(listed, want) {
			t.Errorf("%q: described %v, listed %v, want %v", status, described, listed, want)
		}
	}
	detail := func() types.ImageDetail {
		return must[ecr.DescribeImagesOutput](b, &ecr.DescribeImagesInput{RepositoryName: new("users"), ImageIds: []types.ImageIdentifier{{ImageTag: new("v1")}}}).ImageDetails[0]
	}
	if i := detail(); i.ImageStatus != types.ImageStatusArchived || !i.LastArchivedAt.Equal(archived) || i.LastActivatedAt != nil {
		t.Errorf("%+v", i)
	}
	check := func() types.LayerAvailability {
		return must[ecr.BatchCheckLayerAvailabilityOutput](b, &ecr.BatchCheckLayerAvailabilityInput{RepositoryName: new("users"), LayerDigests: []string{layer}}).Layers[0].LayerAvailability
	}
	if a := check(); a != types.LayerAvailabilityArchived {
		t.Errorf("its layer is %s", a)
	}

	// Restored, and archived again and pushed again.
	if out := b.setClass("users", "v1", types.TargetStorageClassStandard); out.ImageStatus != types.ImageStatusActive {
		t.Errorf("%+v", out)
	}
	b.want(200, "GET", "/v2/users/manifests/v1", nil)
	if i := detail(); i.ImageStatus != types.ImageStatusActive || !i.LastActivatedAt.Equal(b.clock.Now()) || check() != types.LayerAvailabilityAvailable {
		t.Errorf("%+v, layer %s", i, check())
	}
	b.setClass("users", "v1", types.TargetStorageClassArchive)
	b.pushImage("users", "v1", "1")
	b.want(200, "GET", "/v2/users/manifests/v1", nil)

	b.setClass("users", "v1", types.TargetStorageClassArchive)
	m := manifestText("1")
	must[ecr.PutImageOutput](b, &ecr.PutImageInput{RepositoryName: new("users"), ImageManifest: &m, ImageTag: new("v1")})
	b.want(200, "GET", "/v2/users/manifests/v1", nil)

	for _, tc := range []struct {
		id   types.ImageIdentifier
		want string
	}{
		{types.ImageIdentifier{}, "InvalidParameterException: Invalid parameter at 'imageId' failed to satisfy constraint: 'Invalid request parameters: both tag and digest cannot be null'"},
		{types.ImageIdentifier{ImageTag: new("nope")}, "ImageNotFoundException: The image with imageId {imageDigest:'null', imageTag:'nope'} does not exist within the repository with name 'users' in the registry with id '000000000000'"},
		{types.ImageIdentifier{ImageTag: new("v2"), ImageDigest: new(string(d))}, "ImageNotFoundException: The image with imageId {imageDigest:'" + string(d) + "', imageTag:'v2'} does not exist within the repository with name 'users' in the registry with id '000000000000'"},
	} {
		refused[ecr.UpdateImageStorageClassOutput](b, &ecr.UpdateImageStorageClassInput{RepositoryName: new("users"), ImageId: &tc.id, TargetStorageClass: "ARCHIVE"}, tc.want)
	}
}

// TestArchiveIndex: images of an index that is not archived stay out of the archive.
func TestArchiveIndex(t *testing.T) {
	b := newBench(t)
	b.create("users")
	child := b.pushImage("users", "child", "1")
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{desc(ociManifest, child, len(manifestText("1")))}})
	b.want(201, "PUT", "/v2/users/manifests/multi", index, mediaType(ociIndex))
	refused[ecr.UpdateImageStorageClassOutput](b, &ecr.UpdateImageStorageClassInput{RepositoryName: new("users"), ImageId: &types.ImageIdentifier{ImageTag: new("child")}, TargetStorageClass: "ARCHIVE"},
		"ImageStorageClassUpdateNotSupportedException: Requested image referenced by manifest list: ["+string(blob.Sum([]byte(index)))+"]")
	b.setClass("users", "multi", types.TargetStorageClassArchive)
	b.setClass("users", "child", types.TargetStorageClassArchive)
}

// TestLifecycleArchives: what nobody pulls goes to the archive, and from there after 90 days for good.
func TestLifecycleArchives(t *testing.T) {
	b := newBench(t)
	b.create("users")
	b.pushImage("users", "v1", "1")
	b.pushImage("users", "v2", "2")
	b.putPolicy("users", new(`{"rules":[
		{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":30},"action":{"type":"transition","targetStorageClass":"archive"}},
		{"rulePriority":2,"selection":{"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned","countUnit":"days","countNumber":90},"action":{"type":"expire"}}]}`))
	b.age(29 * 24 * time.Hour)
	b.want(200, "GET", "/v2/users/manifests/v2", nil)
	if err := b.reg.RecordPulls(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.restart()
	b.age(2 * 24 * time.Hour)
	must[ecr.StartLifecyclePolicyPreviewOutput](b, &ecr.StartLifecyclePolicyPreviewInput{RepositoryName: new("users")})
	p := must[ecr.GetLifecyclePolicyPreviewOutput](b, &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: new("users")})
	if len(p.PreviewResults) != 1 || p.PreviewResults[0].Action.TargetStorageClass != "ARCHIVE" || *p.Summary.TransitioningImageTotalCounts[0].ImageTotalCount != 1 || *p.Summary.ExpiringImageTotalCount != 0 {
		t.Errorf("%+v", p)
	}
	if done := b.applyPolicies(); done.Archived != 1 || done.Expired != 0 {
		t.Errorf("%+v", done)
	}
	b.want(404, "GET", "/v2/users/manifests/v1", nil)
	b.want(200, "GET", "/v2/users/manifests/v2", nil)
	b.age(91 * 24 * time.Hour)
	if done := b.applyPolicies(); done.Archived != 1 || done.Expired != 1 {
		t.Errorf("%+v", done)
	}
}

func TestListImageReferrers(t *testing.T) {
	b := newBench(t)
	b.create("users")
	subject := b.pushImage("users", "v1", "1")
	config := b.pushBlob("users", "{}")
	want := map[string]string{}
	for i := range 5 {
		kind := fmt.Sprint("application/x.kind", i%2)
		m := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "artifactType": kind, "annotations": map[string]string{"n": fmt.Sprint(i)},
			"config": desc("application/vnd.oci.empty.v1+json", config, 2), "layers": []any{}, "subject": desc(ociManifest, subject, len(manifestText("1")))})
		b.want(201, "PUT", fmt.Sprint("/v2/users/manifests/a", i), m, mediaType(ociManifest))
		want[string(blob.Sum([]byte(m)))] = kind
	}
	list := func(filter *types.ListImageReferrersFilter, page *int32) map[string]string {
		got := map[string]string{}
		in := &ecr.ListImageReferrersInput{RepositoryName: new("users"), SubjectId: &types.SubjectIdentifier{ImageDigest: new(string(subject))}, Filter: filter, MaxResults: page}
		for {
			out := must[ecr.ListImageReferrersOutput](b, in)
			for _, r := range out.Referrers {
				got[*r.Digest] = *r.ArtifactType
				if *r.MediaType != ociManifest || r.Annotations["n"] == "" || *r.Size == 0 || r.ArtifactStatus == "" {
					t.Errorf("%+v", r)
				}
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return got
			}
		}
	}
	for _, page := range []*int32{nil, new(int32(1)), new(int32(2))} {
		if d := cmp.Diff(want, list(nil, page)); d != "" {
			t.Error(d)
		}
	}
	if got := list(&types.ListImageReferrersFilter{ArtifactTypes: []string{"application/x.kind1"}}, new(int32(1))); len(got) != 2 {
		t.Errorf("by type: %v", got)
	}
	b.setClass("users", "a0", types.TargetStorageClassArchive)
	if n, archived, all := len(list(nil, nil)), len(list(&types.ListImageReferrersFilter{ArtifactStatus: "ARCHIVED"}, nil)), len(list(&types.ListImageReferrersFilter{ArtifactStatus: "ANY"}, nil)); n != 4 || archived != 1 || all != 5 {
		t.Errorf("%d active, %d archived, %d in all", n, archived, all)
	}
	refused[ecr.ListImageReferrersOutput](b, &ecr.ListImageReferrersInput{RepositoryName: new("users"), SubjectId: &types.SubjectIdentifier{ImageDigest: new("x")}},
		`InvalidParameterException: Invalid parameter at 'subjectId.imageDigest' failed to satisfy constraint: '"x" is not a digest (algorithm:hex)'`)
}

func TestAccountSettings(t *testing.T) {
	b := newBench(t)
	b.create("from", "to")
	d := b.pushBlob("from", "layer")
	get := func(name string) string {
		return *must[ecr.GetAccountSettingOutput](b, &ecr.GetAccountSettingInput{Name: &name}).Value
	}
	for name, want := range map[string]string{"BASIC_SCAN_TYPE_VERSION": "AWS_NATIVE", "REGISTRY_POLICY_SCOPE": "V2", "BLOB_MOUNTING": "ENABLED"} {
		if got := get(name); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
	must[ecr.PutAccountSettingOutput](b, &ecr.PutAccountSettingInput{Name: new("BLOB_MOUNTING"), Value: new("DISABLED")})
	if got := get("BLOB_MOUNTING"); got != "DISABLED" {
		t.Errorf("set and %s", got)
	}
	mount := "/v2/to/blobs/uploads/?from=from&mount=" + string(d)
	b.want(202, "POST", mount, nil)
	must[ecr.PutAccountSettingOutput](b, &ecr.PutAccountSettingInput{Name: new("BLOB_MOUNTING"), Value: new("ENABLED")})
	b.want(201, "POST", mount, nil)
	refused[ecr.GetAccountSettingOutput](b, &ecr.GetAccountSettingInput{Name: new("X")},
		"InvalidParameterException: Invalid parameter at 'name' failed to satisfy constraint: 'must be one of BASIC_SCAN_TYPE_VERSION, BLOB_MOUNTING, REGISTRY_POLICY_SCOPE'")
	refused[ecr.PutAccountSettingOutput](b, &ecr.PutAccountSettingInput{Name: new("REGISTRY_POLICY_SCOPE"), Value: new("V3")},
		"InvalidParameterException: Invalid parameter at 'value' failed to satisfy constraint: 'REGISTRY_POLICY_SCOPE must be one of V2, V1'")
}

func TestPullTimeUpdateExclusions(t *testing.T) {
	who := api.Identity{Account: account, ARN: "arn:aws:iam::000000000000:user/scanner"}
	b := newBench(t, func(c *registry.Config) { c.Credentials = anyone(&who) })
	b.create("users")
	b.pushImage("users", "v1", "1")
	pulled := func(as string) bool {
		who.ARN = as
		b.restart() // forgets pulls
		b.want(200, "GET", "/v2/users/manifests/v1", nil, basic("k", "s"))
		return must[ecr.DescribeImagesOutput](b, &ecr.DescribeImagesInput{RepositoryName: new("users")}).ImageDetails[0].LastRecordedPullTime != nil
	}
	user, role := "arn:aws:iam::000000000000:user/scanner", "arn:aws:iam::000000000000:role/path/scan"
	for _, p := range []string{user, role} {
		must[ecr.RegisterPullTimeUpdateExclusionOutput](b, &ecr.RegisterPullTimeUpdateExclusionInput{PrincipalArn: &p})
	}
	refused[ecr.RegisterPullTimeUpdateExclusionOutput](b, &ecr.RegisterPullTimeUpdateExclusionInput{PrincipalArn: &user},
		"ExclusionAlreadyExistsException: The pull time update exclusion with principal ARN '"+user+"' already exists in the registry with id '000000000000'")
	if got := must[ecr.ListPullTimeUpdateExclusionsOutput](b, &ecr.ListPullTimeUpdateExclusionsInput{}).PullTimeUpdateExclusions; !slices.Equal(got, []string{role, user}) {
		t.Errorf("%v", got)
	}
	for as, want := range map[string]bool{
		user: false, "arn:aws:sts::000000000000:assumed-role/scan/session": false,
		"arn:aws:iam::000000000000:user/other": true, "arn:aws:sts::000000000000:assumed-role/other/session": true, "arn:aws:sts::111111111111:assumed-role/scan/session": true,
	} {
		if got := pulled(as); got != want {
			t.Errorf("pulled by %s: recorded %v", as, got)
		}
	}
	must[ecr.DeregisterPullTimeUpdateExclusionOutput](b, &ecr.DeregisterPullTimeUpdateExclusionInput{PrincipalArn: &user})
	refused[ecr.DeregisterPullTimeUpdateExclusionOutput](b, &ecr.DeregisterPullTimeUpdateExclusionInput{PrincipalArn: &user},
		"ExclusionNotFoundException: The pull time update exclusion with principal ARN '"+user+"' does not exist in the registry with id '000000000000'")
	if !pulled(user) {
		t.Error("still excluded")
	}
	for i := range 99 {
		must[ecr.RegisterPullTimeUpdateExclusionOutput](b, &ecr.RegisterPullTimeUpdateExclusionInput{PrincipalArn: new(fmt.Sprint("arn:aws:iam::000000000000:user/u", i))})
	}
	refused[ecr.RegisterPullTimeUpdateExclusionOutput](b, &ecr.RegisterPullTimeUpdateExclusionInput{PrincipalArn: &user},
		"LimitExceededException: The registry with id '000000000000' has 100 pull time update exclusions already, which is the limit")
}

// TestMutabilityExclusions: what the filters match behaves the other way round.
func TestMutabilityExclusions(t *testing.T) {
	for mutability, want := range map[types.ImageTagMutability]map[string]int{
		"IMMUTABLE_WITH_EXCLUSION": {"dev-1": 201, "latest": 201, "v1": 400},
		"MUTABLE_WITH_EXCLUSION":   {"dev-1": 400, "latest": 400, "v1": 201},
	} {
		b := newBench(t)
		b.create("users")
		must[ecr.PutImageTagMutabilityOutput](b, &ecr.PutImageTagMutabilityInput{RepositoryName: new("users"), ImageTagMutability: mutability, ImageTagMutabilityExclusionFilters: filters("dev*", "latest")})
		for tag, status := range want {
			b.pushImage("users", tag, "1")
			b.want(status, "PUT", "/v2/users/manifests/"+tag, b.imageOf("users", configOf("2"), "2"), mediaType(ociManifest))
		}
	}
	b := newBench(t)
	b.create("users")
	refused[ecr.PutImageTagMutabilityOutput](b, &ecr.PutImageTagMutabilityInput{RepositoryName: new("users"), ImageTagMutability: "IMMUTABLE_WITH_EXCLUSION", ImageTagMutabilityExclusionFilters: filters("a*b*c*")},
		`InvalidParameterException: Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint: 'a filter has at most 2 wildcards, "a*b*c*" has 3'`)
	for _, m := range []types.ImageTagMutability{"IMMUTABLE", "MUTABLE"} {
		refused[ecr.PutImageTagMutabilityOutput](b, &ecr.PutImageTagMutabilityInput{RepositoryName: new("users"), ImageTagMutability: m, ImageTagMutabilityExclusionFilters: filters("a*")},
			"InvalidParameterException: Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint: 'exclusion filters are given exactly when imageTagMutability is IMMUTABLE_WITH_EXCLUSION or MUTABLE_WITH_EXCLUSION'")
	}
}
