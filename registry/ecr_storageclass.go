package registry

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// updateImageStorageClass implements ecr:UpdateImageStorageClass. A restoration is over when it answers: ACTIVATING is never
// seen.
func (r *Registry) updateImageStorageClass(ctx context.Context, in *ecr.UpdateImageStorageClassInput) (*ecr.UpdateImageStorageClassOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	m, err := r.identified(repo, in.ImageId)
	if err != nil {
		return nil, err
	}
	var inIndex *errInIndex
	m, err = r.setStorageClass(ctx, repo, m.Digest, in.TargetStorageClass == types.TargetStorageClassArchive, nil)
	if errors.As(err, &inIndex) {
		return nil, awserr.New("ImageStorageClassUpdateNotSupportedException", "%s", inIndex)
	}
	if err != nil {
		return nil, err
	}
	return &ecr.UpdateImageStorageClassOutput{
		ImageId: new(imageID(m.Digest, value(in.ImageId.ImageTag))), ImageStatus: m.status(), RegistryId: new(repo.Account), RepositoryName: new(repo.Name),
	}, nil
}

// identified finds the image that an operation on one image names, by digest, tag or both.
func (r *Registry) identified(repo *Repository, id *types.ImageIdentifier) (*Manifest, error) {
	if id == nil {
		id = &types.ImageIdentifier{}
	}
	if f := failure(*id); f != nil {
		return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'imageId' failed to satisfy constraint: '%s'", *f.FailureReason)
	}
	v := r.Store.View()
	m, err := image(v, repo, value(id.ImageDigest), value(id.ImageTag))
	if err != nil {
		return nil, err
	}
	if id.ImageDigest != nil && id.ImageTag != nil {
		if t, ok := Tags.Get(v, repo.in(*id.ImageTag)); !ok || t.Digest != m.Digest {
			return nil, imageNotFound(repo, *id.ImageDigest, *id.ImageTag)
		}
	}
	return m, nil
}

func (m *Manifest) status() types.ImageStatus {
	if m.InArchive {
		return types.ImageStatusArchived
	}
	return types.ImageStatusActive
}

// inStatus applies a filter by status; without one only active images are shown.
func (m *Manifest) inStatus(f types.ImageStatusFilter) bool {
	switch f {
	case types.ImageStatusFilterAny:
		return true
	case "":
		f = types.ImageStatusFilterActive
	}
	return string(f) == string(m.status())
}
