package registry

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/blob"
)

func (r *Registry) describeImages(ctx context.Context, in *ecr.DescribeImagesInput) (*ecr.DescribeImagesOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	v := r.Store.View()
	out := &ecr.DescribeImagesOutput{ImageDetails: []types.ImageDetail{}}
	if len(in.ImageIds) > 0 {
		if in.NextToken != nil || in.MaxResults != nil {
			return nil, awserr.New("InvalidParameterException", "Invalid parameter: 'nextToken' and 'maxResults' cannot be used with 'imageIds'")
		}
		var seen []string
		for _, id := range in.ImageIds {
			m, err := image(v, repo, value(id.ImageDigest), value(id.ImageTag))
			if err != nil {
				return nil, err
			}
			if tag := value(id.ImageTag); tag != "" && !slices.Contains(tagsOf(v, m), tag) {
				return nil, imageNotFound(repo, m.Digest, tag)
			}
			if !slices.Contains(seen, m.Digest) {
				seen = append(seen, m.Digest)
				out.ImageDetails = append(out.ImageDetails, r.detail(v, repo, m))
			}
		}
		return out, nil
	}
	var filter types.DescribeImagesFilter
	if in.Filter != nil {
		filter = *in.Filter
	}
	page, next, err := api.Page(ctx, r.pages, in, api.PageSize(in.MaxResults, pageFallback, pageMost), func(after state.Key) iter.Seq[*Manifest] {
		return func(yield func(*Manifest) bool) {
			for m := range Manifests.ScanFrom(v, repo.in(), max(after, repo.in())) {
				if m.inStatus(filter.ImageStatus) && shows(filter.TagStatus, isTagged(v, m)) && !yield(m) {
					return
				}
			}
		}
	}, Manifests.Key)
	if err != nil {
		return nil, err
	}
	for _, m := range page {
		out.ImageDetails = append(out.ImageDetails, r.detail(v, repo, m))
	}
	out.NextToken = next
	return out, nil
}

func shows(status types.TagStatus, tagged bool) bool {
	switch status {
	case types.TagStatusTagged:
		return tagged
	case types.TagStatusUntagged:
		return !tagged
	}
	return true
}

func isTagged(v state.Reader, m *Manifest) bool {
	for range TagsByDigest.Scan(v, Manifests.Key(m)) {
		return true
	}
	return false
}

func (r *Registry) detail(v state.Reader, repo *Repository, m *Manifest) types.ImageDetail {
	d := types.ImageDetail{
		ImageDigest:            new(m.Digest),
		ImageManifestMediaType: new(m.MediaType),
		ImagePushedAt:          new(m.Pushed.AsTime()),
		ImageSizeInBytes:       new(int64(m.ImageSize)),
		ImageStatus:            m.status(),
		ImageTags:              tagsOf(v, m),
		RegistryId:             new(repo.Account),
		RepositoryName:         new(repo.Name),
		LastArchivedAt:         optionalTime(m.Archived),
		LastActivatedAt:        optionalTime(m.Activated),
	}
	if m.ArtifactType != "" {
		d.ArtifactMediaType = new(m.ArtifactType)
	}
	if m.Subject != "" {
		d.SubjectManifestDigest = new(m.Subject)
	}
	if t := r.lastPull(v, Manifests.Key(m)); !t.IsZero() {
		d.LastRecordedPullTime = new(t)
	}
	if s, ok := Scans.Get(v, Manifests.Key(m)); ok {
		d.ImageScanStatus = s.shownStatus(planOf(registryRecord(v, repo.Account, repo.Region).scanning(), repo))
		if s.Completed != nil {
			d.ImageScanFindingsSummary = &types.ImageScanFindingsSummary{
				FindingSeverityCounts: s.Counts, ImageScanCompletedAt: optionalTime(s.Completed), VulnerabilitySourceUpdatedAt: optionalTime(s.SourceUpdated),
			}
		}
	}
	return d
}

// listed is one line of ListImages: a tag of an image, or an image without tags.
type listed struct{ digest, tag string }

func (l listed) key() string { return l.digest + " " + l.tag }

