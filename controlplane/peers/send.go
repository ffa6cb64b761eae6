package peers

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// Send passes a request on to a server. Unless sent, it has surely not got there. A leader that has been replaced meanwhile is not waited
// for: it may be a host that stands still, with its connections.
func (p *Peers) Send(_ context.Context, id string, r *http.Request) (*http.Response, bool, error) {
	ctx, cancel := context.WithCancel(r.Context())
	s := &sending{id, cancel}
	p.sendings.begin(s)
	if p.Store.Leadership().Leader != id {
		p.sendings.end(s) // it is not asked because it leads
	}
	answer, sent, err := send(p.forwards, id, r.WithContext(ctx))
	p.sendings.end(s)
	if err != nil {
		cancel()
		return nil, sent, err
	}
	c := &cancelling{answer.Body, cancel}
	answer.Body = c
	if w, ok := c.ReadCloser.(io.Writer); ok { // the answer of a server that switches protocols
		answer.Body = struct {
			*cancelling
			io.Writer
		}{c, w}
	}
	return answer, sent, nil
}

// sendings are the requests that the leader has and has not begun to answer.
type sendings struct {
	mu   sync.Mutex
	open map[*sending]bool
}

type sending struct {
	to     string
	cancel context.CancelFunc
}

func (a *sendings) begin(s *sending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open = map[*sending]bool{}
	}
	a.open[s] = true
}

func (a *sendings) end(s *sending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, s)
}

// others are those to other servers than id.
func (a *sendings) others(id string) (list []*sending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s := range a.open {
		if s.to != id {
			list = append(list, s)
		}
	}
	return list
}

// cancel breaks off those of list that are still open.
func (a *sendings) cancel(list []*sending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range list {
		if a.open[s] {
			s.cancel()
		}
	}
}

// replacedGrace is for an answer that is on its way, and for the leader before to hear that it is so no more.
const replacedGrace = time.Second

// abandon breaks off, until ctx ends, what was sent to a leader that has been replaced. One goroutine does so for all requests.
func (p *Peers) abandon(ctx context.Context) error {
	for {
		l := p.Store.Leadership()
		leader := l.Leader
		if l.Term != 0 {
			leader = p.ID
		}
		if leader != "" {
			if late := p.sendings.others(leader); len(late) > 0 {
				select {
				case <-p.Clock.After(replacedGrace):
				case <-ctx.Done():
					return nil
				}
				p.sendings.cancel(late)
			}
		}
		select {
		case <-l.Changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// cancelling ends a request's context with its answer.
type cancelling struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *cancelling) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}

func send(t *http.Transport, id string, r *http.Request) (*http.Response, bool, error) {
	r.URL.Scheme, r.URL.Host = "http", id
	answer, err := t.RoundTrip(r)
	var unsent *unsentError
	return answer, !errors.As(err, &unsent), err
}
