package registry_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed-2f228079/neargate/storage/blob"
)

// ignore drops what the SDK's types carry beside their members.
var ignore = cmp.Options{
	cmpopts.IgnoreUnexported(types.Repository{}, types.ImageDetail{}, types.ImageIdentifier{}, types.ImageFailure{}, types.EncryptionConfiguration{}, types.ImageScanningConfiguration{}, types.Layer{}, types.LayerFailure{}, types.Tag{}),
}

// refused runs an operation that has to fail, and compares code and message.
func refused[O any](b *bench, in any, want string) {
	b.t.Helper()
	out, err := call[O](b, account, region, in)
	if err == nil {
		b.t.Errorf("%T answered %+v, want %s", in, out, want)
	} else if err.Error() != want {
		b.t.Errorf("%T: %v\nwant %s", in, err, want)
	}
}

func must[O any](b *bench, in any) *O {
	b.t.Helper()
	out, err := call[O](b, account, region, in)
	if err != nil {
		b.t.Fatalf("%T: %v", in, err)
	}
	return out
}

func TestRepositories(t *testing.T) {
	b := newBench(t)
	now := b.clock.Now()
	got := must[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: new("team/users")}).Repository
	want := &types.Repository{
		CreatedAt: &now, EncryptionConfiguration: &types.EncryptionConfiguration{EncryptionType: "AES256"},
		ImageScanningConfiguration: &types.ImageScanningConfiguration{}, ImageTagMutability: "MUTABLE", RegistryId: new(account),
		RepositoryArn: new("arn:aws:ecr:us-east-1:000000000000:repository/team/users"), RepositoryName: new("team/users"),
		RepositoryUri: new(b.host() + "/team/users"),
	}
	if d := cmp.Diff(want, got, ignore); d != "" {
		t.Error(d)
	}
	refused[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: new("team/users")},
		"RepositoryAlreadyExistsException: The repository with name 'team/users' already exists in the registry with id '000000000000'")
	for _, name := range []string{"Users", "a", "a//b", "/ab", "ab/", "a_-b", "../ab", "ab:v1", strings.Repeat("a", 257)} {
		if _, err := call[ecr.CreateRepositoryOutput](b, account, region, &ecr.CreateRepositoryInput{RepositoryName: &name}); err == nil || !strings.HasPrefix(err.Error(), "InvalidParameterException: Invalid parameter at 'repositoryName'") {
			t.Errorf("%q: %v", name, err)
		}
	}
	refused[ecr.DescribeRepositoriesOutput](b, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{"team/users", "nope"}},
		"RepositoryNotFoundException: The repository with name 'nope' does not exist in the registry with id '000000000000'")
	refused[ecr.DescribeRepositoriesOutput](b, &ecr.DescribeRepositoriesInput{RegistryId: new("111111111111")},
		"AccessDeniedException: User: arn:aws:iam::000000000000:root is not authorized to perform: ecr:DescribeRepositories on the registry with id '111111111111' because no resource-based policy allows the ecr:DescribeRepositories action")

	b.create("aa", "bb", "cc", "dd")
	var names []string
	in := &ecr.DescribeRepositoriesInput{MaxResults: new(int32(2))}
	for {
		out := must[ecr.DescribeRepositoriesOutput](b, in)
		for _, r := range out.Repositories {
			names = append(names, *r.RepositoryName)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if !slices.Equal(names, []string{"aa", "bb", "cc", "dd", "team/users"}) {
		t.Errorf("paged: %v", names)
	}

	b.pushImage("aa", "v1", "x")
	refused[ecr.DeleteRepositoryOutput](b, &ecr.DeleteRepositoryInput{RepositoryName: new("aa")},
		"RepositoryNotEmptyException: The repository with name 'aa' in registry with id '000000000000' cannot be deleted because it still contains images")
	must[ecr.DeleteRepositoryOutput](b, &ecr.DeleteRepositoryInput{RepositoryName: new("aa"), Force: true})
	refused[ecr.DeleteRepositoryOutput](b, &ecr.DeleteRepositoryInput{RepositoryName: new("aa")},
		"RepositoryNotFoundException: The repository with name 'aa' does not exist in the registry with id '000000000000'")
	b.create("aa") // a new one of the name has nothing of the old
	if out := must[ecr.ListImagesOutput](b, &ecr.ListImagesInput{RepositoryName: new("aa")}); len(out.ImageIds) != 0 {
		t.Errorf("a new repository contains %v", out.ImageIds)
	}
	b.want(404, "GET", "/v2/aa/manifests/v1", nil)
}

func TestImages(t *testing.T) {
	b := newBench(t)
	b.create("users")
	pushed := b.clock.Now()
	one := b.pushImage("users", "v1", "one")
	b.pushImage("users", "latest", "one")
	two := b.pushImage("users", "v2", "two")
	three := b.pushImage("users", "v2", "three") // takes the tag from two
	b.clock.Advance(time.Hour)
	b.want(200, "GET", "/v2/users/manifests/v1", nil)

	details := must[ecr.DescribeImagesOutput](b, &ecr.DescribeImagesInput{RepositoryName: new("users"), ImageIds: []types.ImageIdentifier{{ImageTag: new("v1")}}}).ImageDetails
	want := []types.ImageDetail{{
		ArtifactMediaType: new(ociConfig), ImageDigest: new(string(one)), ImageManifestMediaType: new(ociManifest), ImagePushedAt: &pushed,
		ImageSizeInBytes: new(int64(len(`{"config":"one"}`) + len("one"))), ImageStatus: "ACTIVE", ImageTags: []string{"latest", "v1"},
		RegistryId: new(account), RepositoryName: new("users"), LastRecordedPullTime: new(b.clock.Now()),
	}}
	if d := cmp.Diff(want, details, ignore); d != "" {
		t.Error(d)
	}
	refused[ecr.DescribeImagesOutput](b, &ecr.DescribeImagesInput{RepositoryName: new("users"), ImageIds: []types.ImageIdentifier{{ImageTag: new("nope")}}},
		"ImageNotFoundException: The image with imageId {imageDigest:'null', imageTag:'nope'} does not exist within the repository with name 'users' in the registry with id '000000000000'")

	all := []types.ImageIdentifier{
		{ImageDigest: new(string(one)), ImageTag: new("latest")}, {ImageDigest: new(string(one)), ImageTag: new("v1")},
		{ImageDigest: new(string(two))}, {ImageDigest: new(string(three)), ImageTag: new("v2")},
	}
	slices.SortStableFunc(all, func(a, b types.ImageIdentifier) int { return strings.Compare(*a.ImageDigest, *b.ImageDigest) })
	for _, max := range []int32{1, 2, 3, 100} {
		var got []types.ImageIdentifier
		in := &ecr.ListImagesInput{RepositoryName: new("users"), MaxResults: &max}
		for {
			out := must[ecr.ListImagesOutput](b, in)
			got = append(got, out.ImageIds...)
			if in.NextToken = out.NextToken; in.NextToken == nil {
				break
			}
		}
		if d := cmp.Diff(all, got, ignore); d != "" {
			t.Errorf("pages of %d: %s", max, d)
		}
	}
	untagged := must[ecr.ListImagesOutput](b, &ecr.ListImagesInput{RepositoryName: new("users"), Filter: &types.ListImagesFilter{TagStatus: "UNTAGGED"}}).ImageIds
	if d := cmp.Diff([]types.ImageIdentifier{{ImageDigest: new(string(two))}}, untagged, ignore); d != "" {
		t.Error(d)
	}

	got := must[ecr.BatchGetImageOutput](b, &ecr.BatchGetImageInput{RepositoryName: new("users"), ImageIds: []types.ImageIdentifier{
		{ImageTag: new("v1")}, {}, {ImageDigest: new("x")}, {ImageTag: new("nope")}, {ImageTag: new("v1"), ImageDigest: new(string(two))},
	}})
	if len(got.Images) != 1 || blob.Sum([]byte(*got.Images[0].ImageManifest)) != one {
		t.Errorf("%+v", got.Images)
	}
	var codes []string
	for _, f := range got.Failures {
		codes = append(codes, string(f.FailureCode))
	}
	if !slices.Equal(codes, []string{"MissingDigestAndTag", "InvalidImageDigest", "ImageNotFound", "ImageTagDoesNotMatchDigest"}) {
		t.Errorf("%v", codes)
	}

	refused[ecr.PutImageOutput](b, &ecr.PutImageInput{RepositoryName: new("users"), ImageManifest: got.Images[0].ImageManifest, ImageTag: new("v1")},
		"ImageAlreadyExistsException: Image with digest '"+string(one)+"' and tag 'v1' already exists in the repository with name 'users' in registry with id '000000000000'")
	must[ecr.PutImageOutput](b, &ecr.PutImageInput{RepositoryName: new("users"), ImageManifest: got.Images[0].ImageManifest, ImageTag: new("v3")})
	b.want(200, "GET", "/v2/users/manifests/v3", nil)
}

// TestBatchDeleteImage: a tag is taken off its image, the last one takes the image along, a digest takes all tags, and a child
// of an index stays.
func TestBatchDeleteImage(t *testing.T) {
	b := newBench(t)
	b.create("users")
	one := b.pushImage("users", "v1", "one")
	b.pushImage("users", "latest", "one")
	child := b.pushImage("users", "child", "two")
	size := len(b.want(200, "GET", "/v2/users/manifests/child", nil).body)
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{desc(ociManifest, child, size)}})
	b.want(201, "PUT", "/v2/users/manifests/multi", index, mediaType(ociIndex))

	remove := func(ids ...types.ImageIdentifier) *ecr.BatchDeleteImageOutput {
		return must[ecr.BatchDeleteImageOutput](b, &ecr.BatchDeleteImageInput{RepositoryName: new("users"), ImageIds: ids})
	}
	out := remove(types.ImageIdentifier{ImageTag: new("v1")}, types.ImageIdentifier{ImageTag: new("v1")}, types.ImageIdentifier{ImageDigest: new(string(child))}, types.ImageIdentifier{ImageTag: new("child")})
	if d := cmp.Diff([]types.ImageIdentifier{{ImageDigest: new(string(one)), ImageTag: new("v1")}}, out.ImageIds, ignore); d != "" {
		t.Error(d)
	}
	inIndex := new("Requested image referenced by manifest list: [" + string(blob.Sum([]byte(index))) + "]")
	failures := []types.ImageFailure{
		{FailureCode: "ImageNotFound", FailureReason: new("Requested image not found"), ImageId: &types.ImageIdentifier{ImageTag: new("v1")}},
		{FailureCode: "ImageReferencedByManifestList", FailureReason: inIndex, ImageId: &types.ImageIdentifier{ImageDigest: new(string(child))}},
		{FailureCode: "ImageReferencedByManifestList", FailureReason: inIndex, ImageId: &types.ImageIdentifier{ImageTag: new("child")}},
	}
	if d := cmp.Diff(failures, out.Failures, ignore); d != "" {
		t.Error(d)
	}
	b.want(200, "GET", "/v2/users/manifests/child", nil)
	b.want(403, "DELETE", "/v2/users/manifests/"+string(child), nil)
	b.want(200, "GET", "/v2/users/manifests/"+string(one), nil)
	remove(types.ImageIdentifier{ImageTag: new("latest")})
	b.want(404, "GET", "/v2/users/manifests/"+string(one), nil)

	remove(types.ImageIdentifier{ImageTag: new("multi")})
	out = remove(types.ImageIdentifier{ImageDigest: new(string(child))})
	if d := cmp.Diff([]types.ImageIdentifier{{ImageDigest: new(string(child)), ImageTag: new("child")}}, out.ImageIds, ignore); d != "" {
		t.Error(d)
	}
}

