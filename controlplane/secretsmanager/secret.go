package secretsmanager

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// createSecret implements secretsmanager:CreateSecret.
func (f *Family) createSecret(ctx context.Context, in *sm.CreateSecretInput) (*sm.CreateSecretOutput, error) {
	name := aws.ToString(in.Name)
	switch {
	case len(in.AddReplicaRegions) > 0:
		return nil, invalidParameter("'AddReplicaRegions' is not supported by this platform: secrets are not replicated to other regions.")
	case in.Type != nil:
		return nil, invalidParameter("'Type' is not supported by this platform: there are no secrets that partners manage.")
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := checkKey(in.KmsKeyId); err != nil {
		return nil, err
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	val, err := valueOf(in.SecretString, in.SecretBinary)
	if err != nil {
		return nil, err
	}
	c, token, suffix := api.CallFrom(ctx), f.token(in.ClientRequestToken), newSuffix(f.Rand)
	out := &sm.CreateSecretOutput{Name: &name}
	err = f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		if old, ok := Secrets.Get(tx, scope.Key(name)); ok {
			return f.createdBefore(tx, old, token, val, out)
		}
		s := &Secret{Account: scope.Account, Region: scope.Region, Name: name, Suffix: suffix, Description: aws.ToString(in.Description),
			KmsKeyId: aws.ToString(in.KmsKeyId), Created: timestamppb.New(c.Time), Changed: timestamppb.New(c.Time)}
		out.ARN = new(s.ARN())
		controlplane.PutTags(tx, scope, s.ARN(), tags)
		if val != nil {
			out.VersionId = &token
			return f.addVersion(tx, s, token, val, []string{current}, c.Time)
		}
		Secrets.Put(tx, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// createdBefore: the same request again gets the same answer, another one is refused.
func (f *Family) createdBefore(tx *state.Tx, old *Secret, token string, val *value, out *sm.CreateSecretOutput) error {
	if old.Deleted != nil {
		return invalidRequest("You can't create this secret because a secret with this name is already scheduled for deletion.")
	}
	v, ok := old.version(tx, token)
	if !ok || val == nil {
		return awserr.New("ResourceExistsException", "The operation failed because the secret %s already exists.", old.Name)
	}
	if same, err := f.holds(old, v, val); err != nil {
		return err
	} else if !same {
		return tokenInUse(token, old)
	}
	out.ARN, out.VersionId = new(old.ARN()), &v.Id
	return nil
}

func newSuffix(random io.Reader) string { return pick(random, letters+upper+digits, suffixLength) }

// describeSecret implements secretsmanager:DescribeSecret.
func (f *Family) describeSecret(ctx context.Context, in *sm.DescribeSecretInput) (*sm.DescribeSecretOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	s, err := find(v, scope, aws.ToString(in.SecretId))
	if err != nil {
		return nil, err
	}
	e := entry(v, s)
	return &sm.DescribeSecretOutput{ARN: e.ARN, Name: e.Name, Description: e.Description, KmsKeyId: e.KmsKeyId, CreatedDate: e.CreatedDate,
		LastChangedDate: e.LastChangedDate, DeletedDate: e.DeletedDate, Tags: e.Tags, VersionIdsToStages: e.SecretVersionsToStages}, nil
}

// entry is the secret as listings show it: without any value.
func entry(r state.Reader, s *Secret) types.SecretListEntry {
	e := types.SecretListEntry{ARN: new(s.ARN()), Name: &s.Name, CreatedDate: date(s.Created), LastChangedDate: date(s.Changed),
		DeletedDate: date(s.Deleted), Tags: tagList(controlplane.TagsOf(r, s.scope(), s.ARN()))}
	if s.Description != "" {
		e.Description = &s.Description
	}
	if s.KmsKeyId != "" {
		e.KmsKeyId = &s.KmsKeyId
	}
	if stages := s.byVersion(); len(stages) > 0 {
		e.SecretVersionsToStages = stages
	}
	return e
}

func date(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.AsTime())
}

// updateSecret implements secretsmanager:UpdateSecret: a new value is a new version, and current.
func (f *Family) updateSecret(ctx context.Context, in *sm.UpdateSecretInput) (*sm.UpdateSecretOutput, error) {
	if in.Type != nil {
		return nil, invalidParameter("'Type' is not supported by this platform: there are no secrets that partners manage.")
	}
	if err := checkKey(in.KmsKeyId); err != nil {
		return nil, err
	}
	val, err := valueOf(in.SecretString, in.SecretBinary)
	if err != nil {
		return nil, err
	}
	c, token := api.CallFrom(ctx), f.token(in.ClientRequestToken)
	out := &sm.UpdateSecretOutput{}
	err = f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := live(tx, scope, in.SecretId)
		if err != nil {
			return err
		}
		s := proto.CloneOf(old)
		if in.Description != nil {
			s.Description = *in.Description
		}
		if in.KmsKeyId != nil {
			s.KmsKeyId = *in.KmsKeyId
		}
		s.Changed = timestamppb.New(c.Time)
		out.ARN, out.Name = new(s.ARN()), &s.Name
		if val == nil {
			Secrets.Put(tx, s)
			return nil
		}
		out.VersionId = &token
		return f.addVersion(tx, s, token, val, []string{current}, c.Time)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// The recovery window in days.
const (
	defaultWindow = 30
	leastWindow   = 7
	mostWindow    = 30
)

// deleteSecret implements secretsmanager:DeleteSecret. Run removes it once its window is over.
func (f *Family) deleteSecret(ctx context.Context, in *sm.DeleteSecretInput) (*sm.DeleteSecretOutput, error) {
	force, days := aws.ToBool(in.ForceDeleteWithoutRecovery), aws.ToInt64(in.RecoveryWindowInDays)
	switch {
	case force && in.RecoveryWindowInDays != nil:
		return nil, invalidParameter("You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.")
	case in.RecoveryWindowInDays == nil:
		days = defaultWindow
	case days < leastWindow || days > mostWindow:
		return nil, invalidParameter("The RecoveryWindowInDays value must be between %d and %d days (inclusive).", leastWindow, mostWindow)
	}
	now, suffix := api.CallFrom(ctx).Time, newSuffix(f.Rand)
	out := &sm.DeleteSecretOutput{DeletionDate: &now}
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := find(tx, scope, aws.ToString(in.SecretId))
		if force && awserr.Is(err, "ResourceNotFoundException") && !arn.Is(*in.SecretId) {
			// "With an already deleted or nonexistent secret, the operation does not return ResourceNotFoundException."
			out.ARN, out.Name = new(secretARN(scope, *in.SecretId+"-"+suffix)), in.SecretId
			return nil
		}
		if err != nil {
			return err
		}
		out.ARN, out.Name = new(old.ARN()), &old.Name
		if force {
			remove(tx, old)
			return nil
		}
		if old.Deleted != nil {
			return markedForDeletion()
		}
		s := proto.CloneOf(old)
		s.Deleted, s.Due = timestamppb.New(now), timestamppb.New(now.AddDate(0, 0, int(days)))
		out.DeletionDate = date(s.Due)
		Secrets.Put(tx, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// remove removes the secret with all there is of it. There are at most maxVersions versions, so it fits a transaction.
func remove(tx *state.Tx, s *Secret) {
	for v := range Versions.Scan(tx, s.versions()) {
		Versions.Delete(tx, Versions.Key(v))
	}
	Secrets.Delete(tx, Secrets.Key(s))
	controlplane.PutTags(tx, s.scope(), s.ARN(), nil)
}

// restoreSecret implements secretsmanager:RestoreSecret.
func (f *Family) restoreSecret(ctx context.Context, in *sm.RestoreSecretInput) (*sm.RestoreSecretOutput, error) {
	out := &sm.RestoreSecretOutput{}
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := find(tx, scope, aws.ToString(in.SecretId))
		if err != nil {
			return err
		}
		s := proto.CloneOf(old)
		s.Deleted, s.Due = nil, nil
		out.ARN, out.Name = new(s.ARN()), &s.Name
		Secrets.Put(tx, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// expireEvery is how long a secret may outlive its recovery window.
const expireEvery = time.Minute

// Run removes secrets whose recovery window is over, whenever this server leads, until ctx ends.
func (f *Family) Run(ctx context.Context) error {
	return f.Store.RunLeader(ctx, func(ctx context.Context) error {
		for ctx.Err() == nil {
			if err := f.expire(ctx); err != nil && ctx.Err() == nil {
				f.Log.Error("remove deleted secrets; trying again", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-f.Clock.After(expireEvery):
			}
		}
		return nil
	})
}

func (f *Family) expire(ctx context.Context) error {
	due := func(s *Secret) bool { return s.Due != nil && !s.Due.AsTime().After(f.Clock.Now()) }
	for seen := range Secrets.Scan(f.Store.View(), state.K()) {
		if !due(seen) {
			continue
		}
		_, err := f.Store.Update(ctx, func(tx *state.Tx) error {
			if s, ok := Secrets.Get(tx, Secrets.Key(seen)); ok && due(s) { // it may have been restored
				remove(tx, s)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("remove %s: %w", seen.ARN(), err)
		}
	}
	return nil
}

// byVersion is the staging labels of each version that has any.
func (s *Secret) byVersion() map[string][]string {
	out := map[string][]string{}
	for _, stage := range slices.Sorted(maps.Keys(s.Stages)) {
		out[s.Stages[stage]] = append(out[s.Stages[stage]], stage)
	}
	return out
}
