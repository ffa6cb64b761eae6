package iam

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

func (k *AccessKey) status() types.StatusType {
	if k.Inactive {
		return types.StatusTypeInactive
	}
	return types.StatusTypeActive
}

// secretBound separates sealed secrets from whatever else is sealed under the same key, and from one another.
func secretBound(keyID string) []byte { return []byte("access key v1 " + keyID) }

// createAccessKey implements iam:CreateAccessKey. Its answer is the only one with the secret.
func (s *Service) createAccessKey(ctx context.Context, in *iam.CreateAccessKeyInput) (*iam.CreateAccessKeyOutput, error) {
	c := api.CallFrom(ctx)
	k, secret := &AccessKey{Account: c.Account, Id: keyID(s.Rand, prefixKey, c.Account), Created: timestamppb.New(c.Time)}, secretKey(s.Rand)
	k.Secret = s.Seal.Seal([]byte(secret), secretBound(k.Id))
	out := &types.AccessKey{AccessKeyId: &k.Id, SecretAccessKey: &secret, Status: types.StatusTypeActive, CreateDate: new(c.Time)}
	return answer(&iam.CreateAccessKeyOutput{AccessKey: out}, s.update(ctx, func(tx *state.Tx, account string) error {
		e, err := callersUser(ctx, tx, account, in.UserName)
		if err != nil {
			return err
		}
		if count(AccessKeysByUser.Scan(tx, state.K(account, e.Id))) >= maxKeysOfUser {
			return exceeded("AccessKeysPerUser", maxKeysOfUser)
		}
		for range AccessKeysByID.Scan(tx, state.K(k.Id)) {
			return awserr.New("ServiceFailure", "An access key id was made twice. Try again.") // 39 random bits
		}
		k.UserId, out.UserName = e.Id, &e.Name
		AccessKeys.Put(tx, k)
		return nil
	}))
}

// listAccessKeys implements iam:ListAccessKeys; without a name, of the caller.
func (s *Service) listAccessKeys(ctx context.Context, in *iam.ListAccessKeysInput) (*iam.ListAccessKeysOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	e, err := callersUser(ctx, v, account, in.UserName)
	if err != nil {
		return nil, err
	}
	of := state.K(account, e.Id)
	keys, marker, more, err := page(ctx, s, in, in.MaxItems, func(after state.Key) iter.Seq[*AccessKey] {
		return AccessKeysByUser.ScanFrom(v, of, of, after)
	}, AccessKeys.Key)
	if err != nil {
		return nil, err
	}
	return &iam.ListAccessKeysOutput{Marker: marker, IsTruncated: more, AccessKeyMetadata: list(keys, func(k *AccessKey) types.AccessKeyMetadata {
		return types.AccessKeyMetadata{AccessKeyId: &k.Id, CreateDate: new(k.Created.AsTime()), Status: k.status(), UserName: &e.Name}
	})}, nil
}

// keyOf is the user's access key; without a name the caller's own.
func keyOf(ctx context.Context, r state.Reader, account string, name, id *string) (*AccessKey, error) {
	e, err := callersUser(ctx, r, account, name)
	if err != nil {
		return nil, err
	}
	if k, ok := AccessKeys.Get(r, state.K(account, aws.ToString(id))); ok && k.UserId == e.Id {
		return k, nil
	}
	return nil, awserr.New("NoSuchEntity", "The Access Key with id %s cannot be found.", aws.ToString(id))
}

// updateAccessKey implements iam:UpdateAccessKey.
func (s *Service) updateAccessKey(ctx context.Context, in *iam.UpdateAccessKeyInput) (*iam.UpdateAccessKeyOutput, error) {
	if in.Status != types.StatusTypeActive && in.Status != types.StatusTypeInactive { // the enum also has Expired
		return nil, invalid("The status of an access key can be set to Active or Inactive, not to %s.", in.Status)
	}
	return answer(&iam.UpdateAccessKeyOutput{}, s.update(ctx, func(tx *state.Tx, account string) error {
		old, err := keyOf(ctx, tx, account, in.UserName, in.AccessKeyId)
		if err != nil {
			return err
		}
		k := proto.CloneOf(old)
		k.Inactive = in.Status == types.StatusTypeInactive
		AccessKeys.Put(tx, k)
		return nil
	}))
}

// deleteAccessKey implements iam:DeleteAccessKey.
func (s *Service) deleteAccessKey(ctx context.Context, in *iam.DeleteAccessKeyInput) (*iam.DeleteAccessKeyOutput, error) {
	return answer(&iam.DeleteAccessKeyOutput{}, s.update(ctx, func(tx *state.Tx, account string) error {
		k, err := keyOf(ctx, tx, account, in.UserName, in.AccessKeyId)
		if err != nil {
			return err
		}
		AccessKeys.Delete(tx, AccessKeys.Key(k))
		return nil
	}))
}

// getAccessKeyLastUsed implements iam:GetAccessKeyLastUsed. A use before this server started, or through another server, is one
// from before tracking began: there is no date then, and N/A, as AWS answers for that.
func (s *Service) getAccessKeyLastUsed(ctx context.Context, in *iam.GetAccessKeyLastUsedInput) (*iam.GetAccessKeyLastUsedOutput, error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	k, ok := AccessKeys.Get(v, state.K(account, aws.ToString(in.AccessKeyId)))
	if !ok {
		return nil, awserr.WithStatus(403, "AccessDenied", "The access key %s does not belong to this account.", aws.ToString(in.AccessKeyId))
	}
	out := &iam.GetAccessKeyLastUsedOutput{AccessKeyLastUsed: &types.AccessKeyLastUsed{Region: new("N/A"), ServiceName: new("N/A")}}
	if e, ok := byID(v, account, k.UserId); ok {
		out.UserName = &e.Name
	}
	if u, ok := s.used.get(k.Id); ok {
		out.AccessKeyLastUsed = &types.AccessKeyLastUsed{LastUsedDate: &u.at, Region: &u.region, ServiceName: &u.service}
	}
	return out, nil
}

// use is the last call with an access key through this server. It never enters the log: it changes with every call.
type use struct {
	at              time.Time
	region, service string
}

type lastUsed struct {
	mu   sync.Mutex
	keys map[string]use
}

// maxLastUsed bounds the memory of a server under many keys; what is forgotten has no date.
const maxLastUsed = 100_000

func (l *lastUsed) get(id string) (use, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u, ok := l.keys[id]
	return u, ok
}

// Used notes a call with a long-term access key.
func (s *Service) Used(c *api.Call) {
	if c.Session != nil || c.Root || c.AccessKeyID == "" {
		return
	}
	l := &s.used
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys == nil || len(l.keys) >= maxLastUsed {
		l.keys = map[string]use{}
	}
	l.keys[c.AccessKeyID] = use{c.Time.UTC().Truncate(time.Second), c.Region, c.Service}
}
