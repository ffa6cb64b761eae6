package registry

import (
	"context"
	"slices"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Answer is what the host of a task would be told the image is, by its digest, if it asked now with the credentials that PullCredentials gives for
// somebody. It comes with the task, so that the host need not ask for what it has. It counts as a pull.
//
// ok is false, and the host has to ask, wherever the answer would be a refusal, or more is needed for it than records: an upstream's word, a signature's bytes, what
// a policy wants to know of the request itself.
func (r *Registry) Answer(v state.Reader, account, region, image string, as *api.Identity) (digest string, ok bool) {
	own, ok := r.ownImage(account, region, image)
	if !ok || own.region == publicRegion || r.Signatures != nil {
		return "", false
	}
	c := caller{who: api.System(account), account: own.account, region: own.region, pull: own.repository}
	if as != nil {
		c.who = *as
	}
	asked := false
	err := r.mayCall(context.Background(), c, "GET manifests", own.repository, func(action string) *api.Call {
		call := r.unsent(c, action)
		call.Unsent = &asked
		return call
	})
	if err != nil || asked {
		return "", false
	}
	m, ok := r.known(v, own)
	if !ok {
		return "", false
	}
	r.notePull(v, m, c.who.ARN)
	return m.Digest, true
}

// known finds an image that any task may be given, so far as it is this registry's to say.
func (r *Registry) known(v state.Reader, own ownImage) (*Manifest, bool) {
	repo, err := repository(v, own.account, own.region, own.repository)
	if err != nil {
		return nil, false
	}
	m, err := image(v, repo, own.digest, own.tag)
	if err != nil || !r.served(v, repo, m) {
		return nil, false
	}
	// Of an index the host asks for its platform's image as well.
	return m, !slices.ContainsFunc(m.Manifests, func(child string) bool {
		c, err := image(v, repo, child, "")
		return err != nil || len(c.Manifests) > 0 || !r.served(v, repo, c)
	})
}

func (r *Registry) served(v state.Reader, repo *Repository, m *Manifest) bool {
	return !m.Cached && pullable(repo, m) == nil && r.gate(v, repo, m) == nil
}
