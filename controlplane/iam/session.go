package iam

import (
	"encoding/base64"
	"encoding/json"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/api"
)

// Temporary credentials are stored nowhere: the session token holds, sealed, who they are of and the secret that goes with
// them, and any server opens it. It is bound to its access key id.

type sessionToken struct {
	Secret string `json:"s"`
	Who    api.Identity
}

func sessionBound(accessKeyID string) []byte { return []byte("session v1 " + accessKeyID) }

// Begin makes temporary credentials of who, whose Session says all about them but the access key id.
func (s *Service) Begin(who api.Identity) api.Credential {
	who.AccessKeyID = keyID(s.Rand, prefixTemporary, who.Account)
	secret := secretKey(s.Rand)
	plain, err := json.Marshal(sessionToken{secret, who})
	if err != nil {
		panic(err) // plain data
	}
	token := base64.StdEncoding.EncodeToString(s.Seal.Seal(plain, sessionBound(who.AccessKeyID)))
	return api.Credential{SecretAccessKey: secret, SessionToken: token, Expires: who.Session.Expires, Identity: who}
}

func (s *Service) openSession(accessKeyID, token string) (api.Credential, bool) {
	if c, ok := s.sessions.get(token); ok {
		return c, c.Identity.AccessKeyID == accessKeyID
	}
	sealed, err := base64.StdEncoding.Strict().DecodeString(token)
	if err != nil {
		return api.Credential{}, false
	}
	plain, err := s.Seal.Open(sealed, sessionBound(accessKeyID))
	if err != nil {
		return api.Credential{}, false
	}
	var t sessionToken
	if json.Unmarshal(plain, &t) != nil || t.Who.Session == nil {
		return api.Credential{}, false
	}
	c := api.Credential{SecretAccessKey: t.Secret, SessionToken: token, Expires: t.Who.Session.Expires, Identity: t.Who}
	s.sessions.put(token, c, s.Clock.Now())
	return c, true
}

// sessionCache holds opened tokens. Whether they have expired is asked anew with each use.
type sessionCache struct {
	mu     sync.RWMutex
	opened map[string]api.Credential
}

// maxSessions bounds the cache. Those that have expired go first.
const maxSessions = 10_000

func (c *sessionCache) get(token string) (api.Credential, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, ok := c.opened[token]
	return v, ok
}

func (c *sessionCache) put(token string, v api.Credential, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.opened) >= maxSessions {
		for t, old := range c.opened {
			if !now.Before(old.Expires) {
				delete(c.opened, t)
			}
		}
	}
	if c.opened == nil || len(c.opened) >= maxSessions {
		c.opened = map[string]api.Credential{}
	}
	c.opened[token] = v
}

// Role is what STS asks about a role.
func (s *Service) Role(arn string) (id string, maxSession time.Duration, ok bool) {
	e, ok := byARN(s.Store.View(), arn)
	if !ok || e.Kind != string(role) {
		return "", 0, false
	}
	return e.Id, time.Duration(e.MaxSessionSeconds) * time.Second, true
}

// PolicyExists says whether a role's account may give sessions this managed policy.
func (s *Service) PolicyExists(account, arn string) bool {
	return policyARN(&arn) == nil && attachable(s.Store.View(), account, arn)
}
