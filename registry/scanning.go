package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/registry/scan"
	"github.com/seed-2f228079/neargate/storage/blob"
)

const (
	// scanTimeout is what one image may take.
	scanTimeout = 15 * time.Minute
	// scanEvery is how often it is looked for images whose findings may be out of date.
	scanEvery = 5 * time.Minute
	// scanAge is how long the findings of a scanner count as new that cannot tell when it has learnt something.
	scanAge = 24 * time.Hour
	// A scan that fails is tried again after scanPause, then twice that, scanAttempts times in all.
	scanPause    = 30 * time.Second
	scanAttempts = 5
	// maxScanBlob bounds findings and inventories.
	maxScanBlob = 256 << 20
)

// plan is how often images of a repository are scanned, by the registry's configuration and its own.
type plan struct {
	enhanced  bool
	frequency types.ScanFrequency
	filters   []types.ScanningRepositoryFilter // that match the repository
}

func (s *RegistrySettings) scanning() *types.RegistryScanningConfiguration {
	if s.ScanningJson == "" {
		return &types.RegistryScanningConfiguration{ScanType: types.ScanTypeBasic, Rules: []types.RegistryScanningRule{}}
	}
	return new(controlplane.DecodeShape[types.RegistryScanningConfiguration](s.ScanningJson))
}

func planOf(c *types.RegistryScanningConfiguration, repo *Repository) plan {
	p := plan{enhanced: c.ScanType == types.ScanTypeEnhanced, frequency: types.ScanFrequencyManual}
	for _, rule := range c.Rules {
		for _, f := range rule.RepositoryFilters {
			if !repositoryMatches(value(f.Filter), repo.Name) {
				continue
			}
			p.filters = append(p.filters, f)
			if p.frequency != types.ScanFrequencyContinuousScan {
				p.frequency = rule.ScanFrequency
			}
		}
	}
	if p.frequency == types.ScanFrequencyManual && !p.enhanced && repo.ScanOnPush {
		p.frequency = types.ScanFrequencyScanOnPush
	}
	return p
}

// repositoryMatches applies a filter: with wildcards it is the whole name, without any a part of it.
func repositoryMatches(filter, name string) bool {
	if !strings.Contains(filter, "*") {
		return strings.Contains(name, filter)
	}
	return matchesWildcard(filter, name)
}

// scannable says whether a manifest is an image with layers, not an index of images nor an artifact.
func (m *Manifest) scannable() bool {
	switch m.ConfigType {
	case "application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json":
		return true
	}
	return false
}

// queueScan has an image scanned that is new in its repository, in the transaction that puts it there.
func (r *Registry) queueScan(tx *state.Tx, repo *Repository, m *Manifest) {
	p := planOf(registryRecord(tx, repo.Account, repo.Region).scanning(), repo)
	if p.frequency == types.ScanFrequencyManual || !m.scannable() {
		return
	}
	if _, ok := Scans.Get(tx, Manifests.Key(m)); !ok {
		Scans.Put(tx, r.requestScan(nil, repo, m))
	}
}

// requestScan is the record of an image that is to be scanned, again if it was before.
func (r *Registry) requestScan(before *Scan, repo *Repository, m *Manifest) *Scan {
	s := &Scan{Account: m.Account, Region: m.Region, Repository: m.Repository, Name: repo.Name, Digest: m.Digest}
	if before != nil {
		s = proto.CloneOf(before)
	}
	s.Pending, s.Requested, s.NotBefore, s.Attempts = true, timestamppb.New(r.Clock.Now()), nil, 0
	return s
}

// runScans scans images as they become due, one after the other, until ctx ends.
func (r *Registry) runScans(ctx context.Context) error {
	changed, ended := r.changes(ctx, Scans)
	defer ended()
	settings, ended := r.changes(ctx, Registries, ScanSuppressions)
	defer ended()
	for look := r.Clock.Now(); ; {
		if !r.Clock.Now().Before(look) {
			look = r.Clock.Now().Add(scanEvery)
			if err := r.refreshScans(ctx); err != nil && ctx.Err() == nil {
				r.Log.Error("look for images to be scanned again", "error", err)
			}
		}
		next, err := r.scanPending(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			r.Log.Error("scan images", "error", err)
			next = r.Clock.Now().Add(scanPause)
		}
		if next.IsZero() || next.After(look) {
			next = look
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-settings:
			look = r.Clock.Now()
		case <-r.Clock.After(next.Sub(r.Clock.Now())):
		}
	}
}

// scanPending scans what is due and says when something is again; zero: nothing is left.
func (r *Registry) scanPending(ctx context.Context) (next time.Time, err error) {
	for s := range ScansPending.Scan(r.Store.View(), state.K()) {
		if at := s.NotBefore.AsTime(); s.NotBefore != nil && at.After(r.Clock.Now()) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		if err := r.scanImage(ctx, s); err != nil {
			return next, fmt.Errorf("scan %s@%s: %w", s.Name, s.Digest, err)
		}
	}
	return next, nil
}

