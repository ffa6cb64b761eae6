package server

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/wire"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Rates are how many calls a second each principal of an account may make, apart for those that read, those that write, and the
// requests of the registry's protocol, there by client address. Twice as many may come at once. 0: as many as they like.
type Rates struct{ Read, Write, Registry float64 }

// DefaultRates are far above what people and pipelines do, and far below what would keep a server from everybody else's calls.
var DefaultRates = Rates{Read: 1000, Write: 500, Registry: 2000}

// Check refuses what is no rate.
func (r Rates) Check() error {
	for _, v := range []float64{r.Read, r.Write, r.Registry} {
		if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("a rate of calls is a number from 0 on, not %v", v)
		}
	}
	return nil
}

// maxBuckets bounds each of the limiter's two generations.
const maxBuckets = 8192

// limiter has a token bucket for everybody who has called lately. When a generation is full the one before it is forgotten: a bucket that
// nobody has asked for since, which was full again by then unless thousands of principals call every second. So its memory is
// bounded, and nobody is refused because others are many.
type limiter struct {
	mu       sync.Mutex
	now, old map[caller]*bucket
}

type caller struct {
	account, principal string
	class              byte // 'r', 'w', 'o': read, write, OCI
}

type bucket struct {
	tokens float64
	at     time.Time // as of when
}

// take takes a token, or says after how many seconds there will be one.
func (l *limiter) take(c caller, rate float64, now time.Time) (wait int) {
	if rate <= 0 {
		return 0
	}
	burst := max(2*rate, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.now[c]
	if b == nil {
		if b = l.old[c]; b == nil {
			b = &bucket{burst, now}
		}
		if len(l.now) >= maxBuckets || l.now == nil {
			l.old, l.now = l.now, map[caller]*bucket{}
		}
		l.now[c] = b
	}
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.tokens, b.at = min(b.tokens+passed*rate, burst), now
	}
	if b.tokens < 1 {
		return max(1, int(math.Ceil((1-b.tokens)/rate)))
	}
	b.tokens--
	return 0
}

// throttle refuses a call that comes too fast, in the words of its service.
func (s *Server) throttle(b *binding, c *api.Call) *awserr.Error {
	who, rate := caller{c.Account, c.ARN, 'r'}, s.cfg.Rates.Read
	if b.Mode == api.ModeWrite {
		who.class, rate = 'w', s.cfg.Rates.Write
	}
	if c.Session != nil && c.Session.Role != "" {
		who.principal = c.Session.Role // however many sessions of it there are
	}
	wait := s.limits.take(who, rate, s.clock.Now())
	if wait == 0 {
		return nil
	}
	e := tooFast(b)
	e.RetryAfter = wait
	s.metrics.called(b.Service, b.Name, e.Code, 0)
	return e
}

// tooFast is each protocol's way to say so. SDKs know all of these, and try again later.
func tooFast(b *binding) *awserr.Error {
	codec, err := b.service.codec()
	switch {
	case err != nil:
	case codec.Protocol() == wire.Query:
		return awserr.WithStatus(http.StatusBadRequest, "Throttling", "Rate exceeded")
	case codec.Protocol() == wire.EC2:
		return awserr.WithStatus(http.StatusServiceUnavailable, "RequestLimitExceeded", "Request limit exceeded.")
	case codec.Protocol() == wire.JSON:
		return awserr.WithStatus(http.StatusBadRequest, "ThrottlingException", "Rate exceeded")
	}
	return awserr.WithStatus(http.StatusTooManyRequests, "TooManyRequestsException", "Rate exceeded")
}

// throttleRegistry answers a request of the registry's protocol that comes too fast. Who it is from is not known yet.
func (s *Server) throttleRegistry(x *exchange) bool {
	from := hostname(x.r.RemoteAddr)
	wait := s.limits.take(caller{principal: from, class: 'o'}, s.cfg.Rates.Registry, s.clock.Now())
	if wait == 0 {
		return false
	}
	s.refuseRegistry(x, &awserr.Error{Code: "TOOMANYREQUESTS", Message: "Rate exceeded", Status: http.StatusTooManyRequests, RetryAfter: wait})
	return true
}

// hint tells when to come again.
func (x *exchange) hint(e *awserr.Error) {
	if e.RetryAfter > 0 {
		x.w.Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
}
