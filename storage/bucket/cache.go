package bucket

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/storage/blob"
)

const (
	// cacheEvery is when the cache is measured again in any case.
	cacheEvery = 10 * time.Minute
	// usedEvery is how often a blob that is read again and again is noted as used: its file's time is what the order of eviction goes by.
	usedEvery = 10 * time.Minute
	// evictPatience bounds the question whether the store has a blob that is to leave the disk; nobody can lease the blob meanwhile.
	evictPatience = 5 * time.Second
)

// cache bounds what of the bucket is on the local disk too. What the disk holds is measured by walking it, once it has grown by a twentieth of the bound.
type cache struct {
	pressed chan bool // true: the disk is full, not only the cache

	mu    sync.Mutex
	grown int64 // since it was measured
}

func (c *cache) grew(n, bound int64) {
	c.mu.Lock()
	c.grown += n
	full := c.grown > bound/20
	c.mu.Unlock()
	if full {
		c.press(false)
	}
}

func (c *cache) press(disk bool) {
	select {
	case c.pressed <- disk:
	default:
	}
}

// Pressed says that the disk has no room: the cache gives half of what it holds.
func (b *Bucket) Pressed() { b.cache.press(true) }

// Run keeps the cache within its bound until ctx ends.
func (b *Bucket) Run(ctx context.Context) error {
	for {
		disk := false
		select {
		case <-ctx.Done():
			return nil
		case disk = <-b.cache.pressed:
		case <-b.Clock.After(cacheEvery):
		}
		if err := b.evict(ctx, disk); err != nil && ctx.Err() == nil {
			b.Log.Warn("cannot take blobs from the cache of the object store", "error", err)
		}
	}
}

// evict removes the blobs whose use is the longest ago, of those that the store has as well.
func (b *Bucket) evict(ctx context.Context, disk bool) error {
	b.cache.mu.Lock()
	b.cache.grown = 0
	b.cache.mu.Unlock()
	var all []blob.Info
	var total int64
	for info, err := range b.Local.All() {
		if err != nil {
			return err
		}
		all, total = append(all, info), total+info.Size
	}
	target := b.CacheBytes
	if disk {
		target = min(target, total/2)
	}
	if total <= target {
		return nil
	}
	target -= target / 10 // so that it is not measured at each blob
	slices.SortFunc(all, func(x, y blob.Info) int { return x.Modified.Compare(y.Modified) })
	for _, info := range all {
		if total <= target || ctx.Err() != nil {
			break
		}
		removed, err := b.Local.Delete(info.Digest, func() (bool, error) { return b.safe(ctx, info) })
		if errors.Is(err, blob.ErrLeased) {
			continue
		}
		if err != nil {
			return fmt.Errorf("evict blob %s: %w", info.Digest, err)
		}
		if removed {
			total -= info.Size
		}
	}
	return nil
}

// safe says whether the store has the blob, so that the disk need not.
func (b *Bucket) safe(ctx context.Context, info blob.Info) (bool, error) {
	if b.isWrong(info.Digest) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, evictPatience)
	defer cancel()
	there, err := b.Stat(ctx, info.Digest)
	if errors.Is(err, blob.ErrNotFound) {
		return false, nil
	}
	return err == nil && there.Size == info.Size, err
}

// used makes a blob one of those that are evicted last.
func (b *Bucket) used(ctx context.Context, info blob.Info) {
	if b.Clock.Now().Sub(info.Modified) < usedEvery {
		return
	}
	if err := b.Local.Touch(ctx, info.Digest); err != nil && !errors.Is(err, blob.ErrNotFound) && ctx.Err() == nil {
		b.Log.Warn("cannot note that a cached blob is used", "digest", info.Digest, "error", err)
	}
}
