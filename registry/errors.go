package registry

import (
	"strings"

	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// The errors of the domain are ECR's; the OCI front renders them as its own (see ociErrorOf).

func repositoryNotFound(account, name string) error {
	return awserr.New("RepositoryNotFoundException", "The repository with name '%s' does not exist in the registry with id '%s'", name, account)
}

// imageNotFound writes an absent digest or tag as null, as ECR does.
func imageNotFound(r *Repository, digest, tag string) error {
	quote := func(s string) string {
		if s == "" {
			return "null"
		}
		return s
	}
	return awserr.New("ImageNotFoundException", "The image with imageId {imageDigest:'%s', imageTag:'%s'} does not exist within the repository with name '%s' in the registry with id '%s'",
		quote(digest), quote(tag), r.Name, r.Account)
}

func layerNotFound(r *Repository, digests ...string) error {
	if len(digests) == 1 {
		return awserr.New("LayersNotFoundException", "The layer with digest '%s' does not exist within the repository with name '%s' in the registry with id '%s'", digests[0], r.Name, r.Account)
	}
	return awserr.New("LayersNotFoundException", "The layers with digests '[%s]' do not exist within the repository with name '%s' in the registry with id '%s'",
		strings.Join(digests, ", "), r.Name, r.Account)
}

func childrenNotFound(r *Repository, digests []string) error {
	return awserr.New("ReferencedImagesNotFoundException", "The manifest references images with digests '[%s]' that do not exist within the repository with name '%s' in the registry with id '%s'",
		strings.Join(digests, ", "), r.Name, r.Account)
}

func tagImmutable(r *Repository, tag string) error {
	return awserr.New("ImageTagAlreadyExistsException", "The image tag '%s' already exists in the '%s' repository and cannot be overwritten because the tag is immutable.", tag, r.Name)
}

func digestDoesNotMatch(named, computed blob.Digest) error {
	return awserr.New("ImageDigestDoesNotMatchException", "The specified image digest '%s' does not match the digest '%s' that was calculated for the image", named, computed)
}

func manifestInvalid(err error) error {
	if _, ok := awserr.As(err); ok {
		return err // which is no fault of its form
	}
	return awserr.New("InvalidParameterException", "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax or manifest: %s'", err)
}
