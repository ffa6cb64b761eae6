package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/egress"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/storage/blob"
)

const (
	// recheckAfter is how long a cached tag is believed, as in ECR.
	recheckAfter = 24 * time.Hour
	// downFor is how long an upstream that did not answer is left alone by pulls that have something cached.
	downFor = time.Minute
	// upstreamPatience is how long an upstream may take to begin its answer.
	upstreamPatience = 20 * time.Second
)

// upstreams reaches other registries for pull through cache rules.
type upstreams struct {
	client ociclient.Client
	clock  clock.Clock

	mu       sync.Mutex
	down     map[string]time.Time     // until when a host is taken for unreachable
	underway map[string]chan struct{} // what is being fetched; closed when that is over
}

func newUpstreams(clk clock.Clock) *upstreams {
	transport := egress.Transport() // rules are written by users of the API
	transport.ResponseHeaderTimeout, transport.MaxIdleConnsPerHost = upstreamPatience, 8
	return &upstreams{clock: clk, down: map[string]time.Time{}, underway: map[string]chan struct{}{}, client: ociclient.Client{Transport: transport}}
}

// answered notes whether a host is there.
func (u *upstreams) answered(host string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e, ok := errors.AsType[*ociclient.Error](err); ok && e.Retryable() {
		u.down[host] = u.clock.Now().Add(downFor)
	} else {
		delete(u.down, host)
	}
}

func (u *upstreams) isDown(host string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.clock.Now().Before(u.down[host])
}

