package server

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	calls    *prometheus.CounterVec   // by service, operation and code
	seconds  *prometheus.HistogramVec // by service and operation
	refusals *prometheus.CounterVec   // by service and code: requests that reached no operation
}

func newMetrics(r *prometheus.Registry) (metrics, error) {
	m := metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "neargate_api_calls_total",
			Help: "Calls of operations, by outcome: OK or the error's code."}, []string{"service", "operation", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "neargate_api_call_seconds",
			Help: "Time from validation to the handler's answer.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}, []string{"service", "operation"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "neargate_api_refusals_total",
			Help: "Requests that reached no operation, by the error's code."}, []string{"service", "code"}),
	}
	if err := errors.Join(r.Register(m.calls), r.Register(m.seconds), r.Register(m.refusals)); err != nil {
		return metrics{}, fmt.Errorf("register API metrics: %w", err)
	}
	return m, nil
}

func (m metrics) called(service, operation, code string, took time.Duration) {
	m.calls.WithLabelValues(service, operation, code).Inc()
	m.seconds.WithLabelValues(service, operation).Observe(took.Seconds())
}