func (r *Registry) listImages(ctx context.Context, in *ecr.ListImagesInput) (*ecr.ListImagesOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	var filter types.ListImagesFilter
	if in.Filter != nil {
		filter = *in.Filter
	}
	v := r.Store.View()
	page, next, err := api.Page(ctx, r.pages, in, api.PageSize(in.MaxResults, pageFallback, pageMost), func(after string) iter.Seq[listed] {
		return func(yield func(listed) bool) {
			for l := range listImages(v, repo, after, filter.ImageStatus) {
				if l.key() > after && shows(filter.TagStatus, l.tag != "") && !yield(l) {
					return
				}
			}
		}
	}, listed.key)
	if err != nil {
		return nil, err
	}
	out := &ecr.ListImagesOutput{ImageIds: []types.ImageIdentifier{}, NextToken: next}
	for _, l := range page {
		out.ImageIds = append(out.ImageIds, imageID(l.digest, l.tag))
	}
	return out, nil
}

// listImages yields the images of a status by digest and tag, from the image that the key after lies in.
func listImages(v state.Reader, repo *Repository, after string, status types.ImageStatusFilter) iter.Seq[listed] {
	return func(yield func(listed) bool) {
		show := func(m *Manifest) bool { return !m.inStatus(status) || listTags(v, m, yield) }
		from := repo.in()
		if digest, _, ok := strings.Cut(after, " "); ok {
			from = repo.in(digest)
			if m, ok := Manifests.Get(v, from); ok && !show(m) {
				return
			}
		}
		for m := range Manifests.ScanFrom(v, repo.in(), from) {
			if !show(m) {
				return
			}
		}
	}
}

func listTags(v state.Reader, m *Manifest, yield func(listed) bool) bool {
	tagged := false
	for t := range TagsByDigest.Scan(v, Manifests.Key(m)) {
		tagged = true
		if !yield(listed{m.Digest, t.Name}) {
			return false
		}
	}
	return tagged || yield(listed{m.Digest, ""})
}

func imageID(digest, tag string) types.ImageIdentifier {
	var id types.ImageIdentifier
	if digest != "" {
		id.ImageDigest = new(digest)
	}
	if tag != "" {
		id.ImageTag = new(tag)
	}
	return id
}

// digestRE is what ECR takes for a digest in an image id; a digest that passes may still not be one.
var digestRE = regexp.MustCompile(`^[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+$`)

