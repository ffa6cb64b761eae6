// Package ssm is the part of the Systems Manager family that is Parameter Store: parameters, their versions and labels.
//
// Invariants:
//   - Every value, also that of a String, is in the state only sealed, under a key that is not, and bound to its parameter and version.
//     It is in no error, no log line and no page token.
//   - The parameter's record names its newest version, which exists. A label is on one version of a parameter.
//   - Versions name their parameter by its id. A parameter goes in one write, however many versions it has: they are not found any
//     more, and Run removes them.
//
// There are no KMS keys, no parameter policies and no data types but text: a request that names one is refused.
// docs/design/secrets.md has the decisions.
package ssm

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
)

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative controlplane/ssm/ssm.proto

// The tables, written by the operations and by Run.
var (
	Parameters = state.NewTable("ssm.parameter", func(p *Parameter) state.Key { return state.K(p.Account, p.Region, p.Name) })
	Versions   = state.NewTable("ssm.version", func(v *ParameterVersion) state.Key { return versionKey(v.Account, v.Region, v.Parameter, v.Version) })
	// ParametersByID: id.
	ParametersByID = state.NewIndex(Parameters, "id", func(p *Parameter) []state.Key { return []state.Key{state.K(p.Id)} })
)

func versionKey(account, region, parameter string, version int64) state.Key {
	return state.K(account, region, parameter, fmt.Sprintf("%019d", version))
}

// Schema is every table of the family.
var Schema = state.Schema{Parameters, Versions}

// Config is what the family stands on.
type Config struct {
	Store *state.Store
	Rand  io.Reader
	Pages *api.Pages
	Seal  api.Sealer // of values; for this family alone
	Clock clock.Clock
	Log   *slog.Logger
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

func validation(format string, args ...any) error {
	return awserr.New("ValidationException", format, args...)
}

func notFound(name string) error {
	return awserr.New("ParameterNotFound", "Parameter %s not found.", name)
}

func noVersion(name string, version int64) error {
	return awserr.New("ParameterVersionNotFound", "Systems Manager could not find version %d of %s. Verify the version and try again.", version, name)
}

func (p *Parameter) scope() controlplane.Scope {
	return controlplane.Scope{Account: p.Account, Region: p.Region}
}

// ARN names the parameter.
func (p *Parameter) ARN() string { return parameterARN(p.scope(), p.Name) }

func parameterARN(scope controlplane.Scope, name string) string {
	return arn.New("ssm", scope.Region, scope.Account, "parameter/"+strings.TrimPrefix(name, "/")).String()
}

// versions is the prefix of the parameter's versions.
func (p *Parameter) versions() state.Key { return state.K(p.Account, p.Region, p.Id) }

func (p *Parameter) at(r state.Reader, version int64) (*ParameterVersion, bool) {
	return Versions.Get(r, versionKey(p.Account, p.Region, p.Id, version))
}

// find finds a parameter by its name or its ARN. In an ARN the slash in front of a name is not seen: the name with it comes first.
func find(r state.Reader, scope controlplane.Scope, name string) (*Parameter, error) {
	if !arn.Is(name) {
		if p, ok := Parameters.Get(r, scope.Key(name)); ok {
			return p, nil
		}
		return nil, notFound(name)
	}
	a, err := arn.Parse(name)
	if err != nil || a.Service != "ssm" || a.Type() != "parameter" {
		return nil, validation("Invalid parameter ARN: %s.", name)
	}
	if a.Account == scope.Account && a.Region == scope.Region {
		for _, n := range []string{"/" + a.Rest(), a.Rest()} {
			if p, ok := Parameters.Get(r, scope.Key(n)); ok {
				return p, nil
			}
		}
	}
	return nil, notFound(name)
}

func (v *ParameterVersion) bound(p *Parameter) []byte {
	return fmt.Appendf(nil, "parameter v1 %s %s %d", p.ARN(), p.Id, v.Version)
}

func (f *Family) open(p *Parameter, v *ParameterVersion) (string, error) {
	b, err := f.Seal.Open(v.Sealed, v.bound(p))
	if err != nil {
		return "", fmt.Errorf("open version %d of %s: %w", v.Version, p.ARN(), err)
	}
	return string(b), nil
}

const (
	cleanEvery = time.Minute
	cleanStep  = 50 // records a transaction
)

// Run removes versions whose parameter is gone, whenever this server leads, until ctx ends.
func (f *Family) Run(ctx context.Context) error {
	return f.Store.RunLeader(ctx, func(ctx context.Context) error {
		for ctx.Err() == nil {
			if err := f.clean(ctx); err != nil && ctx.Err() == nil {
				f.Log.Error("remove versions of deleted parameters; trying again", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-f.Clock.After(cleanEvery):
			}
		}
		return nil
	})
}

func (f *Family) clean(ctx context.Context) error {
	var lost []state.Key
	v := f.Store.View()
	for version := range Versions.Scan(v, state.K()) {
		known := false
		for range ParametersByID.Scan(v, state.K(version.Parameter)) {
			known = true
		}
		if !known {
			lost = append(lost, Versions.Key(version))
		}
	}
	for len(lost) > 0 {
		n := min(len(lost), cleanStep)
		_, err := f.Store.Update(ctx, func(tx *state.Tx) error {
			for _, k := range lost[:n] {
				Versions.Delete(tx, k)
			}
			return nil
		})
		if err != nil {
			return err
		}
		lost = lost[n:]
	}
	return nil
}
