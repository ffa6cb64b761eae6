package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	replicationInProgress = string(types.ReplicationStatusInProgress)
	replicationComplete   = string(types.ReplicationStatusComplete)
	replicationFailed     = string(types.ReplicationStatusFailed)

	// A failed attempt is repeated after replicationPause, then twice that, up to replicationPauseMost; an image that a
	// destination refuses waits alone, for a destination that does not answer all its images wait, up to replicationDownMost. It
	// shows as FAILED when the destination has refused it, or after replicationPatience.
	replicationPause     = time.Second
	replicationPauseMost = time.Hour
	replicationDownMost  = time.Minute
	replicationPatience  = 12 // attempts, the last some minutes after the first
)

// destinations are where the registry's configuration wants a repository's images, each once.
func (s *RegistrySettings) destinations(repository string) []types.ReplicationDestination {
	return s.destinationsOf(func(rule types.ReplicationRule) bool {
		return len(rule.RepositoryFilters) == 0 || slices.ContainsFunc(rule.RepositoryFilters, func(f types.RepositoryFilter) bool { return strings.HasPrefix(repository, value(f.Filter)) })
	})
}

// allDestinations are those of any repository.
func (s *RegistrySettings) allDestinations() []types.ReplicationDestination {
	return s.destinationsOf(func(types.ReplicationRule) bool { return true })
}

func (s *RegistrySettings) destinationsOf(applies func(types.ReplicationRule) bool) []types.ReplicationDestination {
	var out []types.ReplicationDestination
	if s.ReplicationJson == "" {
		return nil
	}
	for _, rule := range controlplane.DecodeShape[types.ReplicationConfiguration](s.ReplicationJson).Rules {
		if !applies(rule) {
			continue
		}
		for _, d := range rule.Destinations {
			if !slices.ContainsFunc(out, func(o types.ReplicationDestination) bool {
				return *o.Region == *d.Region && *o.RegistryId == *d.RegistryId
			}) {
				out = append(out, d)
			}
		}
	}
	return out
}

// queueReplication puts an image that was pushed, or whose tags moved, into the outbox, in the push's transaction.
//
// The entry does not say what to do but that the destination is to be looked after: what is copied is the image with the tags
// that it has at that time. So entries of a repository need no order among themselves, only one hand: an old entry that is
// late finds its tag gone to another image, and leaves it alone.
func (r *Registry) queueReplication(tx *state.Tx, repo *Repository, digest string) {
	for _, d := range registryRecord(tx, repo.Account, repo.Region).destinations(repo.Name) {
		r.queueTo(tx, repo, digest, d)
	}
}

func (r *Registry) queueTo(tx *state.Tx, repo *Repository, digest string, d types.ReplicationDestination) {
	e := &Replication{Account: repo.Account, Region: repo.Region, Repository: repo.Id, Name: repo.Name, Digest: digest,
		ToAccount: *d.RegistryId, ToRegion: *d.Region, Status: replicationInProgress, Queued: timestamppb.New(r.Clock.Now())}
	old, _ := Replications.Get(tx, Replications.Key(e))
	e.Pushes = old.GetPushes() + 1
	Replications.Put(tx, e)
}

// runReplication has one worker for this cluster's other regions and one for each remote cluster, so that one that cannot be reached keeps
// nobody else waiting.
func (r *Registry) runReplication(ctx context.Context) error {
	workers := []*replicator{{Registry: r}}
	for region, remote := range r.remotes {
		workers = append(workers, &replicator{Registry: r, region: region, remote: remote})
	}
	done := make(chan struct{}, len(workers))
	for _, w := range workers {
		go func() {
			w.run(ctx)
			done <- struct{}{}
		}()
	}
	for range workers {
		<-done
	}
	return nil
}

// replicator drains a part of the outbox: that for one remote region, or for all that are not remote.
type replicator struct {
	*Registry
	region string
	remote *remote // nil: this cluster

	failures uint32    // in a row of which the destination did not answer
	resume   time.Time // until when it is left alone for that
}

