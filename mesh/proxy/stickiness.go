package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"
)

// The cookies of Elastic Load Balancing: of a target, the same for cross-site requests, of a target group.
const (
	targetCookie = "AWSALB"
	corsCookie   = "AWSALBCORS"
	groupCookie  = "AWSALBTG"
)

// stickiness is what the answer has to set; the zero value sets nothing.
type stickiness struct {
	group    *group
	groupFor time.Duration
}

// opaque names a thing to clients without telling them what it is.
func opaque(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// chooseGroup chooses among an action's groups: by cookie, else by weight.
func (x *exchange) chooseGroup(a action) *group {
	if a.sticky == 0 || len(a.forward.groups) == 1 {
		return a.forward.choose()
	}
	g := a.forward.choose()
	if c := x.r.header.cookie(groupCookie); c != "" {
		for i, other := range a.forward.groups {
			weighted := a.forward.upTo[i] > 0 && (i == 0 || a.forward.upTo[i] > a.forward.upTo[i-1])
			if weighted && opaque(other.arn) == c {
				g = other
			}
		}
	}
	x.sticky.group, x.sticky.groupFor = g, a.sticky
	return g
}

// chooseEndpoint enters an endpoint: by cookie on the first try, else by the group's algorithm.
func (x *exchange) chooseEndpoint(g *group, tried []*endpoint) *endpoint {
	if len(tried) == 0 && g.table.Load().stickiness > 0 {
		if c := x.r.header.cookie(targetCookie); c != "" {
			if e := g.stuck(c); e != nil {
				return e
			}
		}
	}
	return g.pick(tried)
}

// appendCookies renews the cookies with every answer, as Elastic Load Balancing does.
func (s stickiness) appendCookies(h header, e *endpoint) header {
	if s.group != nil {
		h = append(h, setCookie(groupCookie+"="+opaque(s.group.arn)+expires(s.groupFor)+"; Path=/"))
	}
	if d := e.group.table.Load().stickiness; d > 0 {
		h = append(h, setCookie(targetCookie+"="+e.cookie+expires(d)+"; Path=/"),
			setCookie(corsCookie+"="+e.cookie+expires(d)+"; Path=/; SameSite=None"))
	}
	return h
}

func setCookie(v string) field { return field{name: "Set-Cookie", value: v} }

func expires(d time.Duration) string {
	return "; Expires=" + time.Now().Add(d).UTC().Format(http.TimeFormat)
}
