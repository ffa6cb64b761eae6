package secretsmanager

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
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
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// Staging labels that the service moves by itself.
const (
	current  = "AWSCURRENT"
	previous = "AWSPREVIOUS"
)

// "Secrets Manager quotas": versions without a label are not removed before they are a day old.
const (
	maxVersions = 90 // AWS says about 100; a secret has to go in one transaction of 100 changes
	maxStages   = 20
	maxValue    = 65536 // bytes
	keepVersion = 24 * time.Hour
)

// value is what a version holds.
type value struct {
	bytes  []byte
	binary bool
}

// valueOf is the one of both that was given; nil: none.
func valueOf(text *string, binary []byte) (*value, error) {
	switch {
	case text != nil && binary != nil:
		return nil, invalidParameter("You can't specify both a binary secret value and a string secret value in the same secret.")
	case text != nil && len(*text) > maxValue || len(binary) > maxValue:
		return nil, invalidParameter("The secret value is longer than %d bytes.", maxValue) // the model counts characters
	case text != nil:
		return &value{bytes: []byte(*text)}, nil
	case binary != nil:
		return &value{binary, true}, nil
	}
	return nil, nil
}

// token is the id of a version to be made: a client that gives none makes a version with every request.
func (f *Family) token(given *string) string {
	if given == nil {
		return id.UUID(f.Rand)
	}
	return *given
}

func tokenInUse(token string, s *Secret) error {
	return awserr.New("ResourceExistsException", "You can't use ClientRequestToken %s because that value is already in use for a version of secret %s.", token, s.ARN())
}

// bound ties a sealed value to its place.
func bound(s *Secret, version string) []byte { return []byte("version v1 " + s.ARN() + " " + version) }

func (f *Family) open(s *Secret, v *SecretVersion) ([]byte, error) {
	b, err := f.Seal.Open(v.Sealed, bound(s, v.Id))
	if err != nil {
		return nil, fmt.Errorf("open version %s of %s: %w", v.Id, s.ARN(), err)
	}
	return b, nil
}

// holds says whether the version has this value.
func (f *Family) holds(s *Secret, v *SecretVersion, val *value) (bool, error) {
	have, err := f.open(s, v)
	return err == nil && v.Binary == val.binary && bytes.Equal(have, val.bytes), err
}

// addVersion puts s, which the caller may change, with one more version that has the labels. A version that is there already must have
// this value, and nothing happens.
func (f *Family) addVersion(tx *state.Tx, s *Secret, token string, val *value, stages []string, now time.Time) error {
	if old, ok := s.version(tx, token); ok {
		same, err := f.holds(s, old, val)
		if err == nil && !same {
			err = tokenInUse(token, s)
		}
		return err
	}
	v := &SecretVersion{Account: s.Account, Region: s.Region, Secret: s.Name, Suffix: s.Suffix, Id: token, Created: timestamppb.New(now),
		Sealed: f.Seal.Seal(val.bytes, bound(s, token)), Binary: val.binary}
	if s.Stages == nil {
		s.Stages = map[string]string{}
	}
	if len(s.Stages) == 0 && !slices.Contains(stages, current) {
		stages = append(slices.Clone(stages), current) // the first one is current, whatever it is called
	}
	for _, stage := range stages {
		s.move(stage, token)
	}
	if len(s.Stages) > maxStages {
		return awserr.New("LimitExceededException", "You can't attach more than %d staging labels to the versions of a secret.", maxStages)
	}
	s.Changed = timestamppb.New(now)
	if err := prune(tx, s, now); err != nil {
		return err
	}
	Versions.Put(tx, v)
	Secrets.Put(tx, s)
	return nil
}

// move gives a version a label; whoever was current is previous then.
func (s *Secret) move(stage, version string) {
	if was := s.Stages[current]; stage == current && was != "" && was != version {
		s.Stages[previous] = was
	}
	s.Stages[stage] = version
}

// prune makes room for one more version: the oldest ones without a label go.
func prune(tx *state.Tx, s *Secret, now time.Time) error {
	var all []*SecretVersion
	for v := range Versions.Scan(tx, s.versions()) {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b *SecretVersion) int { return a.Created.AsTime().Compare(b.Created.AsTime()) })
	labelled := s.byVersion()
	left := len(all)
	for _, v := range all {
		if left < maxVersions {
			break
		}
		if len(labelled[v.Id]) == 0 && now.Sub(v.Created.AsTime()) >= keepVersion {
			Versions.Delete(tx, Versions.Key(v))
			left--
		}
	}
	if left >= maxVersions {
		return awserr.New("LimitExceededException", "A secret can't have more than %d versions; those without staging labels are removed when they are a day old.", maxVersions)
	}
	return nil
}

