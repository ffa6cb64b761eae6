package registry

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// A backfill brings what was pushed before a destination was configured. It is first prepared: its images are written down, page by page.
// Then they pass through the outbox of replication, a window at a time, so that what is pushed meanwhile does not wait behind them all
// and a backfill that is stopped leaves nothing in it. Every step is one transaction: a new leader goes on where the old one was.

const (
	backfillPreparing  = string(types.ReplicationBackfillStatusPreparing)
	backfillInProgress = string(types.ReplicationBackfillStatusInProgress)
	backfillComplete   = string(types.ReplicationBackfillStatusComplete)
	backfillFailed     = string(types.ReplicationBackfillStatusFailed)
	backfillStopping   = string(types.ReplicationBackfillStatusStopping)
	backfillStopped    = string(types.ReplicationBackfillStatusStopped)

	// backfillStep bounds the images of a transaction, and backfillWindow those in the outbox.
	backfillStep   = 20
	backfillWindow = 40
	// backfillKept is how long a backfill is shown after its end, and backfillEvery how often that is looked after.
	backfillKept  = 90 * 24 * time.Hour
	backfillEvery = time.Hour
)

func (b *Backfill) ended() bool {
	return b.Status == backfillComplete || b.Status == backfillFailed || b.Status == backfillStopped
}

// under is the key of what belongs to the backfill.
func (b *Backfill) under(parts ...string) state.Key {
	return Backfills.Key(b) + state.K(parts...)
}

// runBackfills carries backfills on whenever there is something to do.
func (r *Registry) runBackfills(ctx context.Context) error {
	changed, ended := r.changes(ctx, Backfills, Replications)
	defer ended()
	for {
		pause := backfillEvery
		for b := range Backfills.Scan(r.Store.View(), state.K()) {
			if b.ended() && !r.expired(b) {
				continue
			}
			if err := r.carryOn(ctx, b); err != nil && ctx.Err() == nil {
				r.Log.Error("carry a replication backfill on", "backfill", b.Id, "error", err)
				pause = replicationPause
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-r.Clock.After(pause):
		}
	}
}

// carryOn takes steps until the backfill has to wait for replication, or is over.
func (r *Registry) carryOn(ctx context.Context, b *Backfill) error {
	for more := true; more; {
		_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
			more = false
			now, ok := Backfills.Get(tx, Backfills.Key(b))
			if !ok {
				return nil
			}
			if now.ended() {
				more = r.expireBackfill(tx, now)
				return nil
			}
			now = proto.CloneOf(now)
			changed := false
			switch {
			case now.Status == backfillPreparing && !r.configured(tx, now):
				now.Status, now.FailureCode, changed = backfillFailed, "DestinationNotConfigured", true
			case now.Status == backfillPreparing:
				r.prepareBackfill(tx, now)
				changed = true
			default:
				changed = r.settleBackfill(tx, now)
			}
			if !changed {
				return nil
			}
			if now.ended() {
				now.Ended = timestamppb.New(r.Clock.Now())
			}
			Backfills.Put(tx, now)
			more = true
			return nil
		})
		if err != nil {
			return fmt.Errorf("backfill %s to %s in %s: %w", b.Id, b.ToAccount, b.ToRegion, err)
		}
	}
	return nil
}

// configured says whether the registry still replicates anything to the destination.
func (r *Registry) configured(tx *state.Tx, b *Backfill) bool {
	return slices.ContainsFunc(registryRecord(tx, b.Account, b.Region).allDestinations(), b.goesTo)
}

func (b *Backfill) goesTo(d types.ReplicationDestination) bool {
	return value(d.Region) == b.ToRegion && value(d.RegistryId) == b.ToAccount
}

// prepareBackfill writes the next images down. What only an index names comes with that.
func (r *Registry) prepareBackfill(tx *state.Tx, b *Backfill) {
	settings := registryRecord(tx, b.Account, b.Region)
	registry, looked := state.K(b.Account, b.Region), 0
	after := registry
	if b.Repository != "" {
		after = state.K(b.Account, b.Region, b.Repository)
		if repo, ok := Repositories.Get(tx, after); ok && b.Digest != "" && !r.prepareRepository(tx, b, repo, &looked) {
			return
		}
	}
	for repo := range Repositories.ScanFrom(tx, registry, after) {
		if looked++; looked > backfillStep {
			return
		}
		before := b.Repository
		b.Repository, b.Digest = repo.Name, ""
		if slices.ContainsFunc(settings.destinations(repo.Name), b.goesTo) && !r.prepareRepository(tx, b, repo, &looked) {
			if b.Digest == "" { // nothing of it yet
				b.Repository = before
			}
			return
		}
	}
	b.Status, b.Prepared = backfillInProgress, true
}