// findings are a scan's result as it is kept.
type findings struct {
	Source   string    `json:"source"`
	Updated  time.Time `json:"updated,omitzero"`
	Findings []finding `json:"findings"`
}

type finding struct {
	scan.Finding
	Suppressed string `json:"suppressed,omitempty"` // why it does not count
}

// scanImage scans one image and keeps the outcome. An error is about keeping it: what goes wrong with the scan is its outcome.
func (r *Registry) scanImage(ctx context.Context, s *Scan) error {
	v := r.Store.View()
	key := Scans.Key(s)
	m, ok := Manifests.Get(v, key)
	if !ok {
		_, err := r.Store.Update(ctx, func(tx *state.Tx) error { Scans.Delete(tx, key); return nil })
		return err
	}
	limited, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	done := proto.CloneOf(s)
	report, inventory, version, err := r.examine(limited, s, m)
	if ctx.Err() != nil {
		return ctx.Err() // whoever leads next begins again
	}
	now := r.Clock.Now()
	switch {
	case errors.Is(err, scan.ErrUnsupported):
		done.Pending, done.Status, done.Description = false, string(types.ScanStatusUnsupportedImage), "UnsupportedImageError: "+scan.ErrUnsupported.Error()
	case err != nil:
		r.Log.Warn("an image could not be scanned", "repository", s.Name, "digest", s.Digest, "error", err)
		done.Attempts++
		done.NotBefore = timestamppb.New(now.Add(scanPause << (done.Attempts - 1)))
		done.Pending = done.Attempts < scanAttempts && r.Scanner != nil
		done.Status, done.Description = string(types.ScanStatusFailed), shortened(err)
	default:
		list := findings{Source: report.Source, Updated: report.Updated}
		for _, f := range report.Findings {
			list.Findings = append(list.Findings, finding{Finding: f})
		}
		done.Suppressions = r.suppress(v, s, &list)
		leases, err := r.keepFindings(ctx, done, &list, inventory)
		if err != nil {
			return err
		}
		defer leases.Release()
		done.Pending, done.Status, done.Description = false, string(types.ScanStatusComplete), "The scan was completed successfully."
		done.Completed, done.Scanner, done.Attempts, done.NotBefore = timestamppb.New(now), version, 0, nil
		if done.First == nil {
			done.First = done.Completed
		}
		done.SourceUpdated = nil
		if !report.Updated.IsZero() {
			done.SourceUpdated = timestamppb.New(report.Updated)
		}
	}
	return r.putScan(ctx, s, done)
}

// putScan replaces a scan's record unless it has changed: then it is pending again, or its image is gone.
func (r *Registry) putScan(ctx context.Context, was, is *Scan) error {
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		now, ok := Scans.Get(tx, Scans.Key(was))
		if ok && proto.Equal(now, was) {
			Scans.Put(tx, is)
		}
		return nil
	})
	return err
}

// maxScanDescription bounds what is kept of an error.
const maxScanDescription = 500

func shortened(err error) string {
	text := strings.ToValidUTF8(err.Error(), "?")
	if len(text) > maxScanDescription {
		text = strings.ToValidUTF8(text[:maxScanDescription], "") + "…"
	}
	return text
}

var errNoScanner = errors.New("this server has no scanner: start it with --scan-database, --scan-command or --scan-webhook")

// examine takes stock of the image, or remembers what was found earlier, and asks the scanner.
func (r *Registry) examine(ctx context.Context, s *Scan, m *Manifest) (*scan.Report, *scan.Inventory, string, error) {
	if r.Scanner == nil {
		return nil, nil, "", errNoScanner
	}
	version, err := r.Scanner.Version()
	if err != nil {
		return nil, nil, "", err
	}
	i, err := r.inventory(ctx, s, m)
	if err != nil {
		return nil, nil, "", err
	}
	image := scan.Image{Name: r.PublicName(s.Account, s.Region) + "/" + s.Name + "@" + s.Digest, Digest: s.Digest}
	report, err := r.Scanner.Scan(ctx, image, i)
	return report, i, version, err
}

func (r *Registry) inventory(ctx context.Context, s *Scan, m *Manifest) (*scan.Inventory, error) {
	if s.Inventory != "" {
		var i scan.Inventory
		if err := r.readKept(ctx, s.Inventory, &i); err == nil {
			return &i, nil
		} // otherwise it is read from the image again
	}
	body, err := r.content(ctx, m)
	if err != nil {
		return nil, err
	}
	doc, err := parseManifest(m.MediaType, body)
	if err != nil {
		return nil, err
	}
	var layers []scan.Layer
	for _, l := range doc.Layers {
		if l.foreign() && !slices.Contains(m.Blobs, l.Digest) {
			return nil, fmt.Errorf("its layer %s is kept elsewhere", l.Digest)
		}
		layers = append(layers, scan.Layer{Digest: l.Digest, Open: func(ctx context.Context) (io.ReadCloser, error) {
			return r.open(ctx, blob.Digest(l.Digest))
		}})
	}
	if r.Scratch != "" {
		if err := os.MkdirAll(r.Scratch, 0o700); err != nil {
			return nil, err
		}
	}
	return scan.Take(ctx, layers, scan.DefaultLimits, r.Scratch)
}

