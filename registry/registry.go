// Package registry is the container registry: the OCI distribution protocol (1.1, with Docker's schema 2) under /v2/ and the
// ECR operations, over one set of records. It runs no images, and reads layers only to scan them.
//
// Repositories, tags, manifest descriptors and layer memberships are records in the state; the bytes of manifests and layers
// are blobs in storage/blob. registry.proto has the records, tables.go their keys and indexes.
//
// Invariants:
//   - A record that names a digest is committed only after its blob is durable, and while the blob is leased; the push is
//     acknowledged only after that commit. So every acknowledged image pulls, whatever crashes when.
//   - Manifests name only layers and children that their repository has (but for foreign layers, and for cached images, which get
//     theirs from their upstream when they are asked for): the transaction that commits a
//     manifest reads those records, the ones that delete them read who refers to them.
//   - A tag's move and the check of its immutability are one transaction.
//   - References are never counted: what is referenced is asked of indexes over the records.
//   - When an image was last pulled is kept in memory and written down at most once an hour (pulls.go).
//
// docs/design/registry.md says why it is not an existing registry behind a façade.
package registry

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/registry/scan"
	"github.com/seed-2f228079/neargate/registry/signature"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/bucket"
)

//go:generate protoc -I .. --go_out=.. --go_opt=paths=source_relative registry/registry.proto

// Config is what a registry needs. Store, Blobs, Seal, PublicName and Region are required.
type Config struct {
	Store *state.Store // with the tables of Schema and controlplane.Schema
	Blobs *blob.Store  // for this registry alone: what its records do not refer to is deleted
	Seal  api.Sealer   // makes tokens and page tokens

	// PublicName is the host[:port] of a registry as clients should write it in image names: "127.0.0.1:4566". It need not
	// tell account and region: a token does.
	PublicName func(account, region string) string
	// Domain is D in <account>.dkr.ecr.<region>.D, the hosts by which PullCredentials knows this registry as well. Empty: none.
	Domain string
	TLS    bool   // whether that host is reached by https
	Region string // of requests that name none: a bare host, and credentials other than a token

	// Credentials checks an access key given as user name and password. nil: only tokens are accepted.
	Credentials func(ctx context.Context, accessKeyID, secret string) (api.Identity, bool)
	// Authorizer is asked, for each request under /v2/, for the actions that it stands for, and for what is replicated to another account;
	// nil: whoever logged in may do everything in its account, and nothing in another.
	Authorizer Authorizer
	// Principals finds the unique id of a user or role, which policies may name only if it is there; nil: whatever they name is taken
	// as it is.
	Principals func(v state.Reader, arn string) (id string, ok bool)
	// Weigh is what a policy that is to be put says of an action of the caller, who is not to lock himself out; nil: nobody is kept from that.
	Weigh func(c *api.Call, action, resource string, p *policy.Policy) policy.Effect
	// CreateOnPush creates a repository when something is pushed to it. Off, as in ECR, unless set.
	CreateOnPush bool

	// Users yields the images that tasks and services of an account need: lifecycle policies keep those. nil: none does.
	Users func(v state.Reader, account string) iter.Seq[controlplane.ImageUse]

	// Remotes are other clusters that images are replicated to, by the region that stands for each: a region that is none of
	// this cluster's own.
	Remotes map[string]Remote

	// Scanner knows vulnerabilities; nil: scans fail, and say what to do.
	Scanner scan.Scanner
	// Scratch is a folder for what a scan has to put aside. Empty: the system's.
	Scratch string
	// Gate refuses images to tasks that have findings of this severity or above; empty: none.
	Gate scan.Severity
	// Signatures are what images need to have for tasks to get them; nil: none.
	Signatures *Signatures

	// Signer finds the key of an account's signing profile, whose error then says why there is none to use; nil: there are no profiles.
	Signer func(account, profile string) (*signature.Signer, error)

	// Copies are the blobs of other servers; nil: there are none.
	Copies Copies

	// Bucket is the object store that has the blobs, of which Blobs is a cache then; nil: blobs are on the disks of servers.
	Bucket *bucket.Bucket

	// Quotas bound what a registry holds.
	Quotas Quotas

	// LayerGrace is how long a layer that no manifest names stays in its repository after it was pushed or last asked for:
	// the time a client has between layers and manifest. Default 24 h.
	LayerGrace time.Duration
	// CollectEvery is the pause between two garbage collections. Default 1 h.
	CollectEvery time.Duration

	// ScrubFile is where it is written down how far the blobs have been read again; empty: they are not. All are read in ScrubEvery (default 7
	// days), at ScrubRate bytes a second (default 16 MiB).
	ScrubFile  string
	ScrubEvery time.Duration
	ScrubRate  int64

	Clock clock.Clock  // default: the machine's
	Rand  io.Reader    // default: crypto/rand
	Log   *slog.Logger // default: slog.Default()
}

