package proxy

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// latencyBounds are the upper bounds of the response-time histogram, in seconds.
var latencyBounds = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// metrics counts what the proxy does. The counters are plain atomics that a request adds to; names and labels are put
// together only when somebody looks.
type metrics struct {
	mu        sync.Mutex
	listeners map[string]*listenerStats // by ARN; kept when the listener goes, as counters are
	groups    map[string]*groupStats
}

func newMetrics() *metrics {
	return &metrics{listeners: map[string]*listenerStats{}, groups: map[string]*groupStats{}}
}

// listenerStats counts what clients got.
type listenerStats struct {
	loadBalancer string
	active       atomic.Int64
	codes        codeCounts
	latency      latency
}

func (s *listenerStats) observe(status int, took time.Duration) {
	s.codes.add(status)
	s.latency.add(took)
}

// groupStats counts what targets answered.
type groupStats struct {
	codes         codeCounts
	latency       latency
	connectErrors atomic.Uint64
	failed        atomic.Uint64 // broken or late answers
}

func (s *groupStats) observe(status int, took time.Duration) {
	s.codes.add(status)
	s.latency.add(took)
}

// codeCounts counts by class: 0 for no answer, 1 to 5 for 1xx to 5xx.
type codeCounts [6]atomic.Uint64

func (c *codeCounts) add(status int) {
	if i := status / 100; i < len(c) {
		c[i].Add(1)
	}
}

type latency struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64
	nanos   atomic.Int64
}

func (l *latency) add(d time.Duration) {
	s, i := d.Seconds(), 0
	for i < len(latencyBounds) && s > latencyBounds[i] {
		i++
	}
	l.buckets[i].Add(1)
	l.nanos.Add(int64(d))
}

func (l *latency) metric(d *prometheus.Desc, label string) prometheus.Metric {
	cumulative, buckets := uint64(0), make(map[float64]uint64, len(latencyBounds))
	for i, b := range latencyBounds {
		cumulative += l.buckets[i].Load()
		buckets[b] = cumulative
	}
	cumulative += l.buckets[len(latencyBounds)].Load()
	return prometheus.MustNewConstHistogram(d, cumulative, time.Duration(l.nanos.Load()).Seconds(), buckets, label)
}

func (m *metrics) listener(arn, loadBalancer string) *listenerStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.listeners[arn]
	if !ok {
		s = &listenerStats{loadBalancer: loadBalancer}
		m.listeners[arn] = s
	}
	return s
}

func (m *metrics) group(arn string) *groupStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.groups[arn]
	if !ok {
		s = &groupStats{}
		m.groups[arn] = s
	}
	return s
}

var (
	requestsDesc  = prometheus.NewDesc("neargate_lb_requests_total", "Requests by the class of the status the client got.", []string{"listener", "class"}, nil)
	activeDesc    = prometheus.NewDesc("neargate_lb_active", "Requests and connections in flight.", []string{"listener"}, nil)
	durationDesc  = prometheus.NewDesc("neargate_lb_request_seconds", "From the request's header to the end of its answer.", []string{"listener"}, nil)
	responsesDesc = prometheus.NewDesc("neargate_target_responses_total", "Answers of targets by class of status.", []string{"target_group", "class"}, nil)
	headDesc      = prometheus.NewDesc("neargate_target_response_seconds", "From the request's header to the header of the target's answer.", []string{"target_group"}, nil)
	connectDesc   = prometheus.NewDesc("neargate_target_connection_errors_total", "Connections that targets refused or left unanswered.", []string{"target_group"}, nil)
	failedDesc    = prometheus.NewDesc("neargate_target_failures_total", "Broken or late answers of targets.", []string{"target_group"}, nil)
)

// Describe is prometheus.Collector's.
func (p *Proxy) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{requestsDesc, activeDesc, durationDesc, responsesDesc, headDesc, connectDesc, failedDesc} {
		c <- d
	}
}

// Collect is prometheus.Collector's.
func (p *Proxy) Collect(c chan<- prometheus.Metric) {
	p.metrics.mu.Lock()
	defer p.metrics.mu.Unlock()
	codes := func(d *prometheus.Desc, counts *codeCounts, label string) {
		for i := range counts {
			if n := counts[i].Load(); n > 0 {
				class := "none"
				if i > 0 {
					class = strconv.Itoa(i) + "xx"
				}
				c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), label, class)
			}
		}
	}
	for arn, s := range p.metrics.listeners {
		codes(requestsDesc, &s.codes, arn)
		c <- prometheus.MustNewConstMetric(activeDesc, prometheus.GaugeValue, float64(s.active.Load()), arn)
		c <- s.latency.metric(durationDesc, arn)
	}
	for arn, s := range p.metrics.groups {
		codes(responsesDesc, &s.codes, arn)
		c <- s.latency.metric(headDesc, arn)
		c <- prometheus.MustNewConstMetric(connectDesc, prometheus.CounterValue, float64(s.connectErrors.Load()), arn)
		c <- prometheus.MustNewConstMetric(failedDesc, prometheus.CounterValue, float64(s.failed.Load()), arn)
	}
}