// readKept reads a blob of findings or an inventory.
func (r *Registry) readKept(ctx context.Context, digest string, into any) error {
	text, err := r.readAll(ctx, blob.Digest(digest), maxScanBlob)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// keepFindings makes blobs of findings and inventory (nil: that is kept already) and names and counts them in the record. They are leased to the
// caller until it has committed that.
func (r *Registry) keepFindings(ctx context.Context, s *Scan, list *findings, i *scan.Inventory) (*blobLeases, error) {
	var leases blobLeases
	keep := func(v any) (string, error) {
		text, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		d := blob.Sum(text)
		lease, err := r.keepManifest(ctx, d, text)
		if err != nil {
			return "", err
		}
		leases = append(leases, lease)
		return string(d), r.spread(ctx, d)
	}
	var err error
	if s.Findings, err = keep(list); err == nil && i != nil {
		s.Inventory, err = keep(i)
	}
	if err != nil {
		leases.Release()
		return nil, err
	}
	s.Counts = map[string]int32{}
	for _, f := range list.Findings {
		if f.Suppressed == "" {
			s.Counts[string(f.Severity)]++
		}
	}
	return &leases, nil
}

// blobLeases are released together.
type blobLeases []*blob.Lease

func (l *blobLeases) Release() {
	for _, one := range *l {
		one.Release()
	}
}

// refreshScans has images scanned again whose findings may be out of date, if their repository is scanned continuously, and applies suppressions that
// have changed to what is known already.
func (r *Registry) refreshScans(ctx context.Context) error {
	v := r.Store.View()
	var errs []error
	for settings := range Registries.Scan(v, state.K()) {
		if config := settings.scanning(); slices.ContainsFunc(config.Rules, func(rule types.RegistryScanningRule) bool {
			return rule.ScanFrequency == types.ScanFrequencyContinuousScan
		}) {
			errs = append(errs, r.scanContinuously(ctx, v, settings, config))
		}
	}
	rules := map[state.Key]suppressions{}
	for s := range Scans.Scan(v, state.K()) {
		if s.Findings == "" || s.Pending {
			continue
		}
		registry := state.K(s.Account, s.Region)
		if _, ok := rules[registry]; !ok {
			rules[registry] = r.suppressions(v, s.Account, s.Region)
		}
		if rules[registry].of(s.Name).id() != s.Suppressions {
			errs = append(errs, r.suppressAgain(ctx, v, s))
		}
	}
	return errors.Join(errs...)
}

func (r *Registry) scanContinuously(ctx context.Context, v *state.View, settings *RegistrySettings, config *types.RegistryScanningConfiguration) error {
	var version string
	if r.Scanner != nil {
		var err error
		if version, err = r.Scanner.Version(); err != nil {
			return err
		}
	}
	var errs []error
	for repo := range Repositories.Scan(v, state.K(settings.Account, settings.Region)) {
		if planOf(config, repo).frequency != types.ScanFrequencyContinuousScan {
			continue
		}
		for m := range Manifests.Scan(v, repo.in()) {
			s, ok := Scans.Get(v, Manifests.Key(m))
			if !m.scannable() || m.InArchive || ok && (s.Pending || !r.outdated(s, version)) {
				continue
			}
			_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
				now, ok := Scans.Get(tx, Manifests.Key(m))
				if _, there := Manifests.Get(tx, Manifests.Key(m)); there && (!ok || !now.Pending) {
					Scans.Put(tx, r.requestScan(now, repo, m))
				}
				return nil
			})
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// outdated says whether the scanner may have something new to say about an image.
func (r *Registry) outdated(s *Scan, version string) bool {
	last := s.Completed.AsTime()
	if s.Completed == nil || s.Status != string(types.ScanStatusComplete) {
		last = s.Requested.AsTime() // it failed: a day later it may go better
		version = ""
	}
	if version != "" {
		return s.Scanner != version
	}
	return r.Clock.Now().Sub(last) >= scanAge
}

// worst is the highest severity that a scan has found, and how many findings there are of that or of at least the given one.
func (s *Scan) atLeast(severity scan.Severity) (worst scan.Severity, n int32) {
	worst = scan.Undefined
	for name, count := range s.Counts {
		if found := scan.Severity(name); count > 0 && found.Rank() >= severity.Rank() {
			n += count
			if found.Rank() > worst.Rank() {
				worst = found
			}
		}
	}
	return worst, n
}

// shownStatus is what the operations show.
func (s *Scan) shownStatus(p plan) *types.ImageScanStatus {
	switch {
	case p.frequency == types.ScanFrequencyContinuousScan && s.Completed != nil && s.Status == string(types.ScanStatusComplete):
		return &types.ImageScanStatus{Status: types.ScanStatusActive, Description: new("Continuous scan is selected for image.")}
	case s.Pending && s.Attempts == 0:
		return &types.ImageScanStatus{Status: types.ScanStatusInProgress}
	}
	return &types.ImageScanStatus{Status: types.ScanStatus(s.Status), Description: new(cmp.Or(s.Description, s.Status))}
}
