package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// lifecycleEvery is how often a policy is evaluated; ECR promises 24 hours.
const lifecycleEvery = time.Hour

// lifecycleTick is how late an evaluation may be.
const lifecycleTick = time.Minute

// Expired says what an evaluation of lifecycle policies did.
type Expired struct {
	Repositories int // whose policy was due
	Expired      int // images
	Archived     int // images
	Kept         int // images that a rule asks for and somebody needs, or an index names
}

// runLifecycle evaluates policies as they are put and as they become due, until ctx ends.
func (r *Registry) runLifecycle(ctx context.Context) error {
	changed, ended := r.changes(ctx, LifecyclePolicies)
	defer ended()
	for {
		got, err := r.ApplyLifecyclePolicies(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			r.Log.Error("apply lifecycle policies", "error", err)
		case got.Expired+got.Archived > 0:
			r.Log.Info("applied lifecycle policies", "repositories", got.Repositories, "expired", got.Expired, "archived", got.Archived, "kept", got.Kept)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-r.Clock.After(lifecycleTick):
		}
	}
}

// ApplyLifecyclePolicies evaluates every policy that is due and does what it says, an image a transaction: pushes are never
// waited for nor made to wait, and an interruption leaves what is not done to the next evaluation.
func (r *Registry) ApplyLifecyclePolicies(ctx context.Context) (Expired, error) {
	run := lifecycleRun{Registry: r, needs: needs{r: r}}
	var errs []error
	for p := range LifecyclePolicies.Scan(r.Store.View(), state.K()) {
		if now := r.Clock.Now(); p.Evaluated != nil && now.Sub(p.Evaluated.AsTime()) < lifecycleEvery {
			continue
		}
		if err := ctx.Err(); err != nil {
			return run.done, err
		}
		run.done.Repositories++
		if err := run.apply(ctx, p); err != nil {
			errs = append(errs, fmt.Errorf("lifecycle policy of repository %s: %w", p.Name, err))
		}
	}
	return run.done, errors.Join(errs...)
}

// lifecycleRun is one round over all policies.
type lifecycleRun struct {
	*Registry
	needs needs
	done  Expired
}

func (r *lifecycleRun) apply(ctx context.Context, p *LifecyclePolicy) error {
	v := r.Store.View()
	repo, err := repository(v, p.Account, p.Region, p.Name)
	if err != nil || repo.Id != p.Repository {
		return nil // deleted meanwhile, and its policy with it
	}
	rules, err := parseLifecyclePolicy(p.Text)
	if err != nil {
		return fmt.Errorf("read what was stored: %w", err)
	}
	now := r.Clock.Now()
	verdicts := rules.evaluate(r.candidates(v, repo, &r.needs), now)
	verdicts = slices.DeleteFunc(verdicts, func(c verdict) bool {
		if c.kept != "" {
			r.done.Kept++
		}
		return c.kept != ""
	})
	// Older images go before newer ones, and an index lets its children go once it is gone.
	slices.SortStableFunc(verdicts, func(a, b verdict) int { return a.since().Compare(b.since()) })
	for len(verdicts) > 0 {
		var again []verdict
		for _, c := range verdicts {
			switch err := r.carryOut(ctx, repo, p, c); {
			case err == nil && c.action == actionExpire:
				r.done.Expired++
			case err == nil:
				r.done.Archived++
			case isInIndex(err):
				again = append(again, c)
			case errors.Is(err, errChanged), awserr.Is(err, "ImageNotFoundException"):
			case awserr.Is(err, "RepositoryNotFoundException"):
				return nil
			default:
				return err
			}
		}
		if len(again) == len(verdicts) {
			break // in an index that was pushed meanwhile
		}
		verdicts = again
	}
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		if current, ok := LifecyclePolicies.Get(tx, LifecyclePolicies.Key(p)); ok && current.Text == p.Text {
			current = proto.CloneOf(current)
			current.Evaluated = timestamppb.New(now)
			LifecyclePolicies.Put(tx, current)
		}
		return nil
	})
	return err
}

// errChanged says that an image or its policy is not what was evaluated; the next evaluation looks again.
var errChanged = errors.New("the image has changed")

// carryOut does what was decided for an image, if image and policy are still what was looked at.
func (r *lifecycleRun) carryOut(ctx context.Context, repo *Repository, p *LifecyclePolicy, c verdict) error {
	if r.needs.of(r.Store.View(), repo)[c.digest] != "" { // a task or a deployment has come meanwhile
		return errChanged
	}
	unchanged := func(tx *state.Tx, m *Manifest) error {
		current, ok := LifecyclePolicies.Get(tx, LifecyclePolicies.Key(p))
		if !ok || current.Text != p.Text || m.InArchive != c.inArchive || !m.Pushed.AsTime().Equal(c.pushed) || !slices.Equal(tagsOf(tx, m), c.tags) {
			return errChanged
		}
		return nil
	}
	if c.action == actionTransition {
		_, err := r.setStorageClass(ctx, repo, c.digest, true, unchanged)
		return err
	}
	_, _, err := r.removeImage(ctx, repo, c.digest, unchanged)
	return err
}

// candidates are all images of the repository as policies see them.
func (r *Registry) candidates(v state.Reader, repo *Repository, n *needs) []*candidate {
	needed := n.of(v, repo)
	// While it is not known what was pulled from another server, no image is old for not having been pulled.
	unknown := !r.pullsKnown()
	var out []*candidate
	byDigest := map[string]*candidate{}
	subjects := map[*candidate]string{}
	for m := range Manifests.Scan(v, repo.in()) {
		c := &candidate{
			digest: m.Digest, tags: tagsOf(v, m), pushed: m.Pushed.AsTime(), pulled: r.lastPull(v, Manifests.Key(m)),
			archived: timeOf(m.Archived), activated: timeOf(m.Activated), inArchive: m.InArchive, needed: needed[m.Digest],
		}
		if unknown {
			c.pulled = r.Clock.Now()
		}
		for parent := range ManifestsByReference.Scan(v, Manifests.Key(m)) {
			c.parents = append(c.parents, parent.Digest)
		}
		if m.Subject != "" {
			subjects[c] = m.Subject
		}
		byDigest[m.Digest] = c
		out = append(out, c)
	}
	for c, subject := range subjects {
		c.subject = byDigest[subject]
		c.dangling = c.subject == nil
	}
	return out
}

// timeOf is the zero time where there is no timestamp.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
