package registry

import (
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// The tables. Nobody watches them but where it says so; Collect follows RemovedRepositories and the indexes by digest.
var (
	Repositories = state.NewTable("ecr.repository", func(r *Repository) state.Key {
		return state.K(r.Account, r.Region, r.Name)
	})
	RemovedRepositories = state.NewTable("ecr.removedrepository", func(r *RemovedRepository) state.Key {
		return state.K(r.Account, r.Region, r.Id)
	})
	Tags = state.NewTable("ecr.tag", func(t *Tag) state.Key {
		return state.K(t.Account, t.Region, t.Repository, t.Name)
	})
	Manifests = state.NewTable("ecr.manifest", func(m *Manifest) state.Key {
		return state.K(m.Account, m.Region, m.Repository, m.Digest)
	})
	Layers = state.NewTable("ecr.layer", func(l *Layer) state.Key {
		return state.K(l.Account, l.Region, l.Repository, l.Digest)
	})
	PullTimes = state.NewTable("ecr.pulltime", func(p *PullTime) state.Key {
		return state.K(p.Account, p.Region, p.Repository, p.Digest)
	})
	LifecyclePolicies = state.NewTable("ecr.lifecyclepolicy", func(p *LifecyclePolicy) state.Key {
		return state.K(p.Account, p.Region, p.Repository)
	})
	RepositoryPolicies = state.NewTable("ecr.repositorypolicy", func(p *RepositoryPolicy) state.Key {
		return state.K(p.Account, p.Region, p.Repository)
	})
	LifecyclePreviews = state.NewTable("ecr.lifecyclepreview", func(p *LifecyclePreview) state.Key {
		return state.K(p.Account, p.Region, p.Repository)
	})
	Registries = state.NewTable("ecr.registry", func(r *RegistrySettings) state.Key {
		return state.K(r.Account, r.Region)
	})
	PullTimeExclusions = state.NewTable("ecr.pulltimeexclusion", func(e *PullTimeExclusion) state.Key {
		return state.K(e.Account, e.Region, e.Principal)
	})
	CreationTemplates = state.NewTable("ecr.creationtemplate", func(t *CreationTemplate) state.Key {
		return state.K(t.Account, t.Region, t.Prefix)
	})
	PullThroughRules = state.NewTable("ecr.pullthroughrule", func(p *PullThroughRule) state.Key {
		return state.K(p.Account, p.Region, p.Prefix)
	})
	// Scans are watched by the scanning loop.
	Scans = state.NewTable("ecr.scan", func(s *Scan) state.Key {
		return state.K(s.Account, s.Region, s.Repository, s.Digest)
	})
	ScanSuppressions = state.NewTable("ecr.scansuppression", func(s *ScanSuppression) state.Key {
		return state.K(s.Account, s.Region, s.Id)
	})
	// ImageSignings are watched by the signing loop.
	ImageSignings = state.NewTable("ecr.imagesigning", func(s *ImageSigning) state.Key {
		return state.K(s.Account, s.Region, s.Repository, s.Digest, s.Profile)
	})
	// Backfills are watched by the backfiller.
	Backfills = state.NewTable("ecr.backfill", func(b *Backfill) state.Key {
		return state.K(b.Account, b.Region, b.Id)
	})
	BackfillImages = state.NewTable("ecr.backfillimage", func(i *BackfillImage) state.Key {
		return state.K(i.Account, i.Region, i.Backfill, i.Repository, i.Digest, i.Tag)
	})
	// Replications are watched by the replicators and the backfiller.
	Replications = state.NewTable("ecr.replication", func(e *Replication) state.Key {
		return state.K(e.Account, e.Region, e.Repository, e.Digest, e.ToAccount, e.ToRegion)
	})
)

// ReplicationsPending is the outbox: destination region, time of the push. It spans accounts.
var ReplicationsPending = state.NewIndex(Replications, "pending", func(e *Replication) []state.Key {
	if e.Status == replicationComplete {
		return nil
	}
	return []state.Key{state.K(e.ToRegion, controlplane.TimeKey(e.Queued.AsTime()))}
})

// ScansPending are the images to be scanned, by the time since when. It spans accounts.
var ScansPending = state.NewIndex(Scans, "pending", func(s *Scan) []state.Key {
	if !s.Pending {
		return nil
	}
	return []state.Key{state.K(controlplane.TimeKey(s.Requested.AsTime()))}
})

// ImageSigningsPending are the images to be signed, by the time since when. It spans accounts.
var ImageSigningsPending = state.NewIndex(ImageSignings, "pending", func(s *ImageSigning) []state.Key {
	if s.Status != string(types.SigningStatusInProgress) {
		return nil
	}
	return []state.Key{state.K(controlplane.TimeKey(s.Requested.AsTime()))}
})

// BackfillImagesOpen are the images of a backfill that are not settled: key account, region, backfill, status.
var BackfillImagesOpen = state.NewIndex(BackfillImages, "open", func(i *BackfillImage) []state.Key {
	if i.Status != "" && i.Status != replicationInProgress {
		return nil
	}
	return []state.Key{state.K(i.Account, i.Region, i.Backfill, i.Status)}
})

// Indexes within a repository: key account, region, repository, digest.
var (
	TagsByDigest = state.NewIndex(Tags, "digest", func(t *Tag) []state.Key {
		return []state.Key{state.K(t.Account, t.Region, t.Repository, t.Digest)}
	})
	// ManifestsByReference finds the manifests that have a digest as config, layer or child.
	ManifestsByReference = state.NewIndex(Manifests, "reference", func(m *Manifest) []state.Key {
		keys := make([]state.Key, 0, len(m.Blobs)+len(m.Manifests))
		for _, d := range m.Blobs {
			keys = append(keys, state.K(m.Account, m.Region, m.Repository, d))
		}
		for _, d := range m.Manifests {
			keys = append(keys, state.K(m.Account, m.Region, m.Repository, d))
		}
		return keys
	})
	ManifestsBySubject = state.NewIndex(Manifests, "subject", func(m *Manifest) []state.Key {
		if m.Subject == "" {
			return nil
		}
		return []state.Key{state.K(m.Account, m.Region, m.Repository, m.Subject)}
	})
)

// Indexes across accounts, by which garbage collection asks whether a blob is needed: key digest.
var (
	ManifestsByDigest = state.NewIndex(Manifests, "digest", func(m *Manifest) []state.Key { return []state.Key{state.K(m.Digest)} })
	LayersByDigest    = state.NewIndex(Layers, "digest", func(l *Layer) []state.Key { return []state.Key{state.K(l.Digest)} })
	ScansByDigest     = state.NewIndex(Scans, "digest", func(s *Scan) (keys []state.Key) {
		for _, d := range []string{s.Findings, s.Inventory} {
			if d != "" {
				keys = append(keys, state.K(d))
			}
		}
		return keys
	})
)

// Schema is all of it; the tags of repositories are in the domain's ResourceTags.
var Schema = state.Schema{
	Repositories, RemovedRepositories, Tags, Manifests, Layers, PullTimes, LifecyclePolicies, LifecyclePreviews,
	Registries, PullTimeExclusions, CreationTemplates, PullThroughRules, Replications, Scans, ScanSuppressions,
	RepositoryPolicies, Backfills, BackfillImages, ImageSignings,
}

// in is the key of something that belongs to the repository; with no parts, the prefix of all of that kind.
func (r *Repository) in(parts ...string) state.Key {
	return state.K(r.Account, r.Region, r.Id) + state.K(parts...)
}