// failure says why an image id cannot be used, before anything is looked up; nil when it can.
func failure(id types.ImageIdentifier) *types.ImageFailure {
	fail := func(code types.ImageFailureCode, reason string) *types.ImageFailure {
		return &types.ImageFailure{FailureCode: code, FailureReason: new(reason), ImageId: &id}
	}
	switch {
	case id.ImageDigest == nil && id.ImageTag == nil:
		return fail(types.ImageFailureCodeMissingDigestAndTag, "Invalid request parameters: both tag and digest cannot be null")
	case id.ImageDigest != nil && !digestRE.MatchString(*id.ImageDigest):
		return fail(types.ImageFailureCodeInvalidImageDigest, "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	case id.ImageTag != nil && checkTag(*id.ImageTag) != nil:
		return fail(types.ImageFailureCodeInvalidImageTag, "Invalid request parameters: image tag should satisfy the regex '"+tagPattern+"'")
	}
	return nil
}

// failureOf makes an error one item's failure; errors that are not about the item stay errors.
func failureOf(id types.ImageIdentifier, err error) (*types.ImageFailure, error) {
	var in *errInIndex
	switch {
	case awserr.Is(err, "ImageNotFoundException"):
		return &types.ImageFailure{FailureCode: types.ImageFailureCodeImageNotFound, FailureReason: new("Requested image not found"), ImageId: &id}, nil
	case errors.As(err, &in):
		return &types.ImageFailure{FailureCode: types.ImageFailureCodeImageReferencedByManifestList, FailureReason: new(in.Error()), ImageId: &id}, nil
	case errors.Is(err, errTagElsewhere):
		return &types.ImageFailure{FailureCode: types.ImageFailureCodeImageTagDoesNotMatchDigest, FailureReason: new("Requested image tag does not match the image digest"), ImageId: &id}, nil
	}
	return nil, err
}

var errTagElsewhere = errors.New("the tag belongs to another digest")

func (r *Registry) batchGetImage(ctx context.Context, in *ecr.BatchGetImageInput) (*ecr.BatchGetImageOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	v := r.Store.View()
	out := &ecr.BatchGetImageOutput{Images: []types.Image{}, Failures: []types.ImageFailure{}}
	for _, id := range in.ImageIds {
		f := failure(id)
		if f == nil {
			m, body, err := r.get(ctx, v, repo, id, in.AcceptedMediaTypes, api.CallFrom(ctx).ARN)
			if err == nil {
				out.Images = append(out.Images, imageShape(repo, m, value(id.ImageTag), body))
				continue
			}
			if f, err = failureOf(id, err); err != nil {
				return nil, err
			}
		}
		out.Failures = append(out.Failures, *f)
	}
	return out, nil
}

// get reads one image. One of a media type that the caller does not accept is not converted: it counts as not found.
func (r *Registry) get(ctx context.Context, v state.Reader, repo *Repository, id types.ImageIdentifier, accepted []string, by string) (*Manifest, []byte, error) {
	m, err := image(v, repo, value(id.ImageDigest), value(id.ImageTag))
	if err != nil {
		return nil, nil, err
	}
	if id.ImageDigest != nil && id.ImageTag != nil {
		if t, ok := Tags.Get(v, repo.in(*id.ImageTag)); !ok || t.Digest != m.Digest {
			return nil, nil, errTagElsewhere
		}
	}
	if len(accepted) > 0 && !slices.Contains(accepted, m.MediaType) {
		return nil, nil, imageNotFound(repo, m.Digest, value(id.ImageTag))
	}
	if err := pullable(repo, m); err != nil {
		return nil, nil, err
	}
	body, err := r.content(ctx, m)
	if err != nil {
		return nil, nil, err
	}
	r.notePull(v, m, by)
	return m, body, nil
}

func imageShape(repo *Repository, m *Manifest, tag string, body []byte) types.Image {
	return types.Image{
		ImageId: new(imageID(m.Digest, tag)), ImageManifest: new(string(body)), ImageManifestMediaType: new(m.MediaType),
		RegistryId: new(repo.Account), RepositoryName: new(repo.Name),
	}
}

// batchDeleteImage deletes each image in a transaction of its own. A tag alone is taken off the image, and the image goes
// with its last one; a digest takes the image with all its tags.
func (r *Registry) batchDeleteImage(ctx context.Context, in *ecr.BatchDeleteImageInput) (*ecr.BatchDeleteImageOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	out := &ecr.BatchDeleteImageOutput{ImageIds: []types.ImageIdentifier{}, Failures: []types.ImageFailure{}}
	for _, id := range in.ImageIds {
		f := failure(id)
		if f == nil {
			deleted, err := r.deleteOne(ctx, repo, id)
			if err == nil {
				out.ImageIds = append(out.ImageIds, deleted...)
				continue
			}
			if f, err = failureOf(id, err); err != nil {
				return nil, err
			}
		}
		out.Failures = append(out.Failures, *f)
	}
	return out, nil
}

func (r *Registry) deleteOne(ctx context.Context, repo *Repository, id types.ImageIdentifier) ([]types.ImageIdentifier, error) {
	if id.ImageTag != nil {
		if id.ImageDigest != nil {
			t, ok := Tags.Get(r.Store.View(), repo.in(*id.ImageTag))
			if ok && t.Digest != *id.ImageDigest {
				return nil, errTagElsewhere
			}
		}
		digest, err := r.removeTag(ctx, repo, *id.ImageTag, true)
		if err != nil {
			return nil, err
		}
		return []types.ImageIdentifier{imageID(digest, *id.ImageTag)}, nil
	}
	_, tags, err := r.removeImage(ctx, repo, *id.ImageDigest, nil)
	if err != nil {
		return nil, err
	}
	deleted := []types.ImageIdentifier{}
	for _, tag := range tags {
		deleted = append(deleted, imageID(*id.ImageDigest, tag))
	}
	if len(tags) == 0 {
		deleted = append(deleted, imageID(*id.ImageDigest, ""))
	}
	return deleted, nil
}

func (r *Registry) putImageOperation(ctx context.Context, in *ecr.PutImageInput) (*ecr.PutImageOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	p := push{body: []byte(value(in.ImageManifest)), mediaType: value(in.ImageManifestMediaType), refuseSame: true, maySign: r.maySign(ctx, api.CallFrom(ctx))}
	if in.ImageDigest != nil {
		if p.digest, err = blob.ParseDigest(*in.ImageDigest); err != nil {
			return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'imageDigest' failed to satisfy constraint: '%s'", fmt.Sprint(err))
		}
	}
	if in.ImageTag != nil {
		p.tags = []string{*in.ImageTag}
	}
	m, err := r.putImage(ctx, repo, p)
	if err != nil {
		return nil, err
	}
	return &ecr.PutImageOutput{Image: new(imageShape(repo, m, value(in.ImageTag), p.body))}, nil
}
