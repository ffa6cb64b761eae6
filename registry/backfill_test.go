package registry_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

func (b *bench) startBackfill(region string) string {
	b.t.Helper()
	out := must[ecr.StartReplicationBackfillOutput](b, &ecr.StartReplicationBackfillInput{Destination: new(destination(region))})
	if out.Status != types.ReplicationBackfillStatusPreparing || !out.StartedAt.Equal(b.clock.Now()) || *out.RegistryId != account || *out.Destination.Region != region {
		b.t.Errorf("started: %+v", out)
	}
	return *out.ReplicationBackfillId
}

func (b *bench) backfill(id string) *ecr.DescribeReplicationBackfillResultsOutput {
	b.t.Helper()
	return must[ecr.DescribeReplicationBackfillResultsOutput](b, &ecr.DescribeReplicationBackfillResultsInput{ReplicationBackfillId: &id, MaxResults: new(int32(1000))})
}

// ended waits for a backfill's end.
func (b *bench) ended(id string, want types.ReplicationBackfillStatus) *ecr.DescribeReplicationBackfillResultsOutput {
	b.t.Helper()
	b.eventually(time.Second, func(*state.View) bool { return b.backfill(id).EndedAt != nil })
	out := b.backfill(id)
	if out.Status != want {
		b.t.Fatalf("it ended %s (%v), want %s", out.Status, out.FailureCode, want)
	}
	return out
}

