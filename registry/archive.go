package registry

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// withClass is the manifest's record in the other storage class. Here a class is a mark: bytes stay where they are, so that
// a restoration takes no time.
func (r *Registry) withClass(m *Manifest, archive bool) *Manifest {
	m = proto.CloneOf(m)
	m.InArchive = archive
	if now := timestamppb.New(r.Clock.Now()); archive {
		m.Archived = now
	} else {
		m.Activated = now
	}
	return m
}

// setStorageClass moves an image to the archive or back. An index that is not in the archive keeps its images out of it, as
// in ECR. check, unless nil, can refuse inside the transaction.
func (r *Registry) setStorageClass(ctx context.Context, repo *Repository, digest string, archive bool, check func(*state.Tx, *Manifest) error) (m *Manifest, err error) {
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		if _, err := repo.still(tx); err != nil {
			return err
		}
		if m, err = image(tx, repo, digest, ""); err != nil || m.InArchive == archive {
			return err
		}
		if archive {
			var in errInIndex
			for parent := range ManifestsByReference.Scan(tx, Manifests.Key(m)) {
				if !parent.InArchive {
					in.indexes = append(in.indexes, parent.Digest)
				}
			}
			if in.indexes != nil {
				return &in
			}
		}
		if check != nil {
			if err := check(tx, m); err != nil {
				return err
			}
		}
		m = r.withClass(m, archive)
		Manifests.Put(tx, m)
		return nil
	})
	return m, err
}

// pullable refuses an image that is in the archive: to those who pull, it is not there.
func pullable(repo *Repository, m *Manifest) error {
	if !m.InArchive {
		return nil
	}
	return awserr.New("ImageNotFoundException", "The image with imageId {imageDigest:'%s'} within the repository with name '%s' in the registry with id '%s' is archived. Restore it before you pull it.", m.Digest, repo.Name, repo.Account)
}
