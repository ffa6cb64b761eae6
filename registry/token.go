package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"time"

	"github.com/seed-2f228079/neargate/api"
)

const (
	// tokenUser is the user name that goes with a token, as ECR has it.
	tokenUser = "AWS"
	// tokenLifetime is that of GetAuthorizationToken.
	tokenLifetime = 12 * time.Hour
	// pullTokenLifetime has to outlast the pulls of a task that waits for a slow disk or network.
	pullTokenLifetime = time.Hour
)

// tokenBound separates tokens from whatever else is sealed under the same key.
var tokenBound = []byte("registry token v1")

// token is what a sealed password says. It is stateless: nothing is looked up to believe it, and nothing revokes it before
// it expires.
type token struct {
	Account string    `json:"a"`
	Region  string    `json:"r"`
	ARN     string    `json:"u"`
	Expires time.Time `json:"e"`
	// Pull limits the token to reading this repository.
	Pull string `json:"p,omitempty"`
}

func (r *Registry) sealToken(t token) string {
	plain, err := json.Marshal(t)
	if err != nil {
		panic(err) // plain strings and a time
	}
	return base64.RawURLEncoding.EncodeToString(r.Seal.Seal(plain, tokenBound))
}

func (r *Registry) openToken(s string) (token, bool) {
	var t token
	sealed, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return t, false
	}
	plain, err := r.Seal.Open(sealed, tokenBound)
	if err != nil || json.Unmarshal(plain, &t) != nil {
		return t, false
	}
	return t, r.Clock.Now().Before(t.Expires)
}

// PullToken is a password, for an hour, that only reads one repository; the user name is "AWS". It is what a task's host gets.
func (r *Registry) PullToken(account, region, repository string) string {
	return r.sealToken(token{
		Account: account, Region: region, ARN: api.System(account).ARN,
		Expires: r.Clock.Now().Add(pullTokenLifetime), Pull: repository,
	})
}

// PullCredentials says how a task of the account and region gets an image that is kept here; ok is false for an image of any
// other registry.
func (r *Registry) PullCredentials(account, region, image string) (user, password string, ok bool) {
	region, repository, _, _, ok := r.ownImage(account, region, image)
	if !ok {
		return "", "", false
	}
	return tokenUser, r.PullToken(account, region, repository), true
}

var ecrHostRE = regexp.MustCompile(`^([0-9]{12})\.dkr\.ecr\.([a-z0-9-]+)\.`)

// ecrHost takes account and region from a host of ECR's form, whatever domain follows.
func ecrHost(host string) (account, region string, ok bool) {
	m := ecrHostRE.FindStringSubmatch(host)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// caller is who a request to /v2/ comes from.
type caller struct {
	account, region string
	arn             string
	pull            string // when set: may only read this repository
}

// authenticate believes a token, or an access key. region is that of the credentials; the host may select another.
func (r *Registry) authenticate(ctx context.Context, user, password string) (caller, bool) {
	if user == tokenUser {
		t, ok := r.openToken(password)
		return caller{account: t.Account, region: t.Region, arn: t.ARN, pull: t.Pull}, ok
	}
	if r.Credentials == nil {
		return caller{}, false
	}
	who, ok := r.Credentials(ctx, user, password)
	return caller{account: who.Account, region: r.Region, arn: who.ARN}, ok
}

// may says whether the caller has the right to a repository of its account. It is the one place where rights are checked.
func (c caller) may(write bool, repository string) bool {
	return c.pull == "" || !write && c.pull == repository
}
