package registry

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxLogins bounds each of the two generations of logins. What is forgotten is opened again.
const maxLogins = 1000

// logins are who came lately, by Authorization headers with tokens: a client sends one with each request, and to open it costs more than to
// ask what its owner may. What a token says never changes, so there is nothing to be out of date: whether it has ended is looked at each time, and what
// its owner may, and whether he is there still, is asked with each request as ever. Access keys are not kept. Headers are known by their
// SHA-256 alone.
type logins struct {
	mu       sync.Mutex
	now, old map[login]caller
}

type login [sha256.Size]byte

func loginOf(header string) login {
	var b [1 << 10]byte // which most fit into
	return sha256.Sum256(append(b[:0], header...))
}

func (l *logins) get(header string, now time.Time) (caller, bool) {
	if header == "" {
		return caller{}, false
	}
	key := loginOf(header)
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.now[key]
	if !ok {
		if c, ok = l.old[key]; !ok {
			return caller{}, false
		}
		l.keep(key, c)
	}
	return c, now.Before(c.expires)
}

// put keeps who a header with a token is from.
func (l *logins) put(header string, c caller) {
	if c.expires.IsZero() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(loginOf(header), c)
}

func (l *logins) keep(key login, c caller) {
	if l.now == nil || len(l.now) >= maxLogins {
		l.old, l.now = l.now, map[login]caller{}
	}
	l.now[key] = c
}
