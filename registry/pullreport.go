package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	// maxReported is how many pull times go in one report: a few megabytes.
	maxReported = 10_000
	// pullsSilence is for how long a server may have reported nothing before it is no longer known what was pulled from it.
	pullsSilence = 10 * time.Minute
)

// pullReport is what a server that follows tells the leader.
type pullReport struct {
	Pulls []pullOf `json:"pulls"`
	// All says that nothing is left to report.
	All bool `json:"all"`
}

type pullOf struct {
	Image []string  `json:"image"` // the parts of its Manifests key
	At    time.Time `json:"at"`
}

// tellPulls has the pull times that are due written down, here or by the leader.
func (r *Registry) tellPulls(ctx context.Context) error {
	if r.Copies != nil && r.follows() {
		return r.reportPulls(ctx)
	}
	return r.recordPulls(ctx)
}

// reportPulls tells the leader of the pull times that are due, and that these are all, if there are none.
func (r *Registry) reportPulls(ctx context.Context) error {
	due := r.due()
	keys := slices.Collect(maps.Keys(due))
	for {
		batch := keys[:min(len(keys), maxReported)]
		keys = keys[len(batch):]
		report := pullReport{All: len(keys) == 0}
		for _, key := range batch {
			report.Pulls = append(report.Pulls, pullOf{key.Parts(), due[key]})
		}
		text, err := json.Marshal(report)
		if err != nil {
			panic(err) // plain data
		}
		if err := r.Copies.ReportPulls(ctx, text); err != nil {
			return fmt.Errorf("report pull times: %w", err)
		}
		for _, key := range batch {
			r.pulls.recorded(key, due[key])
		}
		if report.All {
			return nil
		}
	}
}

// TakePulls writes down what another server reports. Only the leader can.
func (r *Registry) TakePulls(ctx context.Context, from string, text []byte) error {
	if r.Store.Leadership().Term == 0 {
		return state.ErrNotLeader
	}
	var report pullReport
	if err := json.Unmarshal(text, &report); err != nil {
		return fmt.Errorf("pull times of server %s: %w", from, err)
	}
	now := r.Clock.Now()
	for _, p := range report.Pulls {
		at := p.At
		if at.After(now) { // by its clock
			at = now
		}
		r.pulls.note(state.K(p.Image...), at)
	}
	if err := r.recordPulls(ctx); err != nil {
		return err
	}
	if report.All {
		r.pulls.mu.Lock()
		defer r.pulls.mu.Unlock()
		r.pulls.heard[from] = now
	}
	return nil
}

// pullsKnown says whether all other servers have lately told what was pulled from them.
func (r *Registry) pullsKnown() bool {
	if r.Copies == nil {
		return true
	}
	others, known := r.Copies.Others()
	now := r.Clock.Now()
	r.pulls.mu.Lock()
	defer r.pulls.mu.Unlock()
	for _, id := range others {
		heard, ok := r.pulls.heard[id]
		if !ok || now.Sub(heard) > pullsSilence {
			return false
		}
	}
	return known
}
