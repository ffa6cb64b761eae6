package raft

import (
	"testing"
	"time"
)

// A leader gives up no sooner than those who follow it: a stall that they sit out does not cost the leadership.
func TestTheLeaderIsAsPatientAsItsFollowers(t *testing.T) {
	for _, patience := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 5 * time.Second} {
		c := (&Engine{timeout: patience}).config()
		if c.HeartbeatTimeout != patience || c.LeaderLeaseTimeout != patience {
			t.Errorf("followers wait for %v, the leader for %v, want %v", c.HeartbeatTimeout, c.LeaderLeaseTimeout, patience)
		}
	}
}