// TestLayers pushes an image with the ECR API alone, and reads its layer by the URL that GetDownloadUrlForLayer gives.
func TestLayers(t *testing.T) {
	b := newBench(t)
	b.create("users")
	upload := func(content string) blob.Digest {
		u := must[ecr.InitiateLayerUploadOutput](b, &ecr.InitiateLayerUploadInput{RepositoryName: new("users")})
		half := len(content) / 2
		for _, part := range [][2]int{{0, half}, {half, len(content)}} {
			must[ecr.UploadLayerPartOutput](b, &ecr.UploadLayerPartInput{RepositoryName: new("users"), UploadId: u.UploadId,
				PartFirstByte: new(int64(part[0])), PartLastByte: new(int64(part[1] - 1)), LayerPartBlob: []byte(content[part[0]:part[1]])})
		}
		refused[ecr.UploadLayerPartOutput](b, &ecr.UploadLayerPartInput{RepositoryName: new("users"), UploadId: u.UploadId, PartFirstByte: new(int64(0)), PartLastByte: new(int64(0)), LayerPartBlob: []byte("x")},
			"InvalidLayerPartException: Layer part bytes 0-0 of 1 bytes do not follow the last valid byte 11 of the upload with id '"+*u.UploadId+"'")
		d := blob.Sum([]byte(content))
		must[ecr.CompleteLayerUploadOutput](b, &ecr.CompleteLayerUploadInput{RepositoryName: new("users"), UploadId: u.UploadId, LayerDigests: []string{string(d)}})
		return d
	}
	config, layer := upload("config-bytes"), upload("layers-bytes")
	m := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": desc(ociConfig, config, 12), "layers": []any{desc(ociLayer, layer, 12)}})
	none := string(blob.Sum([]byte("none")))
	checked := must[ecr.BatchCheckLayerAvailabilityOutput](b, &ecr.BatchCheckLayerAvailabilityInput{RepositoryName: new("users"), LayerDigests: []string{string(layer), none, "x"}})
	if len(checked.Layers) != 2 || checked.Layers[0].LayerAvailability != "AVAILABLE" || *checked.Layers[0].LayerSize != 12 || checked.Layers[1].LayerAvailability != "UNAVAILABLE" ||
		len(checked.Failures) != 1 || checked.Failures[0].FailureCode != "InvalidLayerDigest" {
		t.Errorf("%+v", checked)
	}
	must[ecr.PutImageOutput](b, &ecr.PutImageInput{RepositoryName: new("users"), ImageManifest: &m, ImageTag: new("v1")})
	url := must[ecr.GetDownloadUrlForLayerOutput](b, &ecr.GetDownloadUrlForLayerInput{RepositoryName: new("users"), LayerDigest: new(string(layer))}).DownloadUrl
	if got := b.want(200, "GET", *url, nil, anonymous()).body; got != "layers-bytes" {
		t.Errorf("downloaded %q", got)
	}
	b.want(401, "PUT", *url, "x", anonymous())
	refused[ecr.GetDownloadUrlForLayerOutput](b, &ecr.GetDownloadUrlForLayerInput{RepositoryName: new("users"), LayerDigest: &none},
		"LayersNotFoundException: The layer with digest '"+none+"' does not exist within the repository with name 'users' in the registry with id '000000000000'")
	refused[ecr.PutImageOutput](b, &ecr.PutImageInput{RepositoryName: new("users"), ImageManifest: new(strings.ReplaceAll(m, string(layer), none))},
		"LayersNotFoundException: The layer with digest '"+none+"' does not exist within the repository with name 'users' in the registry with id '000000000000'")
	refused[ecr.UploadLayerPartOutput](b, &ecr.UploadLayerPartInput{RepositoryName: new("users"), UploadId: new("x"), PartFirstByte: new(int64(0)), PartLastByte: new(int64(0)), LayerPartBlob: []byte("x")},
		"UploadNotFoundException: The upload with id 'x' does not exist within the repository with name 'users' in the registry with id '000000000000'")
}