func (w *replicator) run(ctx context.Context) {
	changed, ended := w.changes(ctx, Replications)
	defer ended()
	for ctx.Err() == nil {
		next := w.drain(ctx)
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = w.Clock.After(next.Sub(w.Clock.Now()))
		}
		select {
		case <-changed:
		case <-timer:
		case <-ctx.Done():
		}
	}
}

// changes signals, at first and then whenever one of the tables has changed, until ctx ends; ended waits until nothing of it is left.
func (r *Registry) changes(ctx context.Context, tables ...state.TableInfo) (changed <-chan struct{}, ended func()) {
	signal, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			w := r.Store.Watch(ctx, r.Store.Revision(), tables...)
			for err := error(nil); err == nil; _, err = w.Next(ctx) { // after an error, which is "compacted", anew
				select {
				case signal <- struct{}{}:
				default:
				}
			}
		}
	}()
	return signal, func() { <-done }
}

// drain attempts every entry that is due, in the order of pushes, until the destination does not answer, and says when there is
// something to do again; zero: nothing is left.
func (w *replicator) drain(ctx context.Context) (next time.Time) {
	if w.resume.After(w.Clock.Now()) {
		return w.resume
	}
	sooner := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	prefix := state.K()
	if w.remote != nil {
		prefix = state.K(w.region)
	}
	for e := range ReplicationsPending.Scan(w.Store.View(), prefix) {
		if _, remote := w.Remotes[e.ToRegion]; remote != (w.remote != nil) {
			continue
		}
		if at := timeOf(e.NotBefore); at.After(w.Clock.Now()) {
			sooner(at)
			continue
		}
		if ctx.Err() != nil {
			return next
		}
		again, err := w.attempt(ctx, e)
		sooner(again)
		if r, ok := errors.AsType[*remoteError](err); ok && !r.refused() {
			w.failures++
			w.resume = w.Clock.Now().Add(min(replicationPause<<min(w.failures-1, 20), replicationDownMost))
			return w.resume
		}
		w.failures = 0
	}
	return next
}

// attempt brings one image to its destination and writes down how that went. again is when this image is due next, err why.
func (w *replicator) attempt(ctx context.Context, e *Replication) (again time.Time, err error) {
	current, ok := Replications.Get(w.Store.View(), Replications.Key(e)) // something may have come between
	if !ok || current.Status == replicationComplete || !proto.Equal(current.NotBefore, e.NotBefore) {
		return time.Time{}, nil
	}
	err = w.replicate(ctx, current)
	if ctx.Err() != nil {
		return time.Time{}, nil // the next leader goes on
	}
	_, there := Manifests.Get(w.Store.View(), state.K(e.Account, e.Region, e.Repository, e.Digest))
	gone := err != nil && (errors.Is(err, errNotWanted) || !there)
	if gone {
		err = nil
	}
	if err != nil {
		w.Log.Warn("replicate an image", "repository", e.Name, "digest", e.Digest, "account", e.ToAccount, "region", e.ToRegion, "error", err)
	}
	_, werr := w.Store.Update(ctx, func(tx *state.Tx) error {
		again = time.Time{}
		now, ok := Replications.Get(tx, Replications.Key(e))
		switch {
		case !ok || now.Pushes != current.Pushes: // pushed again meanwhile: it is due
			return nil
		case gone:
			Replications.Delete(tx, Replications.Key(e))
			return nil
		}
		now = proto.CloneOf(now)
		if err == nil {
			now.Status, now.FailureCode, now.NotBefore, now.Upload = replicationComplete, "", nil, ""
		} else {
			again = w.failed(now, err)
		}
		Replications.Put(tx, now)
		return nil
	})
	if werr != nil && ctx.Err() == nil {
		w.Log.Error("write down a replication", "error", werr)
		return w.Clock.Now().Add(replicationPause), err
	}
	return again, err
}