// TestReplicationBackfill brings what was pushed before: more images, tags and repositories than one transaction takes, an index with its
// child, and nothing that no rule asks for. A restart in the middle costs nothing.
func TestReplicationBackfill(t *testing.T) {
	b := newBench(t)
	want := map[string]bool{} // repository digest tag
	for i := range 12 {
		repo := fmt.Sprintf("prod/r%02d", i)
		b.create(repo)
		for j := range 3 {
			d := b.pushImage(repo, fmt.Sprint("v", j), fmt.Sprint(i, j))
			want[fmt.Sprint(repo, " ", d, " v", j)] = true
			if j == 1 {
				b.pushImage(repo, "again", fmt.Sprint(i, j))
				want[fmt.Sprint(repo, " ", d, " again")] = true
			}
		}
	}
	b.create("dev/app", "prod/index")
	b.pushImage("dev/app", "v1", "x")
	child := b.imageOf("prod/index", "{}", "child")
	b.want(201, "PUT", "/v2/prod/index/manifests/"+string(blob.Sum([]byte(child))), child, mediaType(ociManifest))
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{desc(ociManifest, blob.Sum([]byte(child)), len(child))}})
	b.want(201, "PUT", "/v2/prod/index/manifests/all", index, mediaType(ociIndex))
	want[fmt.Sprint("prod/index ", blob.Sum([]byte(index)), " all")] = true

	refused[ecr.StartReplicationBackfillOutput](b, &ecr.StartReplicationBackfillInput{Destination: new(destination(elsewhere))},
		"InvalidParameterException: Invalid parameter at 'destination' failed to satisfy constraint: 'the replication configuration of the registry has no destination 000000000000 in eu-west-1'")
	b.replicateTo(elsewhere, "prod/")
	id := b.startBackfill(elsewhere)
	refused[ecr.StartReplicationBackfillOutput](b, &ecr.StartReplicationBackfillInput{Destination: new(destination(elsewhere))},
		"ReplicationBackfillInProgressException: The replication backfill with id '"+id+"' to the region 'eu-west-1' is in progress in the registry with id '000000000000'")
	if out := b.backfill(id); out.Progress != nil || len(out.Results) != 0 {
		t.Errorf("before anything was done: %+v", out)
	}
	stop := b.run()
	b.eventually(time.Second, func(*state.View) bool {
		p := b.backfill(id).Progress
		return p != nil && *p.CompletedReplicationCount > 0
	})
	stop()
	b.restart().run()
	out := b.ended(id, types.ReplicationBackfillStatusComplete)
	if p := out.Progress; int(*p.TotalReplicationCount) != len(want) || int(*p.CompletedReplicationCount) != len(want) || *p.FailedReplicationCount != 0 || len(p.FailureCodes) != 0 {
		t.Errorf("progress %d %d %d %v, want %d", *p.TotalReplicationCount, *p.CompletedReplicationCount, *p.FailedReplicationCount, p.FailureCodes, len(want))
	}
	for _, r := range out.Results {
		key := *r.RepositoryName + " " + *r.ImageId.ImageDigest + " " + deref(r.ImageId.ImageTag)
		if !want[key] || r.Status != types.ReplicationBackfillResultStatusComplete {
			t.Errorf("result %s: %s", key, r.Status)
		}
		delete(want, key)
		there, err := call[ecr.DescribeImagesOutput](b, account, elsewhere, &ecr.DescribeImagesInput{RepositoryName: r.RepositoryName, ImageIds: []types.ImageIdentifier{{ImageTag: r.ImageId.ImageTag}}})
		if err != nil || *there.ImageDetails[0].ImageDigest != *r.ImageId.ImageDigest {
			t.Errorf("%s there: %v", key, err)
		}
	}
	if len(want) != 0 {
		t.Errorf("without a result: %v", want)
	}
	if _, err := call[ecr.DescribeImagesOutput](b, account, elsewhere, &ecr.DescribeImagesInput{RepositoryName: new("dev/app")}); err == nil {
		t.Error("what no rule asks for was replicated")
	}
	refused[ecr.StopReplicationBackfillOutput](b, &ecr.StopReplicationBackfillInput{ReplicationBackfillId: &id},
		"ReplicationBackfillInvalidStatusException: The replication backfill with id '"+id+"' cannot be stopped: it is COMPLETE")
	refused[ecr.DescribeReplicationBackfillResultsOutput](b, &ecr.DescribeReplicationBackfillResultsInput{ReplicationBackfillId: new("00000000-0000-0000-0000-000000000000")},
		"ReplicationBackfillNotFoundException: The replication backfill with id '00000000-0000-0000-0000-000000000000' does not exist in the registry with id '000000000000'")

	// It is shown for 90 days, and then nothing of it is left.
	list := func() int {
		return len(must[ecr.ListReplicationBackfillsOutput](b, &ecr.ListReplicationBackfillsInput{}).Backfills)
	}
	b.clock.Advance(89 * 24 * time.Hour)
	if list() != 1 {
		t.Error("it is not listed")
	}
	b.eventually(time.Hour, func(v *state.View) bool {
		return list() == 0 && len(slices.Collect(registry.BackfillImages.Scan(v, state.K()))) == 0
	})
}

// TestStopReplicationBackfill: what is in the outbox goes on, nothing follows it. The destination lets no image in before it is stopped.
func TestStopReplicationBackfill(t *testing.T) {
	there := newCluster(t)
	there.create("app")
	b := newBench(t, there.as("far", "AKIA"))
	b.create("app")
	const images = 60 // more than the outbox takes of a backfill
	for i := range images {
		b.pushImage("app", fmt.Sprint("v", i), fmt.Sprint(i))
	}
	b.replicateTo("far")
	early := b.startBackfill("far")
	if out := must[ecr.StopReplicationBackfillOutput](b, &ecr.StopReplicationBackfillInput{ReplicationBackfillId: &early}); out.Status != types.ReplicationBackfillStatusStopped {
		t.Errorf("stopped before it was prepared: %s", out.Status)
	}
	if out := b.backfill(early); out.Progress != nil || out.EndedAt == nil {
		t.Errorf("%+v", out)
	}
	stopped, letIn := context.WithCancel(t.Context())
	there.fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			<-stopped.Done()
		}
		return false
	})
	id := b.startBackfill("far")
	b.run()
	b.eventually(time.Second, func(v *state.View) bool {
		return b.backfill(id).Status == types.ReplicationBackfillStatusInProgress && !nothingPending(v)
	})
	if out := must[ecr.StopReplicationBackfillOutput](b, &ecr.StopReplicationBackfillInput{ReplicationBackfillId: &id}); out.Status != types.ReplicationBackfillStatusStopping {
		t.Fatalf("stopped: %s", out.Status)
	}
	letIn()
	ended := b.ended(id, types.ReplicationBackfillStatusStopped)
	b.replicated()
	n := int(*ended.Progress.CompletedReplicationCount)
	arrived := must[ecr.DescribeImagesOutput](there.bench, &ecr.DescribeImagesInput{RepositoryName: new("app"), MaxResults: new(int32(1000))}).ImageDetails
	if *ended.Progress.TotalReplicationCount != images || n == 0 || n == images || n != len(ended.Results) || n != len(arrived) {
		t.Errorf("%d of %d completed, %d results, %d images there", n, *ended.Progress.TotalReplicationCount, len(ended.Results), len(arrived))
	}
}

