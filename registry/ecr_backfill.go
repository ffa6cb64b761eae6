package registry

import (
	"context"
	"iter"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// maxBackfills is how many backfills a registry may have in progress.
const maxBackfills = 10

func backfill(v state.Reader, account, region string, id *string) (*Backfill, error) {
	b, ok := Backfills.Get(v, state.K(account, region, value(id)))
	if !ok {
		return nil, awserr.New("ReplicationBackfillNotFoundException", "The replication backfill with id '%s' does not exist in the registry with id '%s'", value(id), account)
	}
	return b, nil
}

// startReplicationBackfill implements ecr:StartReplicationBackfill.
func (r *Registry) startReplicationBackfill(ctx context.Context, in *ecr.StartReplicationBackfillInput) (*ecr.StartReplicationBackfillOutput, error) {
	account, region, err := ownRegistry(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	b := &Backfill{Account: account, Region: region, Id: id.UUID(r.Rand), ToAccount: value(in.Destination.RegistryId), ToRegion: value(in.Destination.Region),
		Status: backfillPreparing, Started: timestamppb.New(r.Clock.Now())}
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		if !r.configured(tx, b) {
			return awserr.New("InvalidParameterException", "Invalid parameter at 'destination' failed to satisfy constraint: 'the replication configuration of the registry has no destination %s in %s'", b.ToAccount, b.ToRegion)
		}
		n := 0
		for other := range Backfills.Scan(tx, state.K(account, region)) {
			if other.ended() {
				continue
			}
			if n++; other.ToRegion == b.ToRegion {
				return awserr.New("ReplicationBackfillInProgressException", "The replication backfill with id '%s' to the region '%s' is in progress in the registry with id '%s'", other.Id, b.ToRegion, account)
			}
		}
		if n >= maxBackfills {
			return awserr.New("LimitExceededException", "The registry with id '%s' has %d replication backfills in progress already, which is the limit", account, n)
		}
		Backfills.Put(tx, b)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.StartReplicationBackfillOutput{Destination: in.Destination, RegistryId: &account, ReplicationBackfillId: &b.Id,
		StartedAt: optionalTime(b.Started), Status: types.ReplicationBackfillStatus(b.Status)}, nil
}

// stopReplicationBackfill implements ecr:StopReplicationBackfill. What is in the outbox goes on to its end.
func (r *Registry) stopReplicationBackfill(ctx context.Context, in *ecr.StopReplicationBackfillInput) (*ecr.StopReplicationBackfillOutput, error) {
	account, region, err := ownRegistry(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	var b *Backfill
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		now, err := backfill(tx, account, region, in.ReplicationBackfillId)
		if err != nil {
			return err
		}
		b = proto.CloneOf(now)
		switch b.Status {
		case backfillPreparing:
			b.Status, b.Ended = backfillStopped, timestamppb.New(r.Clock.Now())
		case backfillInProgress:
			b.Status = backfillStopping
		default:
			return awserr.New("ReplicationBackfillInvalidStatusException", "The replication backfill with id '%s' cannot be stopped: it is %s", b.Id, b.Status)
		}
		Backfills.Put(tx, b)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.StopReplicationBackfillOutput{Destination: b.destination(), RegistryId: &account, ReplicationBackfillId: &b.Id,
		StartedAt: optionalTime(b.Started), Status: types.ReplicationBackfillStatus(b.Status)}, nil
}

func (b *Backfill) destination() *types.ReplicationDestination {
	return &types.ReplicationDestination{Region: &b.ToRegion, RegistryId: &b.ToAccount}
}

// progress is nil until all images are known.
func (b *Backfill) progress() *types.ReplicationBackfillProgress {
	if !b.Prepared {
		return nil
	}
	return &types.ReplicationBackfillProgress{TotalReplicationCount: new(int32(b.Total)), CompletedReplicationCount: new(int32(b.Completed)),
		FailedReplicationCount: new(int32(b.Failed)), FailureCodes: append([]string{}, b.FailureCodes...)}
}

// optionalText is nil for an empty string.
func optionalText(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// listReplicationBackfills implements ecr:ListReplicationBackfills.
func (r *Registry) listReplicationBackfills(ctx context.Context, in *ecr.ListReplicationBackfillsInput) (*ecr.ListReplicationBackfillsOutput, error) {
	size, ok := api.PageWithin(in.MaxResults, 25, 50)
	if !ok {
		return nil, invalidParameter("maxResults", "must be between 1 and 50")
	}
	account, region, err := ownRegistry(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	prefix := state.K(account, region)
	page, next, err := api.Page(ctx, r.pages, in, size, func(after state.Key) iter.Seq[*Backfill] {
		return Backfills.ScanFrom(r.Store.View(), prefix, max(after, prefix))
	}, Backfills.Key)
	if err != nil {
		return nil, err
	}
	out := &ecr.ListReplicationBackfillsOutput{Backfills: []types.ReplicationBackfillSummary{}, NextToken: next, RegistryId: &account}
	for _, b := range page {
		out.Backfills = append(out.Backfills, types.ReplicationBackfillSummary{Destination: b.destination(), ReplicationBackfillId: &b.Id, StartedAt: optionalTime(b.Started),
			EndedAt: optionalTime(b.Ended), Status: types.ReplicationBackfillStatus(b.Status), FailureCode: optionalText(b.FailureCode), Progress: b.progress()})
	}
	return out, nil
}

// describeReplicationBackfillResults implements ecr:DescribeReplicationBackfillResults. Results are there once it has ended.
func (r *Registry) describeReplicationBackfillResults(ctx context.Context, in *ecr.DescribeReplicationBackfillResultsInput) (*ecr.DescribeReplicationBackfillResultsOutput, error) {
	size, ok := api.PageWithin(in.MaxResults, 100, 1000)
	if !ok {
		return nil, invalidParameter("maxResults", "must be between 1 and 1000")
	}
	account, region, err := ownRegistry(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	v := r.Store.View()
	b, err := backfill(v, account, region, in.ReplicationBackfillId)
	if err != nil {
		return nil, err
	}
	shown := []string{replicationComplete, replicationFailed}
	if in.ResultStatusFilter != "" {
		shown = []string{string(in.ResultStatusFilter)}
	}
	page, next, err := api.Page(ctx, r.pages, in, size, func(after state.Key) iter.Seq[*BackfillImage] {
		return func(yield func(*BackfillImage) bool) {
			if !b.ended() {
				return
			}
			for i := range BackfillImages.ScanFrom(v, b.under(), max(after, b.under())) {
				if slices.Contains(shown, i.Status) && !yield(i) {
					return
				}
			}
		}
	}, BackfillImages.Key)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribeReplicationBackfillResultsOutput{Destination: b.destination(), EndedAt: optionalTime(b.Ended), FailureCode: optionalText(b.FailureCode), NextToken: next,
		Progress: b.progress(), RegistryId: &account, ReplicationBackfillId: &b.Id, Results: []types.ReplicationBackfillResult{}, StartedAt: optionalTime(b.Started),
		Status: types.ReplicationBackfillStatus(b.Status)}
	for _, i := range page {
		out.Results = append(out.Results, types.ReplicationBackfillResult{RepositoryName: &i.Name, Status: types.ReplicationBackfillResultStatus(i.Status), FailureCode: optionalText(i.FailureCode),
			ImageId: &types.ImageIdentifier{ImageDigest: &i.Digest, ImageTag: optionalText(i.Tag)}})
	}
	return out, nil
}