// prepareRepository goes on with a repository's images; done is false when the transaction is large enough.
func (r *Registry) prepareRepository(tx *state.Tx, b *Backfill, repo *Repository, looked *int) (done bool) {
	after := repo.in()
	if b.Digest != "" {
		after = repo.in(b.Digest)
	}
	for m := range Manifests.ScanFrom(tx, repo.in(), after) {
		tags := tagsOf(tx, m)
		// An image with very many tags is replicated with all of them, and counted under the first.
		tags = tags[:min(len(tags), backfillStep)]
		if *looked += max(len(tags), 1); *looked > 2*backfillStep {
			return false
		}
		b.Digest = m.Digest
		if m.InArchive || m.Cached { // which are not there as a whole
			continue
		}
		if len(tags) == 0 {
			if isChild(tx, m) {
				continue
			}
			tags = []string{""}
		}
		for _, tag := range tags {
			b.Total++
			BackfillImages.Put(tx, &BackfillImage{Account: b.Account, Region: b.Region, Backfill: b.Id, Repository: repo.Id, Name: repo.Name, Digest: m.Digest, Tag: tag})
		}
	}
	b.Digest = ""
	return true
}

func isChild(v state.Reader, m *Manifest) bool {
	for range ManifestsByReference.Scan(v, Manifests.Key(m)) {
		return true
	}
	return false
}

// settleBackfill notes what has arrived, sends what waits, and ends what is done. It reports whether there was anything to do.
func (r *Registry) settleBackfill(tx *state.Tx, b *Backfill) (changed bool) {
	underway, n := 0, 0
	for i := range BackfillImagesOpen.Scan(tx, b.under(replicationInProgress)) {
		code, settled := r.arrived(tx, b, i)
		if !settled {
			underway++
			continue
		}
		if n++; n > backfillStep {
			return true
		}
		changed = true
		b.settle(tx, i, code)
	}
	if b.Status == backfillStopping {
		if underway == 0 && !changed {
			b.Status, changed = backfillStopped, true
		}
		return changed
	}
	waiting := false
	for i := range BackfillImagesOpen.Scan(tx, b.under("")) {
		waiting = true
		if n++; n > backfillStep || underway >= backfillWindow {
			break
		}
		changed = true
		repo, err := repository(tx, i.Account, i.Region, i.Name)
		if err != nil || repo.Id != i.Repository {
			b.settle(tx, i, "ImageNotFound")
			continue
		}
		underway++
		r.queueTo(tx, repo, i.Digest, types.ReplicationDestination{Region: &b.ToRegion, RegistryId: &b.ToAccount})
		i = proto.CloneOf(i)
		i.Status = replicationInProgress
		BackfillImages.Put(tx, i)
	}
	if !waiting && underway == 0 && !changed {
		b.Status, changed = backfillComplete, true
	}
	return changed
}

// arrived says how an image's replication ended; an empty code is success.
func (r *Registry) arrived(tx *state.Tx, b *Backfill, i *BackfillImage) (code string, settled bool) {
	e, ok := Replications.Get(tx, state.K(i.Account, i.Region, i.Repository, i.Digest, b.ToAccount, b.ToRegion))
	switch {
	case !ok && !slices.ContainsFunc(registryRecord(tx, b.Account, b.Region).destinations(i.Name), b.goesTo):
		return "DestinationNotConfigured", true
	case !ok:
		return "ImageNotFound", true
	case e.Status == replicationFailed:
		return e.FailureCode, true
	}
	return "", e.Status == replicationComplete
}

func (b *Backfill) settle(tx *state.Tx, i *BackfillImage, code string) {
	i = proto.CloneOf(i)
	i.Status, i.FailureCode = replicationComplete, code
	if code == "" {
		b.Completed++
	} else {
		i.Status = replicationFailed
		b.Failed++
		b.FailureCodes = appendNew(b.FailureCodes, code)
	}
	BackfillImages.Put(tx, i)
}

func (r *Registry) expired(b *Backfill) bool {
	return r.Clock.Now().Sub(b.Ended.AsTime()) >= backfillKept
}

// expireBackfill deletes a backfill that ended long ago, its images first; more: there are others left.
func (r *Registry) expireBackfill(tx *state.Tx, b *Backfill) (more bool) {
	if !r.expired(b) {
		return false
	}
	n := 0
	for i := range BackfillImages.Scan(tx, b.under()) {
		if n++; n > backfillStep {
			return true
		}
		BackfillImages.Delete(tx, BackfillImages.Key(i))
	}
	Backfills.Delete(tx, Backfills.Key(b))
	return false
}
