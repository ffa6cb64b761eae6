package registry

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
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
var tokenBound = []byte("registry token v2")

// token is what a sealed password says. It is stateless: it says who logged in, and what that one may do is asked with each
// request, so that a policy's change, and a user's end, count at once.
type token struct {
	Who     api.Identity `json:"w"`
	Region  string       `json:"r"`
	Expires time.Time    `json:"e"`
	// Pull limits the token to reading this repository. The platform itself is asked nothing else then in its own account; in another one,
	// what that account's policies give this one's.
	Pull string `json:"p,omitempty"`
	// Registry is the account whose registry a bare host means; empty: the caller's.
	Registry string `json:"a,omitempty"`
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

// PullToken is a password, for an hour, that only reads one repository of the account, with the platform's own rights; the user name is "AWS".
func (r *Registry) PullToken(account, region, repository string) string {
	return r.pullToken(api.System(account), ownImage{account: account, region: region, repository: repository})
}

func (r *Registry) pullToken(as api.Identity, of ownImage) string {
	t := token{Who: as, Region: of.region, Expires: r.Clock.Now().Add(pullTokenLifetime), Pull: of.repository}
	if of.account != as.Account {
		t.Registry = of.account
	}
	return r.sealToken(t)
}

// PullCredentials says how the host of a task of the account and region gets an image that is kept here; ok is false for an image of any
// other registry. The password lasts an hour and only reads the image's repository: as somebody, whose rights are asked with each
// request, or, nil, as the platform itself. An image of another account comes if that account's policies let this one have it.
func (r *Registry) PullCredentials(account, region, image string, as *api.Identity) (user, password string, ok bool) {
	own, ok := r.ownImage(account, region, image)
	if !ok {
		return "", "", false
	}
	who := api.System(account)
	if as != nil {
		who = *as
	}
	return tokenUser, r.pullToken(who, own), true
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

// caller is who a request to /v2/ comes from, and whose registry it means.
type caller struct {
	who             api.Identity
	account, region string    // of the registry
	pull            string    // when set: may only read this repository
	expires         time.Time // of the token; zero: it was an access key
}

// authenticate believes a token, or an access key. region is that of the credentials; the host may select another.
func (r *Registry) authenticate(ctx context.Context, user, password string) (caller, bool) {
	if user == tokenUser {
		t, ok := r.openToken(password)
		return caller{who: t.Who, account: cmp.Or(t.Registry, t.Who.Account), region: t.Region, pull: t.Pull, expires: t.Expires}, ok
	}
	if r.Credentials == nil {
		return caller{}, false
	}
	who, ok := r.Credentials(ctx, user, password)
	return caller{who: who, account: who.Account, region: r.Region}, ok
}

// actions are the ECR actions that the endpoints of the distribution protocol stand for: "Pushing an image", "IAM permissions
// for pushing" of the ECR User Guide, and for what ECR's clients do not do the action of the operation that does it.
var actions = map[string]string{
	"GET tags":          "ecr:ListImages",
	"GET manifests":     "ecr:BatchGetImage",
	"HEAD manifests":    "ecr:BatchGetImage",
	"PUT manifests":     "ecr:PutImage",
	"DELETE manifests":  "ecr:BatchDeleteImage",
	"GET referrers":     "ecr:ListImageReferrers",
	"GET blobs":         "ecr:GetDownloadUrlForLayer",
	"HEAD blobs":        "ecr:BatchCheckLayerAvailability",
	"DELETE blobs":      "ecr:BatchDeleteImage",
	"POST uploads":      "ecr:InitiateLayerUpload",
	"GET uploads/id":    "ecr:UploadLayerPart",
	"PATCH uploads/id":  "ecr:UploadLayerPart",
	"PUT uploads/id":    "ecr:CompleteLayerUpload",
	"DELETE uploads/id": "ecr:UploadLayerPart",
	"GET catalog":       "ecr:DescribeRepositories",
	"create":            "ecr:CreateRepository",
	"import":            "ecr:BatchImportUpstreamImage",
	"mount":             "ecr:GetDownloadUrlForLayer", // of the repository that a layer is taken from
}

// publicReads are what everybody may in a public registry.
var publicReads = map[string]bool{
	"GET tags": true, "GET manifests": true, "HEAD manifests": true, "GET referrers": true, "GET blobs": true, "HEAD blobs": true,
}

// may says whether the caller may do what the endpoint does to a repository.
func (r *Registry) may(hr *http.Request, c caller, endpoint, repository string) error {
	return r.mayCall(hr.Context(), c, endpoint, repository, func(action string) *api.Call { return r.call(hr, c, action) })
}

// mayCall is may, of a request of which policies see what call makes of it. It is the one place where rights are checked.
func (r *Registry) mayCall(ctx context.Context, c caller, endpoint, repository string, makeCall func(action string) *api.Call) error {
	abroad := c.account != c.who.Account
	if c.pull != "" {
		method, _, _ := strings.Cut(endpoint, " ")
		if c.pull != repository || method != http.MethodGet && method != http.MethodHead && method != "import" {
			return &ociError{http.StatusForbidden, "DENIED", fmt.Sprintf("Not authorized for the repository with name '%s' in the registry with id '%s'", repository, c.account)}
		}
		if !abroad && c.who.ARN == api.System(c.account).ARN {
			return nil
		}
	}
	action := actions[endpoint]
	if action == "" {
		panic("registry: the endpoint " + endpoint + " stands for no action")
	}
	resource := func(call *api.Call) string { return repositoryARN(call, &c.account, repository) }
	if c.region == publicRegion {
		switch {
		case publicReads[endpoint]:
			return nil
		case c.who.Account == "":
			return &ociError{http.StatusUnauthorized, "UNAUTHORIZED", "Whoever pushes to a public registry has to log in."}
		}
		action = strings.Replace(action, "ecr:", publicService+":", 1)
		resource = func(*api.Call) string { return publicARN(c.account, repository) }
	}
	if r.Authorizer == nil {
		if abroad {
			return &ociError{http.StatusForbidden, "DENIED", fmt.Sprintf("Not authorized for the registry with id '%s'", c.account)}
		}
		return nil
	}
	call := makeCall(action)
	err := r.Authorizer.Authorize(ctx, call, api.Access{Action: action, Resources: []string{resource(call)}})
	if err != nil {
		return &ociError{http.StatusForbidden, "DENIED", err.Error()}
	}
	return nil
}

// call is the call of an operation that a request to /v2/ stands for.
func (r *Registry) call(hr *http.Request, c caller, action string) *api.Call {
	call := r.unsent(c, action)
	call.UserAgent, call.Secure = hr.UserAgent(), hr.TLS != nil
	if from, err := netip.ParseAddrPort(hr.RemoteAddr); err == nil {
		call.SourceIP = from.Addr().Unmap()
	}
	return call
}

// unsent is such a call without a request.
func (r *Registry) unsent(c caller, action string) *api.Call {
	service, operation, _ := strings.Cut(action, ":")
	return &api.Call{Identity: c.who, Region: c.region, Service: service, Operation: operation, Time: r.Clock.Now()}
}
