package registry

import (
	"context"
	"iter"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// listImageReferrers implements ecr:ListImageReferrers. Like the referrers API it answers whether the subject exists or not.
func (r *Registry) listImageReferrers(ctx context.Context, in *ecr.ListImageReferrersInput) (*ecr.ListImageReferrersOutput, error) {
	size, ok := api.PageWithin(in.MaxResults, 50, 50)
	if !ok {
		return nil, invalidParameter("maxResults", "must be between 1 and 50")
	}
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	d, err := blob.ParseDigest(value(in.SubjectId.ImageDigest))
	if err != nil {
		return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'subjectId.imageDigest' failed to satisfy constraint: '%s'", err)
	}
	filter := types.ListImageReferrersFilter{}
	if in.Filter != nil {
		filter = *in.Filter
	}
	v := r.Store.View()
	subject := repo.in(string(d))
	page, next, err := api.Page(ctx, r.pages, in, size, func(after state.Key) iter.Seq[*Manifest] {
		scan := ManifestsBySubject.Scan(v, subject)
		if after != "" {
			scan = ManifestsBySubject.ScanFrom(v, subject, subject, after)
		}
		return func(yield func(*Manifest) bool) {
			for m := range scan {
				ofType := len(filter.ArtifactTypes) == 0 || slices.Contains(filter.ArtifactTypes, m.ArtifactType)
				if ofType && m.inStatus(types.ImageStatusFilter(filter.ArtifactStatus)) && !yield(m) {
					return
				}
			}
		}
	}, Manifests.Key)
	if err != nil {
		return nil, err
	}
	out := &ecr.ListImageReferrersOutput{NextToken: next, Referrers: []types.ImageReferrer{}}
	for _, m := range page {
		ref := types.ImageReferrer{Annotations: m.Annotations, ArtifactStatus: types.ArtifactStatus(m.status()), Digest: new(m.Digest), MediaType: new(m.MediaType), Size: new(int64(m.Size))}
		if m.ArtifactType != "" {
			ref.ArtifactType = new(m.ArtifactType)
		}
		out.Referrers = append(out.Referrers, ref)
	}
	return out, nil
}
