package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/registry/signature"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// Signatures says whose images tasks may run.
type Signatures struct {
	Policy *signature.Policy
	// Repositories are wildcards of names; images of others need no signature. Empty: all.
	Repositories []string
}

const (
	// maxSignatures bounds what is looked at of one image, maxSignatureBytes one of those.
	maxSignatures     = 50
	maxSignatureBytes = 1 << 20
)

var errUnsigned = errors.New("there is none")

// trusted refuses an image to a task's host that nobody who is trusted has signed, nor an index that it is in.
func (r *Registry) trusted(ctx context.Context, v state.Reader, repo *Repository, m *Manifest) error {
	s := r.Signatures
	if s == nil || len(s.Repositories) > 0 && !slices.ContainsFunc(s.Repositories, func(w string) bool { return matchesWildcard(w, repo.Name) }) {
		return nil
	}
	err := r.signed(ctx, v, repo, m)
	for index := range ManifestsByReference.Scan(v, Manifests.Key(m)) {
		if err == nil {
			break
		}
		if failed := r.signed(ctx, v, repo, index); !errors.Is(failed, errUnsigned) || errors.Is(err, errUnsigned) {
			err = failed
		}
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &ociError{http.StatusForbidden, "DENIED", fmt.Sprintf("the image %s@%s has no valid signature, and tasks may only run images that have one: %v", repo.Name, m.Digest, err)}
}

// signed is nil if one of the image's signatures is valid; otherwise it tells of the last.
func (r *Registry) signed(ctx context.Context, v state.Reader, repo *Repository, m *Manifest) error {
	var candidates []*Manifest
	// Where cosign puts signatures unless it is told to use referrers.
	if t, ok := Tags.Get(v, repo.in(strings.Replace(m.Digest, ":", "-", 1)+".sig")); ok {
		if c, ok := Manifests.Get(v, repo.in(t.Digest)); ok {
			candidates = append(candidates, c)
		}
	}
	for c := range ManifestsBySubject.Scan(v, Manifests.Key(m)) {
		if len(candidates) == maxSignatures {
			break
		}
		candidates = append(candidates, c)
	}
	err := errUnsigned
	for _, c := range candidates {
		one := r.verify(ctx, c, m.Digest)
		if one == nil {
			return nil
		}
		if !errors.Is(one, errUnsigned) {
			err = one
		}
	}
	return err
}

// verify looks for a valid signature in a manifest; errUnsigned: there are no signatures in it.
func (r *Registry) verify(ctx context.Context, m *Manifest, digest string) error {
	body, err := r.content(ctx, m)
	if err != nil {
		return err
	}
	var doc struct {
		Layers []struct {
			MediaType   string            `json:"mediaType"`
			Digest      string            `json:"digest"`
			Annotations map[string]string `json:"annotations"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return err
	}
	last := errUnsigned
	for i, l := range doc.Layers {
		if i == maxSignatures {
			break
		}
		if l.MediaType != signature.SimpleSigning && l.MediaType != signature.Bundle && l.MediaType != signature.JWS {
			continue
		}
		d := blob.Digest(l.Digest)
		text, err := r.readAll(ctx, d, maxSignatureBytes)
		if err != nil {
			return err
		}
		switch l.MediaType {
		case signature.SimpleSigning:
			last = r.Signatures.Policy.Cosign(text, l.Annotations[signature.Annotation], digest)
		case signature.Bundle:
			last = r.Signatures.Policy.Bundle(text, digest)
		case signature.JWS:
			last = r.Signatures.Policy.Notation(text, digest, r.Clock.Now())
		}
		if last == nil {
			return nil
		}
	}
	return last
}
