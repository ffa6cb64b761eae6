package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// maxSuppressions is how many a registry has at most.
const maxSuppressions = 1000

// suppressions are those of a registry, or of a repository, that are in force.
type suppressions []*ScanSuppression

func (r *Registry) suppressions(v state.Reader, account, region string) (out suppressions) {
	now := r.Clock.Now()
	for s := range ScanSuppressions.Scan(v, state.K(account, region)) {
		if s.Until == nil || s.Until.AsTime().After(now) {
			out = append(out, s)
		}
	}
	return out
}

// of are those that concern a repository.
func (s suppressions) of(repository string) (out suppressions) {
	for _, one := range s {
		if repositoryMatches(one.Repositories, repository) {
			out = append(out, one)
		}
	}
	return out
}

// id identifies them; empty: there are none.
func (s suppressions) id() string {
	if len(s) == 0 {
		return ""
	}
	h := sha256.New()
	for _, one := range s {
		io.WriteString(h, one.Id+"\n") // what one says does not change
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// apply marks what is suppressed.
func (s suppressions) apply(list *findings) {
	for i := range list.Findings {
		f := &list.Findings[i]
		f.Suppressed = ""
		for _, one := range s {
			if one.Vulnerability == f.ID && (one.Package == "" || onlyPackage(f, one.Package)) {
				f.Suppressed = one.Reason
				break
			}
		}
	}
}

// onlyPackage says whether a finding is about that package alone.
func onlyPackage(f *finding, name string) bool {
	for _, p := range f.Packages {
		if p.Name != name && p.Source != name {
			return false
		}
	}
	return true
}

// suppress marks findings of an image and says which suppressions were taken into account.
func (r *Registry) suppress(v state.Reader, s *Scan, list *findings) (id string) {
	mine := r.suppressions(v, s.Account, s.Region).of(s.Name)
	mine.apply(list)
	return mine.id()
}

// suppressAgain applies today's suppressions to what was found.
func (r *Registry) suppressAgain(ctx context.Context, v state.Reader, s *Scan) error {
	var list findings
	if err := r.readKept(ctx, s.Findings, &list); err != nil {
		return fmt.Errorf("read the findings of %s@%s: %w", s.Name, s.Digest, err)
	}
	done := proto.CloneOf(s)
	done.Suppressions = r.suppress(v, s, &list)
	lease, err := r.keepFindings(ctx, done, &list, nil)
	if err != nil {
		return err
	}
	defer lease.Release()
	return r.putScan(ctx, s, done)
}

// ScanSuppressionShape is a suppression as it is shown.
type ScanSuppressionShape struct {
	ID            string     `json:"id"`
	Vulnerability string     `json:"vulnerability"`
	Repositories  string     `json:"repositories"`
	Package       string     `json:"package,omitempty"`
	Reason        string     `json:"reason"`
	CreatedBy     string     `json:"createdBy"`
	CreatedAt     time.Time  `json:"createdAt"`
	Until         *time.Time `json:"until,omitempty"`
}

func (s *ScanSuppression) shape() *ScanSuppressionShape {
	return &ScanSuppressionShape{ID: s.Id, Vulnerability: s.Vulnerability, Repositories: s.Repositories, Package: s.Package, Reason: s.Reason,
		CreatedBy: s.By, CreatedAt: s.Created.AsTime(), Until: optionalTime(s.Until)}
}

// CreateScanSuppressionInput keeps findings of a vulnerability from counting.
type CreateScanSuppressionInput struct {
	Vulnerability string    `json:"vulnerability" doc:"name of the finding: CVE-2024-0001"`
	Repositories  string    `json:"repositories" doc:"which repositories: a name with wildcards (*), or a part of one; default all"`
	Package       string    `json:"package" doc:"only where the finding is about this package alone"`
	Reason        string    `json:"reason" doc:"why it does not count; shown with the finding"`
	Until         time.Time `json:"until" doc:"when it counts again"`
}

// DeleteScanSuppressionInput names a suppression.
type DeleteScanSuppressionInput struct {
	ID string `json:"id" doc:"of the suppression"`
}

// ListScanSuppressionsInput has no parameters.
type ListScanSuppressionsInput struct{}

// ListScanSuppressionsOutput is the registry's suppressions, those that have ended too.
type ListScanSuppressionsOutput struct {
	Suppressions []*ScanSuppressionShape `json:"suppressions"`
}

func invalidParameter(field, why string) error {
	return awserr.New("InvalidParameterException", "Invalid parameter at '%s' failed to satisfy constraint: '%s'", field, why)
}

func (r *Registry) createScanSuppression(ctx context.Context, in *CreateScanSuppressionInput) (*ScanSuppressionShape, error) {
	now := r.Clock.Now()
	switch {
	case in.Vulnerability == "" || len(in.Vulnerability) > 128:
		return nil, invalidParameter("vulnerability", "must have 1 to 128 characters")
	case in.Reason == "" || len(in.Reason) > 256:
		return nil, invalidParameter("reason", "must have 1 to 256 characters")
	case len(in.Repositories) > 256:
		return nil, invalidParameter("repositories", "must have at most 256 characters")
	case len(in.Package) > 256:
		return nil, invalidParameter("package", "must have at most 256 characters")
	case !in.Until.IsZero() && !in.Until.After(now):
		return nil, invalidParameter("until", "must be in the future")
	}
	c := api.CallFrom(ctx)
	s := &ScanSuppression{Account: c.Account, Region: c.Region, Id: id.Hex(r.Rand, 16), Vulnerability: in.Vulnerability, Repositories: in.Repositories, Package: in.Package,
		Reason: in.Reason, By: c.ARN, Created: timestamppb.New(now)}
	if s.Repositories == "" {
		s.Repositories = "*"
	}
	if !in.Until.IsZero() {
		s.Until = timestamppb.New(in.Until)
	}
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		n := 0
		for range ScanSuppressions.Scan(tx, state.K(c.Account, c.Region)) {
			n++
		}
		if n >= maxSuppressions {
			return awserr.New("LimitExceededException", "A registry has at most %d suppressions", maxSuppressions)
		}
		ScanSuppressions.Put(tx, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.shape(), nil
}

func (r *Registry) deleteScanSuppression(ctx context.Context, in *DeleteScanSuppressionInput) (*ScanSuppressionShape, error) {
	c := api.CallFrom(ctx)
	key := state.K(c.Account, c.Region, in.ID)
	var s *ScanSuppression
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		var ok bool
		if s, ok = ScanSuppressions.Get(tx, key); !ok {
			return awserr.WithStatus(404, "ResourceNotFoundException", "There is no suppression with the id '%s'", in.ID)
		}
		ScanSuppressions.Delete(tx, key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.shape(), nil
}

func (r *Registry) listScanSuppressions(ctx context.Context, _ *ListScanSuppressionsInput) (*ListScanSuppressionsOutput, error) {
	c := api.CallFrom(ctx)
	out := &ListScanSuppressionsOutput{Suppressions: []*ScanSuppressionShape{}}
	for s := range ScanSuppressions.Scan(r.Store.View(), state.K(c.Account, c.Region)) {
		out.Suppressions = append(out.Suppressions, s.shape())
	}
	return out, nil
}
