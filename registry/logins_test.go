package registry_test

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/registry"
)

// TestKnownLogin: that a header was believed once keeps nothing from being asked again.
func TestKnownLogin(t *testing.T) {
	allowed, known := true, true
	b := newBench(t, func(c *registry.Config) {
		c.Authorizer = authorizer(func(c *api.Call, a api.Access) error {
			if allowed {
				return nil
			}
			return fmt.Errorf("not authorized to perform: %s", a.Action)
		})
		c.Credentials = func(context.Context, string, string) (api.Identity, bool) {
			return api.Identity{Account: account}, known
		}
	})
	b.create("users")
	const path = "/v2/users/tags/list"
	b.want(200, "GET", path, nil)

	allowed = false
	b.want(403, "GET", path, nil)
	allowed = true
	b.want(200, "GET", path, nil)

	b.want(200, "GET", path, nil, basic("AKIA", "secret"))
	known = false // the key is deleted
	b.want(401, "GET", path, nil, basic("AKIA", "secret"))

	// A header that shows nothing by itself is not believed because of what came beside it.
	b.want(200, "GET", path+"?token="+url.QueryEscape(b.token), nil, header("Authorization", "Bearer x"))
	b.want(401, "GET", path, nil, header("Authorization", "Bearer x"))
	b.want(401, "POST", "/v2/users/blobs/uploads/?token="+url.QueryEscape(b.token), nil, header("Authorization", "Bearer x"))

	b.clock.Advance(12*time.Hour - time.Second)
	b.want(200, "GET", path, nil)
	b.clock.Advance(time.Second)
	b.want(401, "GET", path, nil)
}

// TestManyLogins: they are forgotten, the oldest first, and believed again.
func TestManyLogins(t *testing.T) {
	b := newBench(t)
	b.create("users")
	b.pushImage("users", "v1", "x")
	var passwords []string
	for range registry.MaxLogins + 10 {
		passwords = append(passwords, b.reg.PullToken(account, region, "users"))
	}
	for range 3 {
		for _, p := range passwords {
			b.want(200, "HEAD", "/v2/users/manifests/v1", nil, basic("AWS", p))
			b.want(404, "HEAD", "/v2/users/manifests/v2", nil, basic("AWS", passwords[0]))
		}
		if n := b.reg.Logins(); n < registry.MaxLogins || n > 2*registry.MaxLogins {
			t.Fatalf("%d of %d are remembered", n, len(passwords))
		}
	}
}
