package dns

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// forwardTimeout is for one upstream.
const forwardTimeout = 2 * time.Second

// maxForwards bounds the queries under way, so that upstreams that do not answer, or a loop through other servers, cost no more.
const maxForwards = 512

// forwarder asks the host's resolvers.
type forwarder struct {
	servers  []string
	own      atomic.Pointer[[]string] // never asked: that would be a loop
	underWay atomic.Int64
}

// forward is the first upstream's answer; nil: none answered.
func (f *forwarder) forward(q *dns.Msg, overTCP bool) *dns.Msg {
	if !q.RecursionDesired {
		m := new(dns.Msg)
		m.SetRcode(q, dns.RcodeRefused)
		return m
	}
	if f.underWay.Add(1) > maxForwards {
		f.underWay.Add(-1)
		return nil
	}
	defer f.underWay.Add(-1)
	client := &dns.Client{Net: "udp", Timeout: forwardTimeout, UDPSize: 1232}
	if overTCP {
		client.Net = "tcp"
	}
	for _, server := range f.servers {
		if own := f.own.Load(); own != nil && slices.Contains(*own, server) {
			continue
		}
		if m, _, err := client.Exchange(q, server); err == nil && m.Rcode != dns.RcodeServerFailure {
			return m
		}
	}
	return nil
}
