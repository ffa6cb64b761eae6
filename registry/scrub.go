package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// Every server reads the blobs on its disk again, all of them in ScrubEvery at most at ScrubRate, and holds them against their digests. What
// has rotted is put aside, so that nobody is given it and a push brings it again, and fetched from wherever else it is: another server, the
// upstream of a cache, a cluster that it was replicated to. Where the pass is stands in a file: a restart goes on from there.

// Scrub says how the blobs on this server's disk are.
type Scrub struct {
	Began    time.Time `json:"began"`            // of the pass under way, or of the last one
	Ended    time.Time `json:"ended,omitzero"`   // of the last one, if none is under way
	After    string    `json:"after,omitempty"`  // digest up to which the pass has come
	Object   string    `json:"object,omitempty"` // likewise, of the objects in the bucket, which the leader reads after its disk
	Blobs    uint64    `json:"blobs"`            // that were read in the pass
	Bytes    uint64    `json:"bytes"`
	Rotten   uint64    `json:"rotten"`         // that were found since the server was made
	Repaired uint64    `json:"repaired"`       // of these, whoever brought them back, and of what was missing
	Lost     []string  `json:"lost,omitempty"` // digests that records refer to and that are nowhere within reach, as last found; at most maxLost
}

const (
	maxLost = 100
	// scrubSave is how often the place is written down.
	scrubSave = 10 * time.Second
	// scrubRetry is when a blob that was leased is looked at again.
	scrubRetry = time.Second
	// scrubPause is the one after a failure.
	scrubPause = time.Hour
)

// scrubber reads on. Its mutex guards the report, which only run changes.
type scrubber struct {
	*Registry
	mu    sync.Mutex
	now   Scrub
	saved time.Time
	debt  int // bytes that were read and not waited for
}

// Scrub is the report.
func (r *Registry) Scrub() Scrub {
	r.scrubber.mu.Lock()
	defer r.scrubber.mu.Unlock()
	return r.scrubber.now
}

// GetScrubInput asks for the report.
type GetScrubInput struct{}

func (r *Registry) getScrub(context.Context, *GetScrubInput) (*Scrub, error) {
	return new(r.Scrub()), nil
}

func (s *scrubber) change(f func(*Scrub)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.now)
}

// run works until ctx ends.
func (s *scrubber) run(ctx context.Context) error {
	if err := s.load(); err != nil {
		s.Log.Error("where the check of blobs was is not known; it begins anew", "error", err)
	}
	for {
		now := s.Registry.Scrub()
		if !now.underway() {
			if !s.wait(ctx, now.Began.Add(s.ScrubEvery).Sub(s.Clock.Now())) {
				return nil
			}
			s.change(func(n *Scrub) { n.Began, n.Ended, n.Blobs, n.Bytes = s.Clock.Now(), time.Time{}, 0, 0 })
			s.save(true)
		}
		err := s.pass(ctx)
		switch {
		case ctx.Err() != nil:
			s.save(true)
			return nil
		case err != nil:
			s.Log.Error("check the blobs on the disk; going on in a while", "error", err)
			s.save(true)
			if !s.wait(ctx, scrubPause) {
				return nil
			}
		default:
			s.change(func(n *Scrub) { n.Ended, n.After, n.Object = s.Clock.Now(), "", "" })
			s.save(true)
		}
	}
}

func (s Scrub) underway() bool { return !s.Began.IsZero() && s.Ended.IsZero() }

// wait reports whether it was not interrupted.
func (s *scrubber) wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-s.Clock.After(d):
		return true
	}
}

// pass reads what the pass has not read yet.
func (s *scrubber) pass(ctx context.Context) error {
	for info, err := range s.Blobs.All() { // in the order of digests
		if err != nil {
			return err
		}
		if string(info.Digest) <= s.Registry.Scrub().After {
			continue
		}
		if err := s.check(ctx, info); err != nil {
			return err
		}
		s.change(func(n *Scrub) { n.After, n.Blobs, n.Bytes = string(info.Digest), n.Blobs+1, n.Bytes+uint64(info.Size) })
		s.save(false)
	}
	if s.Bucket != nil {
		return errors.Join(s.passObjects(ctx), s.restoreCache(ctx))
	}
	return s.restore(ctx)
}

func (s *scrubber) check(ctx context.Context, info blob.Info) error {
	for {
		rotten, err := s.Blobs.Check(ctx, info.Digest, s.pace)
		switch {
		case errors.Is(err, blob.ErrLeased):
			if !s.wait(ctx, scrubRetry) {
				return ctx.Err()
			}
			continue
		case errors.Is(err, blob.ErrNotFound): // deleted meanwhile
			return nil
		case err != nil:
			return err
		}
		if rotten {
			s.change(func(n *Scrub) { n.Rotten++ })
			s.Log.Error("a blob on the disk has rotted; it is put aside", "digest", info.Digest, "bytes", info.Size)
			s.save(true)
		}
		return nil
	}
}

// pace waits so that no more than ScrubRate is read.
func (s *scrubber) pace(ctx context.Context, n int) error {
	s.debt += n
	if s.debt < 1<<20 {
		return ctx.Err()
	}
	took := time.Duration(float64(s.debt) / float64(s.ScrubRate) * float64(time.Second))
	s.debt = 0
	s.wait(ctx, took)
	return ctx.Err()
}

