package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/registry/signature"
	"github.com/seed-2f228079/neargate/storage/blob"
)

const (
	signPayload = "signer:SignPayload" // what one needs to be allowed on a profile

	maxSigningRules = 10
	// A signature that cannot be made is tried again after signPause, then twice that, signAttempts times in all.
	signPause    = 10 * time.Second
	signAttempts = 5
)

// Codes of failures, in the words of AWS Signer's own errors.
const (
	signingDenied   = "AccessDeniedException"
	signingNoSigner = "ResourceNotFoundException"
	signingFailed   = "InternalServiceErrorException"
)

// emptyConfig is the config of artifacts that have none.
const emptyConfig = "{}"

// signing is the configuration; nil: there is none.
func (s *RegistrySettings) signing() *types.SigningConfiguration {
	if s.SigningJson == "" {
		return nil
	}
	return new(controlplane.DecodeShape[types.SigningConfiguration](s.SigningJson))
}

// profilesFor are the signing profiles of the rules that a repository fits.
func profilesFor(c *types.SigningConfiguration, repository string) (profiles []string) {
	if c == nil {
		return nil
	}
	for _, rule := range c.Rules {
		fits := len(rule.RepositoryFilters) == 0 || slices.ContainsFunc(rule.RepositoryFilters, func(f types.SigningRepositoryFilter) bool {
			return matchesWildcard(value(f.Filter), repository)
		})
		if fits {
			profiles = appendNew(profiles, value(rule.SigningProfileArn))
		}
	}
	return profiles
}

// queueSigning has an image signed, in the transaction of the push that brings it. What was signed stays so; what could not be is tried again, as
// whoever pushes now. What rules asked for that are no more is forgotten.
func (r *Registry) queueSigning(tx *state.Tx, repo *Repository, m *Manifest, maySign func(profile string) error) {
	if !m.scannable() && m.MediaType != mediaTypeOCIIndex && m.MediaType != mediaTypeDockerList || m.Subject != "" {
		return
	}
	profiles := profilesFor(registryRecord(tx, repo.Account, repo.Region).signing(), repo.Name)
	if profiles == nil {
		return
	}
	for s := range ImageSignings.Scan(tx, Manifests.Key(m)) {
		if !slices.Contains(profiles, s.Profile) {
			ImageSignings.Delete(tx, ImageSignings.Key(s))
		}
	}
	for _, profile := range profiles {
		s := &ImageSigning{
			Account: m.Account, Region: m.Region, Repository: m.Repository, Digest: m.Digest, Profile: profile, Name: repo.Name,
			Status: string(types.SigningStatusInProgress), Requested: timestamppb.New(r.Clock.Now()),
		}
		if old, ok := ImageSignings.Get(tx, ImageSignings.Key(s)); ok && old.Status != string(types.SigningStatusFailed) {
			continue
		}
		if err := maySign(profile); err != nil {
			s.fail(signingDenied, err)
		}
		ImageSignings.Put(tx, s)
	}
}

func (s *ImageSigning) fail(code string, err error) {
	s.Status, s.FailureCode, s.FailureReason, s.NotBefore = string(types.SigningStatusFailed), code, shortened(err), nil
}

// runSigning signs images as they come, until ctx ends.
func (r *Registry) runSigning(ctx context.Context) error {
	changed, ended := r.changes(ctx, ImageSignings)
	defer ended()
	for {
		next, err := r.signPending(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			r.Log.Error("sign images", "error", err)
			next = r.Clock.Now().Add(signPause)
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = r.Clock.After(next.Sub(r.Clock.Now()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-due:
		}
	}
}

// signPending signs what is due and says when something is again; zero: nothing is left.
func (r *Registry) signPending(ctx context.Context) (next time.Time, err error) {
	for s := range ImageSigningsPending.Scan(r.Store.View(), state.K()) {
		if at := s.NotBefore.AsTime(); s.NotBefore != nil && at.After(r.Clock.Now()) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		done := proto.CloneOf(s)
		switch err := r.signImage(ctx, s); {
		case ctx.Err() != nil:
			return next, nil // whoever leads next begins again
		case err == nil:
			done.Status, done.FailureCode, done.FailureReason, done.NotBefore = string(types.SigningStatusComplete), "", "", nil
		case errors.Is(err, errNoProfile):
			done.fail(signingNoSigner, err)
		default:
			r.Log.Warn("an image could not be signed", "repository", s.Name, "digest", s.Digest, "profile", s.Profile, "error", err)
			if done.Attempts++; done.Attempts == signAttempts {
				done.fail(signingFailed, err)
				break
			}
			done.NotBefore = timestamppb.New(r.Clock.Now().Add(signPause << (done.Attempts - 1)))
		}
		_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
			// It is gone with its image, or there is another outcome.
			if now, ok := ImageSignings.Get(tx, ImageSignings.Key(s)); ok && proto.Equal(now, s) {
				ImageSignings.Put(tx, done)
			}
			return nil
		})
		if err != nil {
			return next, fmt.Errorf("keep how signing %s@%s went: %w", s.Name, s.Digest, err)
		}
	}
	return next, nil
}

var errNoProfile = errors.New("there is no such signing profile")

// signer finds a profile's key.
func (r *Registry) signer(profile string) (*signature.Signer, error) {
	a, err := arn.Parse(profile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoProfile, err)
	}
	if r.Signer == nil {
		return nil, fmt.Errorf("%w: the server was started without --signing-profiles", errNoProfile)
	}
	s, err := r.Signer(a.Account, strings.TrimPrefix(a.Resource, "/signing-profiles/"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoProfile, err)
	}
	return s, nil
}

// signImage pushes a signature of notation as the image's referrer, unless one with these certificates is there: an earlier leader may not have come to say so.
func (r *Registry) signImage(ctx context.Context, s *ImageSigning) error {
	signer, err := r.signer(s.Profile)
	if err != nil {
		return err
	}
	v := r.Store.View()
	repo, err := repository(v, s.Account, s.Region, s.Name)
	if err != nil {
		return err
	}
	m, err := image(v, repo, s.Digest, "")
	if err != nil {
		return err
	}
	prints := signer.Thumbprints()
	for c := range ManifestsBySubject.Scan(v, Manifests.Key(m)) {
		if c.ArtifactType == signature.Notary && c.Annotations[signature.Thumbprints] == prints {
			return nil
		}
	}
	envelope, err := signer.Notation(signature.Target{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}, r.Clock.Now())
	if err != nil {
		return err
	}
	of := func(mediaType string, content []byte) map[string]any {
		return map[string]any{"mediaType": mediaType, "digest": blob.Sum(content), "size": len(content)}
	}
	body, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": mediaTypeOCIManifest, "artifactType": signature.Notary,
		"config":      of("application/vnd.oci.empty.v1+json", []byte(emptyConfig)),
		"layers":      []any{of(signature.JWS, envelope)},
		"subject":     map[string]any{"mediaType": m.MediaType, "digest": m.Digest, "size": m.Size},
		"annotations": map[string]string{signature.Thumbprints: prints, "org.opencontainers.image.created": r.Clock.Now().UTC().Format(time.RFC3339)},
	})
	if err != nil {
		return err
	}
	for _, content := range [][]byte{[]byte(emptyConfig), envelope} {
		lease, info, err := r.Blobs.Put(ctx, blob.Sum(content), bytes.NewReader(content))
		if err != nil {
			return err
		}
		defer lease.Release()
		if err := r.addLayer(ctx, repo, info); err != nil {
			return err
		}
	}
	_, err = r.putImage(ctx, repo, push{body: body, mediaType: mediaTypeOCIManifest})
	return err
}
