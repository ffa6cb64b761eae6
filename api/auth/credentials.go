package auth

import (
	"context"
	"fmt"
	"regexp"

	"github.com/seed-2f228079/neargate/api"
)

// Credential is an access key with all that is needed to check it.
type Credential = api.Credential

// Credentials finds access keys. The session token of the request is given along, since temporary credentials may be
// contained in it; the caller compares it with the credential's own.
type Credentials interface {
	Lookup(ctx context.Context, accessKeyID, sessionToken string) (c Credential, ok bool, err error)
}

// Root is the root user of one account.
type Root struct {
	Account         string // 12 digits
	AccessKeyID     string
	SecretAccessKey string
}

// Static knows the roots of a fixed set of accounts, by access key id.
type Static map[string]Credential

var accountPattern = regexp.MustCompile(`^[0-9]{12}$`)

// NewStatic checks roots and indexes them.
func NewStatic(roots ...Root) (Static, error) {
	s := Static{}
	for _, r := range roots {
		if !accountPattern.MatchString(r.Account) {
			return nil, fmt.Errorf("account id %q: 12 digits are due", r.Account)
		}
		if r.AccessKeyID == "" || r.SecretAccessKey == "" {
			return nil, fmt.Errorf("account %s: root needs an access key id and a secret access key", r.Account)
		}
		if other, ok := s[r.AccessKeyID]; ok {
			return nil, fmt.Errorf("access key id %q stands for the roots of both account %s and %s", r.AccessKeyID, other.Identity.Account, r.Account)
		}
		s[r.AccessKeyID] = Credential{SecretAccessKey: r.SecretAccessKey, Identity: api.Identity{
			Account: r.Account, ARN: "arn:aws:iam::" + r.Account + ":root", UserID: r.Account, AccessKeyID: r.AccessKeyID, Root: true}}
	}
	return s, nil
}

// Lookup implements Credentials.
func (s Static) Lookup(_ context.Context, accessKeyID, _ string) (Credential, bool, error) {
	c, ok := s[accessKeyID]
	return c, ok, nil
}

// Chain asks one after the other; the first that knows a key answers.
type Chain []Credentials

// Lookup implements Credentials.
func (c Chain) Lookup(ctx context.Context, accessKeyID, sessionToken string) (Credential, bool, error) {
	for _, one := range c {
		if cred, ok, err := one.Lookup(ctx, accessKeyID, sessionToken); ok || err != nil {
			return cred, ok, err
		}
	}
	return Credential{}, false, nil
}