// Authorizer decides what a caller may do.
type Authorizer interface {
	Authorize(ctx context.Context, c *api.Call, a api.Access) error
}

// Registry serves all accounts and regions. It is safe for concurrent use.
type Registry struct {
	Config
	pages     *api.Pages
	pulls     *pulls
	remotes   map[string]*remote // of Remotes
	upstreams *upstreams
	policies  policyCache
	logins    logins
	counts    counts
	objects   objects
	scrubber  scrubber
}

// New checks the configuration.
func New(c Config) (*Registry, error) {
	if c.Store == nil || c.Blobs == nil || c.Seal == nil || c.PublicName == nil || c.Region == "" {
		return nil, errors.New("registry: Store, Blobs, Seal, PublicName and Region are required")
	}
	c.LayerGrace = cmp.Or(c.LayerGrace, 24*time.Hour)
	c.ScrubEvery = cmp.Or(c.ScrubEvery, 7*24*time.Hour)
	c.ScrubRate = cmp.Or(c.ScrubRate, 16<<20)
	c.Quotas = c.Quotas.orDefaults()
	c.CollectEvery = cmp.Or(c.CollectEvery, time.Hour)
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	r := &Registry{Config: c, pages: api.NewPages(c.Seal), pulls: newPulls(), remotes: map[string]*remote{}, upstreams: newUpstreams(c.Clock)}
	r.scrubber.Registry = r
	for region, remote := range c.Remotes {
		r.remotes[region] = newRemote(region, remote, c.Clock)
	}
	return r, nil
}

// Handler serves /v2/.
func (r *Registry) Handler() http.Handler { return front{r} }

// Run works until ctx ends: it collects garbage, records pull times, copies from other servers what is missing here, reads what is here
// again, and where it leads it applies lifecycle policies, replicates, scans and signs.
func (r *Registry) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.mirror(ctx) })
	g.Go(func() error { return r.every(ctx, r.CollectEvery, r.collectAndLog) })
	if r.Bucket != nil {
		g.Go(func() error { return r.Bucket.Run(ctx) })
		g.Go(func() error { return r.Store.RunLeader(ctx, r.runObjects) })
	}
	g.Go(func() error { return r.every(ctx, pullsEvery, r.recordPullsAndLog) })
	if r.ScrubFile != "" {
		g.Go(func() error { return r.scrubber.run(ctx) })
	}
	g.Go(func() error { return r.Store.RunLeader(ctx, r.runLifecycle) })
	g.Go(func() error { return r.Store.RunLeader(ctx, r.runReplication) })
	g.Go(func() error { return r.Store.RunLeader(ctx, r.runScans) })
	g.Go(func() error { return r.Store.RunLeader(ctx, r.runBackfills) })
	g.Go(func() error { return r.Store.RunLeader(ctx, r.runSigning) })
	return g.Wait()
}

// every calls f, which has logged what failed, again and again with a pause before each time.
func (r *Registry) every(ctx context.Context, pause time.Duration, f func(context.Context)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.Clock.After(pause):
			f(ctx)
		}
	}
}

func (r *Registry) recordPullsAndLog(ctx context.Context) {
	// What was not written, or taken, is kept in mind for the next time.
	if err := r.tellPulls(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, state.ErrNotLeader) {
		r.Log.Warn("write down when images were pulled; trying again", "error", err)
	}
}

func (r *Registry) collectAndLog(ctx context.Context) {
	got, err := r.Collect(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		r.Log.Error("collect the registry's garbage", "error", err)
	case err == nil && got != (Collected{}):
		r.Log.Info("collected the registry's garbage", "records", got.Records, "layers", got.Layers, "blobs", got.Blobs, "bytes", got.Bytes, "uploads", got.Uploads, "compacted", got.Compacted)
	}
}