// failed notes a failure in an entry. again is when it is due next, where that is the entry's own affair.
func (w *replicator) failed(e *Replication, err error) (again time.Time) {
	e.Attempts++
	code, refused := failureCode(err)
	if refused || e.Attempts >= replicationPatience {
		e.Status, e.FailureCode = replicationFailed, code
	}
	if r, ok := errors.AsType[*remoteError](err); ok && !r.refused() {
		e.NotBefore = nil
		return time.Time{} // as soon as the destination answers
	}
	again = w.Clock.Now().Add(min(replicationPause<<min(e.Attempts-1, 20), replicationPauseMost))
	e.NotBefore = timestamppb.New(again)
	return again
}

// errNotWanted says that the configuration no longer asks for a replication.
var errNotWanted = errors.New("the configuration has changed")

// failureCode is what DescribeImageReplicationStatus shows, and whether trying again soon is in vain.
func failureCode(err error) (code string, refused bool) {
	if e, ok := errors.AsType[*remoteError](err); ok {
		return e.failureCode(), e.refused()
	}
	if errors.Is(err, errNotLet) {
		return "AccessDenied", true
	}
	return "InternalError", false
}

func (w *replicator) replicate(ctx context.Context, e *Replication) error {
	v := w.Store.View()
	source, err := repository(v, e.Account, e.Region, e.Name)
	if err != nil {
		return err
	}
	if source.Id != e.Repository {
		return repositoryNotFound(e.Account, e.Name)
	}
	if !slices.ContainsFunc(registryRecord(v, e.Account, e.Region).destinations(e.Name), func(d types.ReplicationDestination) bool {
		return *d.Region == e.ToRegion && *d.RegistryId == e.ToAccount
	}) {
		return errNotWanted
	}
	if w.remote != nil {
		to := w.remote.of(e.ToAccount, e.Account)
		if to == nil {
			return fmt.Errorf("%w: --remote-regions has no key for account %s of %s that images of account %s may use", errNotLet, e.ToAccount, e.ToRegion, e.Account)
		}
		return w.sendImage(ctx, e, source, to)
	}
	if e.ToAccount != e.Account {
		if err := w.mayReplicate(ctx, e); err != nil {
			return err
		}
	}
	to, err := w.ensure(ctx, e.ToAccount, e.ToRegion, e.Name, types.RCTAppliedForReplication)
	if err != nil {
		return err
	}
	return w.copyImage(ctx, source, to, e.Digest, true)
}

// mayReplicate asks the registry policy of another account whether images of this one may come, and, if need be, make their repository. The
// caller is the source's account, as ECR's documentation has it.
func (r *Registry) mayReplicate(ctx context.Context, e *Replication) error {
	if r.Authorizer == nil {
		return fmt.Errorf("%w: nobody is let into another account", errNotLet)
	}
	wanted := []string{replicateImage}
	if _, err := repository(r.Store.View(), e.ToAccount, e.ToRegion, e.Name); err != nil {
		wanted = append(wanted, createRepository)
	}
	source := api.Identity{Account: e.Account, ARN: "arn:aws:iam::" + e.Account + ":root", UserID: e.Account, Root: true}
	call := &api.Call{Identity: source, Region: e.ToRegion, Service: "ecr", Time: r.Clock.Now(), Secure: true}
	for _, action := range wanted {
		call.Operation = strings.TrimPrefix(action, "ecr:")
		if err := r.Authorizer.Authorize(ctx, call, api.Access{Action: action, Resources: []string{repositoryARN(call, &e.ToAccount, e.Name)}}); err != nil {
			return fmt.Errorf("%w: %w", errNotLet, err)
		}
	}
	return nil
}

// errNotLet says that the destination's registry policy does not let an image in.
var errNotLet = errors.New("the destination does not let the image in")

// copyStep bounds the layers or tags of a transaction: each is read at the source and written at the destination.
const copyStep = 40

