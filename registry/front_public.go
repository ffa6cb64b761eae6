package registry

import (
	"net/http"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/api"
)

// Clients ask a registry how to log in before they pull from it, and again when they push: one that would let everybody read without any
// token would never see theirs. So, as on AWS, everybody has to come with a token, and everybody gets one.

// tokenPath is where clients of public registries get their tokens. No repository's path is so short.
const tokenPath = "token"

// anonymousLife is how long one is good that says nothing.
const anonymousLife = time.Hour

// publicToken answers the token protocol of distribution: whoever is logged in gets back what he logged in with, anybody else a token without a name.
func (f front) publicToken(w http.ResponseWriter, hr *http.Request) error {
	if hr.Method != http.MethodGet {
		return &ociError{http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported."}
	}
	expires := f.Clock.Now().Add(anonymousLife)
	text := ""
	if user, password, ok := hr.BasicAuth(); ok {
		c, err := f.loggedIn(hr, user, password)
		if err != nil {
			return err
		}
		text = f.sealToken(token{Who: c.who, Region: publicRegion, Expires: expires})
	} else {
		text = f.sealToken(token{Region: publicRegion, Expires: expires})
	}
	writeJSON(w, "application/json", map[string]any{
		"token": text, "access_token": text, "expires_in": int(anonymousLife / time.Second), "issued_at": f.Clock.Now().UTC().Format(time.RFC3339),
	})
	return nil
}

// publicCaller is who a request to the public registries comes from; it may be nobody.
func (f front) publicCaller(hr *http.Request) (caller, error) {
	if text, ok := strings.CutPrefix(hr.Header.Get("Authorization"), "Bearer "); ok {
		t, ok := f.openToken(text)
		if !ok || t.Region != publicRegion {
			return caller{}, errToken
		}
		return caller{who: t.Who, region: publicRegion}, nil
	}
	user, password, ok := hr.BasicAuth()
	if !ok {
		return caller{}, &ociError{http.StatusUnauthorized, "UNAUTHORIZED", "authentication required"}
	}
	return f.loggedIn(hr, user, password)
}

// loggedIn believes a password of ecr-public's GetAuthorizationToken, a task's, or an access key.
func (f front) loggedIn(hr *http.Request, user, password string) (caller, error) {
	c, ok := f.authenticate(hr.Context(), user, password)
	if !ok || user == tokenUser && c.region != publicRegion {
		return caller{}, errToken
	}
	if c.pull != "" { // a task's host reads like everybody
		c.who = api.Identity{}
	}
	return caller{who: c.who, region: publicRegion}, nil
}