// TestReplicationBackfillFailures: images that cannot be brought are told, and the others come.
func TestReplicationBackfillFailures(t *testing.T) {
	b := guarded(t)
	b.create("app", "other")
	b.pushImage("app", "v1", "1")
	b.pushImage("other", "v1", "1")
	to := types.ReplicationDestination{Region: new(region), RegistryId: new(stranger)}
	must[ecr.PutReplicationConfigurationOutput](b, &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &types.ReplicationConfiguration{Rules: []types.ReplicationRule{{Destinations: []types.ReplicationDestination{to}}}}})
	text := policyOf(`{"Effect":"Allow","Principal":{"AWS":"` + account + `"},"Action":"ecr:*","Resource":"arn:aws:ecr:*:*:repository/app"}`)
	if _, err := call[ecr.PutRegistryPolicyOutput](b, stranger, region, &ecr.PutRegistryPolicyInput{PolicyText: &text}); err != nil {
		t.Fatal(err)
	}
	id := *must[ecr.StartReplicationBackfillOutput](b, &ecr.StartReplicationBackfillInput{Destination: &to}).ReplicationBackfillId
	b.run()
	out := b.ended(id, types.ReplicationBackfillStatusComplete)
	if p := out.Progress; *p.CompletedReplicationCount != 1 || *p.FailedReplicationCount != 1 || !slices.Equal(p.FailureCodes, []string{"AccessDenied"}) {
		t.Errorf("%+v", p)
	}
	failed := must[ecr.DescribeReplicationBackfillResultsOutput](b, &ecr.DescribeReplicationBackfillResultsInput{ReplicationBackfillId: &id, ResultStatusFilter: types.ReplicationBackfillResultStatusFailed}).Results
	if len(failed) != 1 || *failed[0].RepositoryName != "other" || deref(failed[0].FailureCode) != "AccessDenied" {
		t.Errorf("%+v", failed)
	}
}

// TestManyBackfills: one for a region and ten in all.
func TestManyBackfills(t *testing.T) {
	b := newBench(t)
	var many []types.ReplicationDestination
	for i := range 11 {
		many = append(many, destination(fmt.Sprint("region-", i)))
	}
	must[ecr.PutReplicationConfigurationOutput](b, &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &types.ReplicationConfiguration{Rules: []types.ReplicationRule{{Destinations: many}}}})
	for i := range 10 {
		must[ecr.StartReplicationBackfillOutput](b, &ecr.StartReplicationBackfillInput{Destination: &many[i]})
	}
	refused[ecr.StartReplicationBackfillOutput](b, &ecr.StartReplicationBackfillInput{Destination: &many[10]},
		"LimitExceededException: The registry with id '000000000000' has 10 replication backfills in progress already, which is the limit")
	seen := 0
	in := &ecr.ListReplicationBackfillsInput{MaxResults: new(int32(4))}
	for {
		out := must[ecr.ListReplicationBackfillsOutput](b, in)
		seen += len(out.Backfills)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if seen != 10 {
		t.Errorf("%d are listed", seen)
	}
}