// copyImage brings an image, what is in it and, where asked, its tags into another repository of this cluster. Only records are written:
// the blobs are there, and each transaction reads the source's records, by which they stay until its own keep them.
func (r *Registry) copyImage(ctx context.Context, from, to *Repository, digest string, tags bool) error {
	m, err := image(r.Store.View(), from, digest, "")
	if err != nil {
		return err
	}
	for _, child := range m.Manifests {
		if err := r.copyImage(ctx, from, to, child, false); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(m.Blobs, copyStep) {
		if err := r.copyLayers(ctx, from, to, some); err != nil {
			return err
		}
	}
	for done := false; !done; {
		_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
			done = true
			to, err := to.still(tx)
			if err != nil {
				return err
			}
			m, err := r.copyManifest(tx, from, to, digest)
			if err != nil || !tags {
				return err
			}
			n := 0
			for t := range TagsByDigest.Scan(tx, from.in(digest)) {
				old, exists := Tags.Get(tx, to.in(t.Name))
				if exists && (old.Digest == m.Digest || to.immutable(t.Name)) {
					continue // as in ECR, an image arrives without a tag that must not move
				}
				if n++; n > copyStep {
					done = false
					return nil
				}
				Tags.Put(tx, &Tag{Account: to.Account, Region: to.Region, Repository: to.Id, Name: t.Name, Digest: m.Digest, Moved: timestamppb.New(r.Clock.Now())})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) copyLayers(ctx context.Context, from, to *Repository, digests []string) error {
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		now, err := to.still(tx)
		if err != nil {
			return err
		}
		for _, d := range digests {
			l, ok := Layers.Get(tx, from.in(d))
			if !ok {
				return layerNotFound(from, d)
			}
			r.putLayer(tx, now, d, l.Size)
		}
		return nil
	})
	return err
}

// copyManifest reads, as a push does, what the manifest refers to: collection must not have taken it meanwhile.
func (r *Registry) copyManifest(tx *state.Tx, from, to *Repository, digest string) (*Manifest, error) {
	source, err := image(tx, from, digest, "")
	if err != nil {
		return nil, err
	}
	m, exists := Manifests.Get(tx, to.in(digest))
	switch {
	case exists && !m.InArchive:
		return m, nil
	case exists:
		m = r.withClass(m, false)
	default:
		m = proto.CloneOf(source)
		m.Account, m.Region, m.Repository, m.Pushed = to.Account, to.Region, to.Id, timestamppb.New(r.Clock.Now())
		m.InArchive, m.Archived, m.Activated = false, nil, nil
	}
	for _, d := range m.Blobs {
		if _, ok := Layers.Get(tx, to.in(d)); !ok {
			return nil, layerNotFound(to, d)
		}
	}
	for _, d := range m.Manifests {
		if _, ok := Manifests.Get(tx, to.in(d)); !ok {
			return nil, childrenNotFound(to, []string{d})
		}
	}
	Manifests.Put(tx, m)
	if !exists {
		r.queueScan(tx, to, m)
	}
	return m, nil
}

// collectReplications drops what is known of images that are gone.
func (r *Registry) collectReplications(ctx context.Context, _ *Collected) error {
	v := r.Store.View()
	var stale []state.Key
	for e := range Replications.Scan(v, state.K()) {
		if _, ok := Manifests.Get(v, state.K(e.Account, e.Region, e.Repository, e.Digest)); !ok {
			stale = append(stale, Replications.Key(e))
		}
	}
	for some := range slices.Chunk(stale, copyStep) {
		_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
			for _, key := range some {
				if e, ok := Replications.Get(tx, key); ok {
					if _, back := Manifests.Get(tx, state.K(e.Account, e.Region, e.Repository, e.Digest)); !back {
						Replications.Delete(tx, key)
					}
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("drop replications of images that are gone: %w", err)
		}
	}
	return nil
}
