package registry

import "context"

// RecordPulls is what Run does every minute.
func (r *Registry) RecordPulls(ctx context.Context) error { return r.recordPulls(ctx) }
