package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	// patience is for how long parts may take to be in order before it is said what is waited for.
	patience = 5 * time.Second
	// reminder is how often it is said again.
	reminder = time.Minute
)

// waitReady returns once everything is in order; h may be nil.
func (c *controlPlane) waitReady(ctx context.Context, h *host, log *slog.Logger) error {
	next := time.Now().Add(patience)
	for {
		checks := c.checks(ctx)
		if h != nil {
			checks = append(checks, h.checks()...)
		}
		var reasons []string
		for _, check := range checks {
			switch {
			case check.Err == nil || check.Shared:
			case errors.Is(check.Err, state.ErrNoLeader):
				reasons = append(reasons, "no server leads")
			default:
				reasons = append(reasons, fmt.Sprintf("%s: %v", check.Name, check.Err))
			}
		}
		if len(reasons) == 0 {
			return nil
		}
		if now := time.Now(); !now.Before(next) && ctx.Err() == nil {
			next = now.Add(reminder)
			if c.peers != nil {
				if silent := c.peers.Silent(ctx); len(silent) > 0 {
					reasons = append(reasons, "these servers of the cluster do not answer: "+strings.Join(silent, ", "))
				}
			}
			log.Warn("not ready yet; waiting", "for", strings.Join(reasons, "; "))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
