package registry

import (
	"context"
	"errors"
)

// RecordPulls is what Run does again and again.
func (r *Registry) RecordPulls(ctx context.Context) error { return r.tellPulls(ctx) }

// ScanNow is what the scanning loop does in one turn.
func (r *Registry) ScanNow(ctx context.Context) error {
	err := r.refreshScans(ctx)
	_, scanned := r.scanPending(ctx)
	return errors.Join(err, scanned)
}

// SignNow is what the signing loop does in one turn.
func (r *Registry) SignNow(ctx context.Context) error {
	_, err := r.signPending(ctx)
	return err
}

// MaxLogins is how many each of two generations has at most.
const MaxLogins = maxLogins

// Logins is how many are remembered.
func (r *Registry) Logins() int {
	r.logins.mu.Lock()
	defer r.logins.mu.Unlock()
	return len(r.logins.now) + len(r.logins.old)
}