// alone waits until nobody else fetches what the key names: the tasks of a service that start at once have their image fetched once.
// The caller looks whether it has come by then, and releases when it is done.
func (u *upstreams) alone(ctx context.Context, key string) (release func(), err error) {
	for {
		u.mu.Lock()
		other, ok := u.underway[key]
		if !ok {
			done := make(chan struct{})
			u.underway[key] = done
			u.mu.Unlock()
			return func() {
				u.mu.Lock()
				delete(u.underway, key)
				u.mu.Unlock()
				close(done)
			}, nil
		}
		u.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// upstream is what a repository caches: another one, of another registry.
type upstream struct {
	rule *PullThroughRule
	name string // of the repository there
}

// upstreamOf finds the rule with the longest prefix for a repository's name.
func upstreamOf(v state.Reader, account, region, name string) (upstream, bool) {
	for prefix := range prefixes(name) {
		rule, ok := PullThroughRules.Get(v, state.K(account, region, prefix))
		if !ok {
			continue
		}
		rest := name
		if prefix != rootPrefix {
			rest = strings.TrimPrefix(name, prefix+"/")
		}
		if p := rule.UpstreamPrefix; p != "" && p != rootPrefix {
			rest = p + "/" + rest
		}
		return upstream{rule, rest}, true
	}
	return upstream{}, false
}

func (u upstream) repository() string { return u.rule.Upstream + "/" + u.name }

// reference is that of a manifest by digest, or by tag when digest is empty.
func (u upstream) reference(digest blob.Digest, tag string) string {
	if digest != "" {
		return u.repository() + "@" + string(digest)
	}
	return u.repository() + ":" + tag
}

// upstreamCredentials are a token of a remote cluster where the rule's upstream is one; all others are asked anonymously.
func (r *Registry) upstreamCredentials(ctx context.Context, rule *PullThroughRule) (ociclient.Credentials, error) {
	for _, remote := range r.remotes {
		if remote.host() == rule.Upstream {
			password, err := remote.login(ctx)
			return ociclient.Credentials{User: tokenUser, Password: password}, err
		}
	}
	return ociclient.Credentials{}, nil
}

// pullThrough makes sure that a manifest that a client pulls, by digest or tag, is cached and not older than ECR allows. The repository
// is made when its first image comes. An upstream that cannot be reached is no error where something is cached.
func (r *Registry) pullThrough(ctx context.Context, u upstream, account, region, name string, digest blob.Digest, tag string) error {
	switch cached, fresh := r.cachedManifest(u, account, region, name, digest, tag); {
	case fresh:
		return nil
	case r.follows(): // what comes is written down by whoever leads, and fetched there
		return state.ErrNotLeader
	case cached && r.Store.Leadership().Term == 0:
		return nil // nobody leads just now: as with an upstream that does not answer
	}
	release, err := r.upstreams.alone(ctx, string(state.K(account, region, name, string(digest), tag)))
	if err != nil {
		return err
	}
	defer release()
	cached, fresh := r.cachedManifest(u, account, region, name, digest, tag)
	if fresh {
		return nil
	}
	err = r.fetchManifest(ctx, u, account, region, name, digest, tag)
	if err != nil && cached && ctx.Err() == nil {
		r.Log.Warn("an upstream does not give an image; the cached one is served", "upstream", u.reference(digest, tag), "error", err)
		return nil
	}
	return err
}

// follows says that another server leads, as far as is known.
func (r *Registry) follows() bool {
	l := r.Store.Leadership()
	return l.Term == 0 && l.Leader != ""
}

// cachedManifest says whether a manifest is here, and whether there is no need to ask the upstream.
func (r *Registry) cachedManifest(u upstream, account, region, name string, digest blob.Digest, tag string) (cached, fresh bool) {
	v := r.Store.View()
	repo, err := repository(v, account, region, name)
	if err != nil {
		return false, false
	}
	m, err := image(v, repo, string(digest), tag)
	if err != nil {
		return false, false
	}
	if digest != "" || !m.Cached { // it cannot change; it was pushed here by hand
		return true, true
	}
	t, ok := Tags.Get(v, repo.in(tag))
	return ok, ok && r.Clock.Now().Sub(timeOf(t.Checked)) < recheckAfter || r.upstreams.isDown(u.rule.Upstream)
}

// fetchManifest caches what the upstream has now.
func (r *Registry) fetchManifest(ctx context.Context, u upstream, account, region, name string, digest blob.Digest, tag string) error {
	cred, err := r.upstreamCredentials(ctx, u.rule)
	if err != nil {
		return err
	}
	body, mediaType, err := r.upstreams.client.Manifest(ctx, u.reference(digest, tag), cred)
	r.upstreams.answered(u.rule.Upstream, err)
	if err != nil {
		return err
	}
	doc, err := parseManifest(mediaType, body)
	if err != nil {
		return manifestInvalid(err)
	}
	got := blob.Sum(body)
	if digest != "" {
		if got = blob.SumAs(digest, body); got != digest {
			return digestDoesNotMatch(digest, got)
		}
	}
	repo, err := r.ensure(ctx, account, region, name, types.RCTAppliedForPullThroughCache)
	if err != nil {
		return err
	}
	lease, err := r.keepManifest(ctx, got, body)
	if err != nil {
		return err
	}
	defer lease.Release()
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error { return r.commitCached(tx, repo, doc, got, body, tag) })
	return err
}

// commitCached writes the descriptor of a manifest whose blobs come later, and what its tag means now.
func (r *Registry) commitCached(tx *state.Tx, repo *Repository, doc *document, digest blob.Digest, body []byte, tag string) error {
	repo, err := repo.still(tx)
	if err != nil {
		return err
	}
	now := timestamppb.New(r.Clock.Now())
	m, ok := Manifests.Get(tx, repo.in(string(digest)))
	switch {
	case !ok:
		Manifests.Put(tx, r.cachedDescriptor(repo, doc, digest, body))
	case m.InArchive:
		Manifests.Put(tx, r.withClass(m, false))
	}
	if tag == "" {
		return nil
	}
	t, ok := Tags.Get(tx, repo.in(tag))
	switch {
	case !ok || t.Digest != string(digest) && !repo.immutable(tag):
		t = &Tag{Account: repo.Account, Region: repo.Region, Repository: repo.Id, Name: tag, Digest: string(digest), Moved: now}
	default:
		t = proto.CloneOf(t)
	}
	t.Checked = now
	Tags.Put(tx, t)
	return nil
}

// cachedDescriptor names every layer and child, there or not: what is missing comes when it is asked for, and what came stays as
// long as the index does.
func (r *Registry) cachedDescriptor(repo *Repository, doc *document, digest blob.Digest, body []byte) *Manifest {
	m := newDescriptor(repo, doc, digest, body, r.Clock.Now())
	m.Cached = true
	for _, d := range doc.blobs() {
		m.ImageSize += uint64(d.Size)
		if !d.foreign() {
			m.Blobs = appendNew(m.Blobs, d.Digest)
		}
	}
	for _, d := range doc.Manifests {
		m.Manifests = appendNew(m.Manifests, d.Digest)
	}
	return m
}

// keepCached bounds the transfer of a blob from an upstream.
const keepCached = time.Hour

// fetchBlob caches a layer that a cached image names, handing its bytes to sink as they come. The digest is verified before
// the last of them are known to be right: on an error sink may have too much.
func (r *Registry) fetchBlob(ctx context.Context, u upstream, repo *Repository, d blob.Digest, sink io.Writer) error {
	cred, err := r.upstreamCredentials(ctx, u.rule)
	if err != nil {
		return err
	}
	body, err := r.upstreams.client.Blob(ctx, u.repository(), string(d), cred)
	r.upstreams.answered(u.rule.Upstream, err)
	if err != nil {
		return err
	}
	defer body.Close()
	// A client leaves as soon as it has the last byte: that must not undo the keeping of what it got. Before, the body's end is its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepCached)
	defer cancel()
	lease, info, err := r.Blobs.Put(ctx, d, io.TeeReader(body, sink))
	if err != nil {
		return err
	}
	defer lease.Release()
	return r.addLayer(ctx, repo, info)
}

// cachedBlob says whether an image that is cached in the repository names a blob, and how many bytes it has by that.
func (r *Registry) cachedBlob(ctx context.Context, repo *Repository, d blob.Digest) (size int64, ok bool, err error) {
	for m := range ManifestsByReference.Scan(r.Store.View(), repo.in(string(d))) {
		if !m.Cached {
			continue
		}
		body, err := r.content(ctx, m)
		if err != nil {
			return 0, false, err
		}
		doc, err := parseManifest(m.MediaType, body)
		if err != nil {
			return 0, false, fmt.Errorf("read manifest %s: %w", m.Digest, err)
		}
		for _, x := range doc.blobs() {
			if x.Digest == string(d) {
				return x.Size, true, nil
			}
		}
	}
	return 0, false, nil
}

// upstreamError is how a failure of an upstream looks to who pulls.
func upstreamError(err error) *ociError {
	if e, ok := errors.AsType[*remoteError](err); ok { // no token of a remote cluster
		err = &ociclient.Error{Kind: ociclient.Unavailable, Err: e}
		if e.refused() {
			err = &ociclient.Error{Kind: ociclient.Denied, Answer: e.Error()}
		}
	}
	e, ok := errors.AsType[*ociclient.Error](err)
	switch {
	case !ok:
		return nil
	case e.Kind == ociclient.NotFound:
		return &ociError{http.StatusNotFound, "MANIFEST_UNKNOWN", "The upstream registry does not have it: " + e.Error()}
	case e.Kind == ociclient.Denied:
		return &ociError{http.StatusForbidden, "DENIED", "The upstream registry refused: " + e.Error()}
	}
	return &ociError{http.StatusBadGateway, "UNAVAILABLE", "The upstream registry did not answer: " + e.Error()}
}
