package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// layerPartSize is what ECR asks clients for. Parts may be of any size here.
const layerPartSize = 10 << 20

func (r *Registry) batchCheckLayerAvailability(ctx context.Context, in *ecr.BatchCheckLayerAvailabilityInput) (*ecr.BatchCheckLayerAvailabilityOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	out := &ecr.BatchCheckLayerAvailabilityOutput{Layers: []types.Layer{}, Failures: []types.LayerFailure{}}
	for _, s := range in.LayerDigests {
		d, err := blob.ParseDigest(s)
		if err != nil {
			out.Failures = append(out.Failures, types.LayerFailure{FailureCode: types.LayerFailureCodeInvalidLayerDigest, FailureReason: new("Invalid layer digest: " + err.Error()), LayerDigest: new(s)})
			continue
		}
		l, err := r.layer(ctx, r.Store.View(), repo, d)
		if err == nil {
			err = r.keepLayer(ctx, repo, l)
		}
		switch {
		case err == nil:
			out.Layers = append(out.Layers, types.Layer{LayerAvailability: r.availability(l), LayerDigest: new(s), LayerSize: new(int64(l.Size)), MediaType: new("application/vnd.docker.image.rootfs.diff.tar.gzip")})
		case awserr.Is(err, "LayersNotFoundException"):
			out.Layers = append(out.Layers, types.Layer{LayerAvailability: types.LayerAvailabilityUnavailable, LayerDigest: new(s)})
		default:
			return nil, err
		}
	}
	return out, nil
}

// availability is ARCHIVED for what only archived images have.
func (r *Registry) availability(l *Layer) types.LayerAvailability {
	availability := types.LayerAvailabilityAvailable
	for m := range ManifestsByReference.Scan(r.Store.View(), Layers.Key(l)) {
		if !m.InArchive {
			return types.LayerAvailabilityAvailable
		}
		availability = types.LayerAvailabilityArchived
	}
	return availability
}

// getDownloadURLForLayer makes a URL that needs no further credentials, for an hour.
func (r *Registry) getDownloadURLForLayer(ctx context.Context, in *ecr.GetDownloadUrlForLayerInput) (*ecr.GetDownloadUrlForLayerOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	d, err := blob.ParseDigest(value(in.LayerDigest))
	if err != nil {
		return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'layerDigest' failed to satisfy constraint: '%s'", err)
	}
	if _, err := r.layer(ctx, r.Store.View(), repo, d); err != nil {
		return nil, err
	}
	url := fmt.Sprintf("%s/v2/%s/blobs/%s?token=%s", r.url(repo.Account, repo.Account, repo.Region), repo.Name, d, r.PullToken(repo.Account, repo.Region, repo.Name))
	return &ecr.GetDownloadUrlForLayerOutput{DownloadUrl: &url, LayerDigest: in.LayerDigest}, nil
}

func (r *Registry) initiateLayerUpload(ctx context.Context, in *ecr.InitiateLayerUploadInput) (*ecr.InitiateLayerUploadOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	u, err := r.Blobs.Begin(repo.uploadOwner())
	if err != nil {
		return nil, err
	}
	defer u.Release()
	return &ecr.InitiateLayerUploadOutput{PartSize: new(int64(layerPartSize)), UploadId: new(u.ID())}, nil
}

func (r *Registry) resumeUpload(ctx context.Context, repo *Repository, id *string) (*blob.Upload, error) {
	u, err := r.upload(ctx, repo, value(id))
	switch {
	case errors.Is(err, blob.ErrNotFound):
		return nil, awserr.New("UploadNotFoundException", "The upload with id '%s' does not exist within the repository with name '%s' in the registry with id '%s'", value(id), repo.Name, repo.Account)
	case errors.Is(err, blob.ErrBusy):
		return nil, awserr.New("InvalidParameterException", "Another request is writing to the upload with id '%s'", value(id))
	}
	return u, err
}

func (r *Registry) uploadLayerPart(ctx context.Context, in *ecr.UploadLayerPartInput) (*ecr.UploadLayerPartOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	u, err := r.resumeUpload(ctx, repo, in.UploadId)
	if err != nil {
		return nil, err
	}
	defer u.Release()
	if first, last := *in.PartFirstByte, *in.PartLastByte; first != u.Size() || last-first+1 != int64(len(in.LayerPartBlob)) {
		e := awserr.New("InvalidLayerPartException", "Layer part bytes %d-%d of %d bytes do not follow the last valid byte %d of the upload with id '%s'", first, last, len(in.LayerPartBlob), u.Size()-1, *in.UploadId)
		e.Fields = map[string]any{"registryId": repo.Account, "repositoryName": repo.Name, "uploadId": *in.UploadId, "lastValidByteReceived": u.Size() - 1}
		return nil, e
	}
	if _, err := u.Append(bytes.NewReader(in.LayerPartBlob)); err != nil {
		return nil, err
	}
	return &ecr.UploadLayerPartOutput{LastByteReceived: new(u.Size() - 1), RegistryId: new(repo.Account), RepositoryName: new(repo.Name), UploadId: in.UploadId}, nil
}

func (r *Registry) completeLayerUpload(ctx context.Context, in *ecr.CompleteLayerUploadInput) (*ecr.CompleteLayerUploadOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	u, err := r.resumeUpload(ctx, repo, in.UploadId)
	if err != nil {
		return nil, err
	}
	defer u.Release()
	if u.Size() == 0 {
		return nil, awserr.New("EmptyUploadException", "The upload with id '%s' contains no layer parts", *in.UploadId)
	}
	if len(in.LayerDigests) != 1 {
		return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'layerDigests' failed to satisfy constraint: 'exactly one digest is supported'")
	}
	digest, err := blob.ParseDigest(in.LayerDigests[0])
	if err != nil {
		return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'layerDigests' failed to satisfy constraint: '%s'", err)
	}
	if _, err := r.layer(ctx, r.Store.View(), repo, digest); err == nil {
		if err := u.Cancel(); err != nil {
			return nil, err
		}
		return nil, awserr.New("LayerAlreadyExistsException", "Layer with digest '%s' already exists in the repository with name '%s' in the registry with id '%s'", digest, repo.Name, repo.Account)
	}
	lease, info, err := u.Commit(ctx, digest)
	if errors.Is(err, blob.ErrMismatch) {
		return nil, awserr.New("InvalidLayerException", "The layer digest calculation performed by Amazon ECR upon receipt of the image layer does not match the digest specified.")
	}
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	if err := r.addLayer(ctx, repo, info); err != nil {
		return nil, err
	}
	return &ecr.CompleteLayerUploadOutput{LayerDigest: new(string(digest)), RegistryId: new(repo.Account), RepositoryName: new(repo.Name), UploadId: in.UploadId}, nil
}
