package registry

import (
	"cmp"
	"net"
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
			own, ok := n.r.ownImage(repo.Account, u.Region, u.Image)
			if !ok || own.account != repo.Account {
				continue
			}
			key := state.K(own.account, own.region, own.repository)
			n.uses[key] = append(n.uses[key], imageUse{own.tag, cmp.Or(u.Digest, own.digest), u.By})
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

// ownImage is where an image is kept here.
type ownImage struct{ account, region, repository, tag, digest string }

// ownImage takes an image's name apart as a task of the account and region means it; ok is false for one of another registry.
func (r *Registry) ownImage(account, region, image string) (own ownImage, ok bool) {
	host, rest, found := strings.Cut(image, "/")
	if !found {
		return own, false
	}
	if r.Domain != "" && host == r.publicName() {
		alias, below, _ := strings.Cut(rest, "/")
		if account, found = accountOfAlias(alias); !found {
			return own, false
		}
		host, rest, region = r.PublicName(account, publicRegion), below, publicRegion
	}
	own.account, own.region = account, region
	repository, digest, pinned := strings.Cut(rest, "@")
	own.digest = digest
	if i := strings.LastIndexByte(repository, ':'); i >= 0 {
		repository, own.tag = repository[:i], repository[i+1:]
	} else if !pinned {
		own.tag = "latest"
	}
	own.repository = repository
	if pinned {
		own.tag = "" // it says nothing beside a digest
	}
	if host != r.PublicName(account, region) {
		// Hosts of AWS itself have the same form: the domain makes one ours.
		a, g, isECR := ecrHost(host)
		bare, _, _ := strings.Cut(host, ":")
		if !isECR || r.Domain == "" || bare != r.ecrName(a, g) {
			return own, false
		}
		own.account, own.region = a, g
	}
	return own, true
}

// uri is a repository's name as a caller writes it in images.
func (r *Registry) uri(caller string, repo *Repository) string {
	if repo.Region == publicRegion {
		return r.publicName() + "/" + aliasOf(repo.Account) + "/" + repo.Name
	}
	return r.nameFor(caller, repo.Account, repo.Region) + "/" + repo.Name
}

// ecrName is the host that selects an account's registry.
func (r *Registry) ecrName(account, region string) string {
	return account + ".dkr.ecr." + region + "." + r.Domain
}

// nameFor is the host[:port] by which a caller names an account's registry: the public name means his own.
func (r *Registry) nameFor(caller, account, region string) string {
	public := r.PublicName(account, region)
	if caller == account || r.Domain == "" {
		return public
	}
	if _, port, err := net.SplitHostPort(public); err == nil {
		return net.JoinHostPort(r.ecrName(account, region), port)
	}
	return r.ecrName(account, region)
}