// putSecretValue implements secretsmanager:PutSecretValue.
func (f *Family) putSecretValue(ctx context.Context, in *sm.PutSecretValueInput) (*sm.PutSecretValueOutput, error) {
	val, err := valueOf(in.SecretString, in.SecretBinary)
	switch {
	case err != nil:
		return nil, err
	case val == nil:
		return nil, invalidRequest("You must provide either SecretString or SecretBinary.")
	case in.RotationToken != nil:
		return nil, invalidParameter("'RotationToken' is not supported by this platform: secrets are not rotated.")
	}
	c, token, stages := api.CallFrom(ctx), f.token(in.ClientRequestToken), in.VersionStages
	if len(stages) == 0 {
		stages = []string{current}
	}
	out := &sm.PutSecretValueOutput{VersionId: &token}
	err = f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := live(tx, scope, in.SecretId)
		if err != nil {
			return err
		}
		s := proto.CloneOf(old)
		if err := f.addVersion(tx, s, token, val, stages, c.Time); err != nil {
			return err
		}
		out.ARN, out.Name, out.VersionStages = new(s.ARN()), &s.Name, s.byVersion()[token]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// getSecretValue implements secretsmanager:GetSecretValue.
func (f *Family) getSecretValue(ctx context.Context, in *sm.GetSecretValueInput) (*sm.GetSecretValueOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	e, err := f.read(v, scope, in.SecretId, in.VersionId, in.VersionStage)
	if err != nil {
		return nil, err
	}
	return &sm.GetSecretValueOutput{ARN: e.ARN, Name: e.Name, VersionId: e.VersionId, VersionStages: e.VersionStages, CreatedDate: e.CreatedDate,
		SecretString: e.SecretString, SecretBinary: e.SecretBinary}, nil
}

func (f *Family) read(r state.Reader, scope controlplane.Scope, secret, version, stage *string) (e types.SecretValueEntry, err error) {
	s, err := find(r, scope, aws.ToString(secret))
	if err != nil {
		return e, err
	}
	if s.Deleted != nil {
		return e, invalidRequest("You can't perform this operation on the secret because it was marked for deletion.")
	}
	label := cmp.Or(aws.ToString(stage), current)
	wanted, missing := s.Stages[label], "staging label: "+label
	if version != nil {
		wanted, missing = *version, "VersionId: "+*version
	}
	have, ok := s.version(r, wanted)
	if !ok {
		return e, awserr.New("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for %s", missing)
	}
	if version != nil && stage != nil && s.Stages[*stage] != *version {
		return e, invalidRequest("You provided a VersionStage that is not associated to the provided VersionId.")
	}
	plain, err := f.open(s, have)
	if err != nil {
		return e, err
	}
	e = types.SecretValueEntry{ARN: new(s.ARN()), Name: &s.Name, VersionId: &have.Id, VersionStages: s.byVersion()[have.Id], CreatedDate: date(have.Created)}
	if have.Binary {
		e.SecretBinary = plain
	} else {
		e.SecretString = new(string(plain))
	}
	return e, nil
}

// listSecretVersionIds implements secretsmanager:ListSecretVersionIds.
func (f *Family) listSecretVersionIds(ctx context.Context, in *sm.ListSecretVersionIdsInput) (*sm.ListSecretVersionIdsOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	s, err := find(v, scope, aws.ToString(in.SecretId))
	if err != nil {
		return nil, err
	}
	labels := s.byVersion()
	page, next, err := api.Page(ctx, f.Pages, in, api.PageSize(in.MaxResults, 100, 100), func(after state.Key) iter.Seq[*SecretVersion] {
		return func(yield func(*SecretVersion) bool) {
			for v := range Versions.ScanFrom(v, s.versions(), after) {
				if (len(labels[v.Id]) > 0 || aws.ToBool(in.IncludeDeprecated)) && !yield(v) {
					return
				}
			}
		}
	}, Versions.Key)
	if err != nil {
		return nil, err
	}
	out := &sm.ListSecretVersionIdsOutput{ARN: new(s.ARN()), Name: &s.Name, NextToken: next, Versions: []types.SecretVersionsListEntry{}}
	for _, v := range page {
		out.Versions = append(out.Versions, types.SecretVersionsListEntry{VersionId: &v.Id, VersionStages: labels[v.Id], CreatedDate: date(v.Created),
			KmsKeyIds: []string{"DefaultEncryptionKey"}})
	}
	return out, nil
}

// updateSecretVersionStage implements secretsmanager:UpdateSecretVersionStage.
func (f *Family) updateSecretVersionStage(ctx context.Context, in *sm.UpdateSecretVersionStageInput) (*sm.UpdateSecretVersionStageOutput, error) {
	stage, to, from := aws.ToString(in.VersionStage), aws.ToString(in.MoveToVersionId), aws.ToString(in.RemoveFromVersionId)
	if stage == current && to == "" {
		return nil, invalidParameter("You can only move staging label %s to a different secret version. It can't be completely removed.", current)
	}
	if to == "" && from == "" {
		return nil, invalidParameter("You must specify MoveToVersionId, RemoveFromVersionId or both.")
	}
	now := timestamppb.New(api.CallFrom(ctx).Time)
	out := &sm.UpdateSecretVersionStageOutput{}
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := live(tx, scope, in.SecretId)
		if err != nil {
			return err
		}
		s := proto.CloneOf(old)
		out.ARN, out.Name = new(s.ARN()), &s.Name
		for _, version := range []string{to, from} {
			if _, ok := s.version(tx, version); version != "" && !ok {
				return awserr.New("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", version)
			}
		}
		switch has := s.Stages[stage]; {
		case has == to && to != "":
			return nil // it is there already
		case from != "" && has != from:
			return invalidParameter("The parameter RemoveFromVersionId can't be %s. Staging label %s is not currently attached to version %s, so you can't remove it from this version.", from, stage, from)
		case has != "" && from == "":
			return invalidParameter("The parameter RemoveFromVersionId can't be empty. Staging label %s is currently attached to version %s, so you must explicitly reference that version in RemoveFromVersionId.", stage, has)
		}
		if s.Stages == nil {
			s.Stages = map[string]string{}
		}
		if to == "" {
			delete(s.Stages, stage)
		} else {
			s.move(stage, to)
		}
		if len(s.Stages) > maxStages {
			return awserr.New("LimitExceededException", "You can't attach more than %d staging labels to the versions of a secret.", maxStages)
		}
		s.Changed = now
		Secrets.Put(tx, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
