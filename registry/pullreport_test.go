package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/internal/testcluster"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// oneOf is a server as its registry knows the others, which have the same blobs.
type oneOf struct {
	id  string
	all map[string]*bench
}

func (o *oneOf) Others() (ids []string, known bool) {
	for id := range o.all {
		if id != o.id {
			ids = append(ids, id)
		}
	}
	return ids, true
}

func (o *oneOf) ReportPulls(ctx context.Context, report []byte) error {
	for _, b := range o.all {
		if b.store.Leadership().Term != 0 {
			return b.reg.TakePulls(ctx, o.id, report)
		}
	}
	return state.ErrNotLeader
}

func (o *oneOf) Spread(context.Context, blob.Digest) error { return nil }
func (o *oneOf) Fetch(context.Context, blob.Digest) error  { return blob.ErrNotFound }
func (o *oneOf) FetchUpload(context.Context, string) error { return blob.ErrNotFound }

// TestPullsOfThreeServers: an image that is pulled from a server that follows is not archived for not having been pulled, one that is pulled from
// none is; and a next leader knows what the one before was told.
func TestPullsOfThreeServers(t *testing.T) {
	schema := append(controlplane.Schema[:len(controlplane.Schema):len(controlplane.Schema)], registry.Schema...)
	// Nobody is to lose the leadership by a stall of this machine.
	cluster := testcluster.New(t, testcluster.Config{Servers: 3, Schema: schema, Configure: func(o *raft.Options) { o.ElectionTimeout = 5 * time.Second }})
	all := map[string]*bench{}
	var first *bench
	for _, s := range cluster.Servers() {
		b := newBench(t, func(c *registry.Config) {
			c.Store, c.Copies = s.Store(), &oneOf{s.ID, all}
			if first != nil {
				c.Blobs, c.Clock = first.blobs, first.clock
			}
		})
		if b.store = s.Store(); first == nil {
			first = b
		}
		b.blobs, b.clock = first.blobs, first.clock
		all[s.ID] = b
	}
	server := cluster.Leader()
	leader := all[server.ID]
	var followers []*bench
	for _, s := range cluster.Followers(server) {
		followers = append(followers, all[s.ID])
	}
	tell := func() {
		t.Helper()
		for _, b := range all {
			if err := b.reg.RecordPulls(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	leader.create("users")
	here := leader.pushImage("users", "here", "1")
	there := leader.pushImage("users", "there", "2")
	never := leader.pushImage("users", "never", "3")
	leader.putPolicy("users", new(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":30},`+
		`"action":{"type":"transition","targetStorageClass":"archive"}}]}`))
	archived := func(b *bench) (list []blob.Digest) {
		t.Helper()
		v, err := b.store.Linearizable(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for m := range registry.Manifests.Scan(v, state.K()) {
			if m.InArchive {
				list = append(list, blob.Digest(m.Digest))
			}
		}
		return list
	}
	later := func(d time.Duration) {
		for i, b := range []*bench{leader, followers[0], followers[1]} {
			if i == 0 {
				b.age(d) // the clock is everybody's
			} else {
				b.age(0)
			}
		}
	}
	pull := func(b *bench, tag string) {
		t.Helper()
		if _, err := b.store.Linearizable(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.want(200, "GET", "/v2/users/manifests/"+tag, nil)
	}
	later(20 * 24 * time.Hour)
	pull(leader, "here")
	pull(followers[0], "there")
	later(11 * 24 * time.Hour)
	if got := leader.applyPolicies(); got.Archived != 0 {
		t.Errorf("before all have told: %+v", got)
	}
	later(25 * time.Hour) // a repository has its turn once a day
	tell()
	if got := leader.applyPolicies(); got.Archived != 1 {
		t.Errorf("once all have told: %+v", got)
	}
	if got := archived(leader); len(got) != 1 || got[0] != never {
		t.Errorf("archived are %v, want %s", got, never)
	}
	later(25 * time.Hour)
	later(18 * 24 * time.Hour) // past 30 days since either was pulled, but for what follows
	pull(followers[1], "here")
	tell()
	if err := server.Engine().TransferLeadership(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	next := all[cluster.Leader(server).ID]
	if got := next.applyPolicies(); got.Archived != 0 {
		t.Errorf("a new leader that was told nothing yet: %+v", got)
	}
	later(25 * time.Hour)
	tell()
	if got := next.applyPolicies(); got.Archived != 1 {
		t.Errorf("a new leader: %+v", got)
	}
	for _, d := range archived(next) {
		if d == here {
			t.Errorf("%s was archived, which was pulled a day before", here)
		}
	}
	if got := archived(next); len(got) != 2 {
		t.Errorf("archived are %v, want %s and %s", got, never, there)
	}
}
