package iam

import (
	"context"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// What the API server asks on every call. All of it is answered from this server's replica, without waiting: a change that
// another server has just made may be seen a moment later, as on AWS.

// Lookup finds the owner of an access key. A token that comes with it is a session's.
func (s *Service) Lookup(_ context.Context, accessKeyID, sessionToken string) (api.Credential, bool, error) {
	v := s.Store.View()
	if sessionToken != "" {
		c, ok := s.openSession(accessKeyID, sessionToken)
		if !ok || c.Identity.Root {
			return c, ok, nil
		}
		e, ok := byID(v, c.Identity.Account, ownerID(&c.Identity))
		if ok && c.Identity.Session.Role == "" {
			c.Identity.ARN = e.ARN() // a user may have been renamed since
		}
		return c, ok, nil
	}
	for k := range AccessKeysByID.Scan(v, state.K(accessKeyID)) {
		e, ok := byID(v, k.Account, k.UserId)
		if !ok || k.Inactive {
			break
		}
		secret, err := s.Seal.Open(k.Secret, secretBound(k.Id))
		if err != nil {
			return api.Credential{}, false, err // sealed by another cluster's key
		}
		return api.Credential{SecretAccessKey: string(secret), Identity: api.Identity{
			Account: k.Account, ARN: e.ARN(), UserID: e.Id, AccessKeyID: k.Id}}, true, nil
	}
	return api.Credential{}, false, nil
}

// ownerID is the unique id of the user or role that an identity is of.
func ownerID(who *api.Identity) string {
	id, _, _ := strings.Cut(who.UserID, ":")
	return id
}

// Policies are what binds a caller who is not root: its own policies, those of its groups, boundary and session policies.
// ok is false when the user or role is there no more.
func (s *Service) Policies(who *api.Identity) (*policy.Policies, bool) {
	v := s.Store.View()
	e, ok := byID(v, who.Account, ownerID(who))
	if !ok {
		return nil, false
	}
	return s.policiesOf(v, e, who.Session), true
}

func (s *Service) policiesOf(v state.Reader, e *Entity, session *api.Session) *policy.Policies {
	p := &policy.Policies{Identity: s.entityPolicies(v, make([]*policy.Policy, 0, 8), e)}
	for _, id := range e.Groups {
		if g, ok := byID(v, e.Account, id); ok {
			p.Identity = s.entityPolicies(v, p.Identity, g)
		}
	}
	if e.Boundary != "" {
		p.Bounded, p.Boundary = true, s.managedPolicy(v, nil, e.Boundary)
	}
	if session.Limited() {
		p.Limited = true
		for _, text := range session.Policies {
			p.Session = append(p.Session, s.compiled.text(s, text))
		}
		for _, a := range session.PolicyARNs {
			p.Session = s.managedPolicy(v, p.Session, a)
		}
	}
	return p
}

// entityPolicies appends the policies of a user, group or role by itself.
func (s *Service) entityPolicies(v state.Reader, list []*policy.Policy, e *Entity) []*policy.Policy {
	list = append(list, s.compiled.record(e.Id, e, func() (out []*policy.Policy) {
		for name, text := range e.Policies {
			out = append(out, s.compile(e.ARN()+" "+name, text))
		}
		return out
	})...)
	for _, a := range e.Attached {
		list = s.managedPolicy(v, list, a)
	}
	return list
}

// managedPolicy appends a managed policy's default version. One that is not there any more allows nothing.
func (s *Service) managedPolicy(v state.Reader, list []*policy.Policy, arn string) []*policy.Policy {
	p, ok := managed(v, arn)
	if !ok {
		return list
	}
	return append(list, s.compiled.record(p.Id, p, func() []*policy.Policy {
		return []*policy.Policy{s.compile(arn, p.defaultDocument())}
	})...)
}

// Trust is the trust policy of the role with this ARN.
func (s *Service) Trust(arn string) (*policy.Policy, bool) {
	e, ok := byARN(s.Store.View(), arn)
	if !ok || e.Kind != string(role) {
		return nil, false
	}
	return s.compiled.record("trust "+e.Id, e, func() []*policy.Policy {
		p, err := policy.Parse(policy.Trust, e.Trust)
		if err != nil {
			s.Log.Error("a trust policy cannot be read; nobody may assume the role", "role", arn, "error", err)
			return []*policy.Policy{{}}
		}
		return []*policy.Policy{p.Pin(e.TrustIds)}
	})[0], true
}

// PrincipalID is the unique id of the user or role with this ARN, for policies of other services that name it.
func PrincipalID(r state.Reader, arn string) (string, bool) {
	e, ok := byARN(r, arn)
	return e.GetId(), ok
}

// Tags are those of the user or role that who is.
func (s *Service) Tags(who *api.Identity) map[string]string {
	v := s.Store.View()
	e, ok := byID(v, who.Account, ownerID(who))
	if !ok {
		return nil
	}
	return controlplane.TagsOf(v, scopeOf(e.Account), e.ARN())
}

// denyAll stands for a document that cannot be read: it may have denied anything.
var denyAll = func() *policy.Policy {
	p, err := policy.Parse(policy.Identity, `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}`)
	if err != nil {
		panic(err)
	}
	return p
}()

func (s *Service) compile(of, text string) *policy.Policy {
	p, err := policy.Parse(policy.Identity, text)
	if err != nil {
		s.Log.Error("a policy cannot be read; it denies everything", "policy", of, "error", err)
		return denyAll
	}
	return p
}

// cache holds compiled policies. Those of a record are good for just this version of it: records are never changed in
// place, so the same pointer is the same revision.
type cache struct {
	mu      sync.RWMutex
	records map[string]compiledRecord
	texts   map[string]*policy.Policy // of sessions
}

type compiledRecord struct {
	record   proto.Message
	policies []*policy.Policy
}

// Bounds of the cache. What is forgotten is compiled again.
const (
	maxRecords = 20_000
	maxTexts   = 2_000
)

func (c *cache) record(id string, rec proto.Message, make func() []*policy.Policy) []*policy.Policy {
	c.mu.RLock()
	got, ok := c.records[id]
	c.mu.RUnlock()
	if ok && got.record == rec {
		return got.policies
	}
	got = compiledRecord{rec, make()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.records == nil || len(c.records) >= maxRecords {
		c.records = map[string]compiledRecord{}
	}
	c.records[id] = got
	return got.policies
}

func (c *cache) text(s *Service, text string) *policy.Policy {
	c.mu.RLock()
	p := c.texts[text]
	c.mu.RUnlock()
	if p != nil {
		return p
	}
	p = s.compile("session", text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.texts == nil || len(c.texts) >= maxTexts {
		c.texts = map[string]*policy.Policy{}
	}
	c.texts[text] = p
	return p
}
