package registry

import (
	"cmp"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// needsFresh is how long what tasks need is believed before it is looked up again.
const needsFresh = time.Second

// needs knows which images an account's tasks and services need. It is for one goroutine.
type needs struct {
	r       *Registry
	account string
	at      time.Time
	uses    map[state.Key][]imageUse // by Repositories key
}

type imageUse struct{ tag, digest, by string }

// of gives, by digest, who needs an image of the repository.
func (n *needs) of(v state.Reader, repo *Repository) map[string]string {
	if n.r.Users == nil {
		return nil
	}
	if now := n.r.Clock.Now(); n.uses == nil || n.account != repo.Account || now.Sub(n.at) >= needsFresh {
		n.account, n.at, n.uses = repo.Account, now, map[state.Key][]imageUse{}
		for u := range n.r.Users(v, repo.Account) {
			region, name, tag, digest, ok := n.r.ownImage(repo.Account, u.Region, u.Image)
			if !ok {
				continue
			}
			key := state.K(repo.Account, region, name)
			n.uses[key] = append(n.uses[key], imageUse{tag, cmp.Or(u.Digest, digest), u.By})
		}
	}
	needed := map[string]string{}
	for _, u := range n.uses[Repositories.Key(repo)] {
		// What runs is kept, and so is what the tag means now: a task that starts next pulls that.
		if u.digest != "" {
			needed[u.digest] = u.by
		}
		if u.tag != "" {
			if t, ok := Tags.Get(v, repo.in(u.tag)); ok {
				needed[t.Digest] = u.by
			}
		}
	}
	return needed
}

// ownImage takes an image's name apart as a task of the account and region means it; ok is false for one of another registry.
func (r *Registry) ownImage(account, region, image string) (inRegion, repository, tag, digest string, ok bool) {
	host, rest, found := strings.Cut(image, "/")
	if !found {
		return "", "", "", "", false
	}
	repository, digest, pinned := strings.Cut(rest, "@")
	if i := strings.LastIndexByte(repository, ':'); i >= 0 {
		repository, tag = repository[:i], repository[i+1:]
	} else if !pinned {
		tag = "latest"
	}
	if pinned {
		tag = "" // it says nothing beside a digest
	}
	if host != r.PublicName(account, region) {
		// Hosts of AWS itself have the same form: the domain makes one ours.
		a, g, isECR := ecrHost(host)
		bare, _, _ := strings.Cut(host, ":")
		if !isECR || a != account || r.Domain == "" || bare != a+".dkr.ecr."+g+"."+r.Domain {
			return "", "", "", "", false
		}
		region = g
	}
	return region, repository, tag, digest, true
}