// restore brings back what records refer to and is not on the disk, the rotten first, and says what is nowhere.
func (s *scrubber) restore(ctx context.Context) error {
	aside, err := s.Blobs.Quarantined()
	if err != nil {
		return err
	}
	v := s.Store.View()
	missing := map[blob.Digest]bool{}
	note := func(digest string) {
		d := blob.Digest(digest)
		if _, err := s.Blobs.Stat(d); errors.Is(err, blob.ErrNotFound) {
			missing[d] = true
		}
	}
	for l := range Layers.Scan(v, state.K()) {
		note(l.Digest)
	}
	for m := range Manifests.Scan(v, state.K()) {
		note(m.Digest)
	}
	var lost []string
	for d := range missing {
		err := s.repair(ctx, d)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, serr := s.Blobs.Stat(d); serr == nil {
			if !slices.Contains(aside, d) { // those follow
				s.change(func(n *Scrub) { n.Repaired++ })
			}
			s.Log.Info("a blob that was rotten or missing is here again", "digest", d)
			continue
		}
		if s.kept(d) {
			s.Log.Error("a blob is nowhere within reach: push its image again", "digest", d, "error", err)
			lost = append(lost, string(d))
		}
	}
	s.change(func(n *Scrub) { n.Lost = lost[:min(len(lost), maxLost)] })
	for _, d := range aside {
		_, err := s.Blobs.Stat(d) // nil: there is a good one, by a push or who else needed it, too
		if err != nil && s.kept(d) {
			continue
		}
		if err := s.Blobs.Discard(d); err != nil {
			return err
		}
		if err == nil {
			s.change(func(n *Scrub) { n.Repaired++ })
		}
	}
	return nil
}

// repair brings a blob here from wherever it is.
func (r *Registry) repair(ctx context.Context, d blob.Digest) error {
	if err := r.here(ctx, d); err == nil {
		return nil
	}
	return r.repairElsewhere(ctx, d)
}

// repairElsewhere brings it from where copies of this cluster's are.
func (r *Registry) repairElsewhere(ctx context.Context, d blob.Digest) error {
	err := error(blob.ErrNotFound)
	v := r.Store.View()
	for l := range LayersByDigest.Scan(v, state.K(string(d))) {
		repo, ok := repositoryWith(v, l.Account, l.Region, l.Repository)
		if !ok {
			continue
		}
		if u, ok := upstreamOf(v, l.Account, l.Region, repo.Name); ok {
			if _, cached, _ := r.cachedBlob(ctx, repo, d); cached {
				if err = r.fetchBlob(ctx, u, repo, d, io.Discard); err == nil {
					return nil
				}
			}
		}
		for m := range ManifestsByReference.Scan(v, repo.in(string(d))) {
			if err = r.fetchBack(ctx, v, repo, m, "/v2/"+repo.Name+"/blobs/"+string(d), d); err == nil {
				return nil
			}
		}
	}
	for m := range ManifestsByDigest.Scan(v, state.K(string(d))) {
		if repo, ok := repositoryWith(v, m.Account, m.Region, m.Repository); ok {
			if err = r.fetchBack(ctx, v, repo, m, "/v2/"+repo.Name+"/manifests/"+string(d), d); err == nil {
				return nil
			}
		}
	}
	return err
}

// fetchBack gets a blob from a cluster that its image was replicated to; blob.ErrNotFound: it was to none.
func (r *Registry) fetchBack(ctx context.Context, v state.Reader, repo *Repository, m *Manifest, path string, d blob.Digest) error {
	err := error(blob.ErrNotFound)
	for e := range Replications.Scan(v, Manifests.Key(m)) {
		remote := r.remotes[e.ToRegion]
		if remote != nil {
			remote = remote.of(e.ToAccount, e.Account)
		}
		if remote == nil || e.Status != replicationComplete {
			continue
		}
		var resp *http.Response
		if resp, err = remote.do(ctx, http.MethodGet, path, http.Header{"Accept": {cmp.Or(m.MediaType, "*/*"), "*/*"}}, nil, 0); err != nil {
			continue
		}
		if resp.StatusCode != http.StatusOK {
			err = &remoteError{doing: "GET " + path, status: resp.StatusCode}
		} else {
			var lease *blob.Lease
			lease, _, err = r.Blobs.Put(ctx, d, resp.Body)
			lease.Release() // a record refers to it
		}
		resp.Body.Close()
		if err == nil {
			return nil
		}
	}
	return err
}

// repositoryWith finds a repository by its id.
func repositoryWith(v state.Reader, account, region, id string) (*Repository, bool) {
	for repo := range Repositories.Scan(v, state.K(account, region)) {
		if repo.Id == id {
			return repo, true
		}
	}
	return nil, false
}

func (s *scrubber) load() error {
	text, err := os.ReadFile(s.ScrubFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var was Scrub
	if err == nil {
		err = json.Unmarshal(text, &was)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", s.ScrubFile, err)
	}
	s.change(func(n *Scrub) { *n = was })
	return nil
}

// save writes the place down; not at every blob, unless it must.
func (s *scrubber) save(must bool) {
	if at := s.Clock.Now(); must || at.Sub(s.saved) >= scrubSave {
		s.saved = at
	} else {
		return
	}
	text, err := json.Marshal(s.Registry.Scrub())
	if err == nil {
		err = datadir.WriteFile(s.ScrubFile, text)
	}
	if err != nil {
		s.Log.Error("write down where the check of blobs is", "error", err)
	}
}
