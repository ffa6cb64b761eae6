// Package secretsmanager is the Secrets Manager family: secrets, their versions and staging labels.
//
// Invariants:
//   - A value is in the state only sealed, under a key that is not, and bound to its secret's ARN and its version: a record that is
//     moved to another place opens no more. It is in no error, no log line and no page token.
//   - A staging label of a secret names a version that exists. A secret that has versions has AWSCURRENT.
//   - A version never changes. Versions without a label are removed once there are too many (prune).
//   - A secret goes with all its versions in one write.
//
// There are no KMS keys, no rotation and no replicas: a request that names one is refused. docs/design/secrets.md has the decisions.
package secretsmanager

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
)

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative controlplane/secretsmanager/secretsmanager.proto

// The tables, written by the operations and by Run.
var (
	Secrets  = state.NewTable("secretsmanager.secret", func(s *Secret) state.Key { return state.K(s.Account, s.Region, s.Name) })
	Versions = state.NewTable("secretsmanager.version", func(v *SecretVersion) state.Key {
		return state.K(v.Account, v.Region, v.Secret, v.Suffix, v.Id)
	})
)

// Schema is every table of the family.
var Schema = state.Schema{Secrets, Versions}

// Config is what the family stands on.
type Config struct {
	Store *state.Store
	Rand  io.Reader
	Pages *api.Pages
	Seal  api.Sealer // of values; for this family alone
	// Authorizer is asked for each secret of a batch; nil: everybody may read.
	Authorizer Authorizer
	Clock      clock.Clock
	Log        *slog.Logger
}

// Authorizer says whether a call may have what is beside its own action.
type Authorizer interface {
	Authorize(ctx context.Context, c *api.Call, a api.Access) error
}

// Family has the handlers as methods. It keeps nothing between calls.
type Family struct{ Config }

// New returns the family.
func New(c Config) *Family { return &Family{c} }

func (f *Family) update(ctx context.Context, fn func(tx *state.Tx, scope controlplane.Scope) error) error {
	c := api.CallFrom(ctx)
	_, err := f.Store.Update(ctx, func(tx *state.Tx) error { return fn(tx, controlplane.Scope{Account: c.Account, Region: c.Region}) })
	return err
}

func (f *Family) view(ctx context.Context) (*state.View, controlplane.Scope, error) {
	c := api.CallFrom(ctx)
	v, err := f.Store.Linearizable(ctx)
	return v, controlplane.Scope{Account: c.Account, Region: c.Region}, err
}

func invalidParameter(format string, args ...any) error {
	return awserr.New("InvalidParameterException", format, args...)
}

func invalidRequest(format string, args ...any) error {
	return awserr.New("InvalidRequestException", format, args...)
}

func noSecret() error {
	return awserr.New("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
}

func markedForDeletion() error {
	return invalidRequest("You can't perform this operation on the secret because it was marked for deletion.")
}

func (s *Secret) scope() controlplane.Scope {
	return controlplane.Scope{Account: s.Account, Region: s.Region}
}

// ARN names the secret.
func (s *Secret) ARN() string { return secretARN(s.scope(), s.Name+"-"+s.Suffix) }

func secretARN(scope controlplane.Scope, rest string) string {
	return arn.New("secretsmanager", scope.Region, scope.Account, "secret:"+rest).String()
}

// suffixLength is that of what stands behind the name in an ARN.
const suffixLength = 6

// find finds a secret by its name, its ARN, or its ARN without the suffix.
func find(r state.Reader, scope controlplane.Scope, id string) (*Secret, error) {
	if !arn.Is(id) {
		return named(r, scope, id)
	}
	a, err := arn.Parse(id)
	if err != nil || a.Service != "secretsmanager" || a.Type() != "secret" || a.Rest() == "" {
		return nil, awserr.New("ValidationException", "Invalid secret ARN '%s'.", id)
	}
	if a.Account != scope.Account || a.Region != scope.Region {
		return nil, noSecret() // one of another account or region names nothing here
	}
	// A name may end like a suffix: what matches as a whole comes first.
	if i := len(a.Rest()) - suffixLength - 1; i > 0 && a.Rest()[i] == '-' {
		if s, err := named(r, scope, a.Rest()[:i]); err == nil && s.Suffix == a.Rest()[i+1:] {
			return s, nil
		}
	}
	return named(r, scope, a.Rest())
}

func named(r state.Reader, scope controlplane.Scope, name string) (*Secret, error) {
	if s, ok := Secrets.Get(r, scope.Key(name)); ok {
		return s, nil
	}
	return nil, noSecret()
}

// live finds a secret that is not to be deleted.
func live(r state.Reader, scope controlplane.Scope, id *string) (*Secret, error) {
	s, err := find(r, scope, aws.ToString(id))
	if err == nil && s.Deleted != nil {
		return nil, markedForDeletion()
	}
	return s, err
}

// versions is the prefix of the secret's versions.
func (s *Secret) versions() state.Key { return state.K(s.Account, s.Region, s.Name, s.Suffix) }

func (s *Secret) version(r state.Reader, id string) (*SecretVersion, bool) {
	return Versions.Get(r, state.K(s.Account, s.Region, s.Name, s.Suffix, id))
}

// checkName: "Invalid name" is how the service refuses what its model lets through.
func checkName(name string) error {
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-/_+=.@!", c)) {
			return awserr.New("ValidationException", "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!")
		}
	}
	return nil
}

// checkKey: there is one key, the platform's own, which is what the account's default key is called.
func checkKey(id *string) error {
	if id == nil || *id == "" || *id == "alias/aws/secretsmanager" {
		return nil
	}
	return invalidParameter("'KmsKeyId' is not supported by this platform with the value %s: there are no KMS keys, only alias/aws/secretsmanager.", *id)
}
