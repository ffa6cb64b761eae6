package registry

import (
	"cmp"
	"sync"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Quotas are what a registry may hold at most; zero members are ECR's defaults ("Amazon ECR service quotas").
type Quotas struct {
	Repositories int // of an account in a region: 100,000
	Images       int // of a repository: 100,000
	Tags         int // of an image: 1,000
}

func (q Quotas) orDefaults() Quotas {
	return Quotas{cmp.Or(q.Repositories, 100_000), cmp.Or(q.Images, 100_000), cmp.Or(q.Tags, 1_000)}
}

// counts knows roughly how many records there are under prefixes, so that a quota does not cost a push a scan. A count that is too large,
// since it does not see deletions, is taken anew where it would refuse; one that was taken before another server led can be too small.
type counts struct {
	mu sync.Mutex
	of map[state.Key]int
}

const quicklyCounted = 8

// maxCounts bounds what is remembered. What is forgotten is counted again.
const maxCounts = 10_000

// room says whether one more fits, and then counts it. What is quickly counted is not remembered: most images have few tags.
func (c *counts) room(prefix state.Key, limit int, count func() int) bool {
	c.mu.Lock()
	n, known := c.of[prefix]
	c.mu.Unlock()
	if !known || n >= limit {
		n = count()
	}
	if n >= limit {
		return false
	}
	if n < quicklyCounted {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil || len(c.of) >= maxCounts {
		c.of = map[state.Key]int{}
	}
	c.of[prefix] = max(n, c.of[prefix]) + 1
	return true
}

// roomForImage refuses a new image in a repository that is full.
func (r *Registry) roomForImage(repo *Repository) error {
	v := r.Store.View() // no transaction: pushes to one repository are not to conflict
	ok := r.counts.room(repo.in(), r.Quotas.Images, func() (n int) {
		for range Manifests.Scan(v, repo.in()) {
			n++
		}
		return n
	})
	if !ok {
		return awserr.New("LimitExceededException", "The repository with name '%s' in the registry with id '%s' has %d images already, which is the limit", repo.Name, repo.Account, r.Quotas.Images)
	}
	return nil
}

// roomForRepository refuses a new repository in a registry that is full.
func (r *Registry) roomForRepository(account, region string) error {
	v := r.Store.View()
	ok := r.counts.room(state.K(account, region), r.Quotas.Repositories, func() (n int) {
		for range Repositories.Scan(v, state.K(account, region)) {
			n++
		}
		return n
	})
	if !ok {
		return awserr.New("LimitExceededException", "The registry with id '%s' has %d repositories already, which is the limit", account, r.Quotas.Repositories)
	}
	return nil
}

// roomForTag refuses a tag too many of one image.
func (r *Registry) roomForTag(repo *Repository, m *Manifest) error {
	v := r.Store.View()
	ok := r.counts.room(Manifests.Key(m), r.Quotas.Tags, func() (n int) {
		for range TagsByDigest.Scan(v, Manifests.Key(m)) {
			n++
		}
		return n
	})
	if !ok {
		return awserr.New("LimitExceededException", "The image with digest '%s' in the repository with name '%s' in the registry with id '%s' has %d tags already, which is the limit", m.Digest, repo.Name, repo.Account, r.Quotas.Tags)
	}
	return nil
}