func TestResourceTags(t *testing.T) {
	b := newBench(t)
	must[ecr.CreateRepositoryOutput](b, &ecr.CreateRepositoryInput{RepositoryName: new("users"), Tags: []types.Tag{{Key: new("team"), Value: new("a")}}})
	arn := new("arn:aws:ecr:us-east-1:000000000000:repository/users")
	must[ecr.TagResourceOutput](b, &ecr.TagResourceInput{ResourceArn: arn, Tags: []types.Tag{{Key: new("env"), Value: new("dev")}, {Key: new("team"), Value: new("b")}}})
	must[ecr.UntagResourceOutput](b, &ecr.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"env"}})
	list := func() []types.Tag {
		return must[ecr.ListTagsForResourceOutput](b, &ecr.ListTagsForResourceInput{ResourceArn: arn}).Tags
	}
	if d := cmp.Diff([]types.Tag{{Key: new("team"), Value: new("b")}}, list(), ignore); d != "" {
		t.Error(d)
	}
	must[ecr.DeleteRepositoryOutput](b, &ecr.DeleteRepositoryInput{RepositoryName: new("users")})
	b.create("users")
	if got := list(); len(got) != 0 {
		t.Errorf("a new repository has the old one's tags: %v", got)
	}
	refused[ecr.ListTagsForResourceOutput](b, &ecr.ListTagsForResourceInput{ResourceArn: new("arn:aws:ecr:us-east-1:000000000000:repository/nope")},
		"RepositoryNotFoundException: The repository with name 'nope' does not exist in the registry with id '000000000000'")
}

func TestPutImageTagMutability(t *testing.T) {
	b := newBench(t)
	b.create("users")
	b.pushImage("users", "v1", "one")
	must[ecr.PutImageTagMutabilityOutput](b, &ecr.PutImageTagMutabilityInput{RepositoryName: new("users"), ImageTagMutability: "IMMUTABLE"})
	refused[ecr.PutImageOutput](b, &ecr.PutImageInput{RepositoryName: new("users"), ImageManifest: new(b.imageOf("users", "{}", "two")), ImageTag: new("v1")},
		"ImageTagAlreadyExistsException: The image tag 'v1' already exists in the 'users' repository and cannot be overwritten because the tag is immutable.")
}
