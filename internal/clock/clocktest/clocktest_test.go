package clocktest_test

import (
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/clock/clocktest"
)

var _ clock.Clock = &clocktest.Clock{}

// It jumps as a machine's clock does: this holds the package against what it knows of time.Time.
func TestJump(t *testing.T) {
	var c clocktest.Clock
	for _, d := range []time.Duration{0, 5 * time.Hour, -30 * time.Hour, 25 * time.Hour} {
		before := c.Now()
		c.Jump(d)
		after := c.Now()
		if passed := after.Sub(before); passed < 0 || passed > time.Minute {
			t.Errorf("%v: %v passed", d, passed)
		}
		if set := after.Round(0).Sub(before.Round(0)) - d; set.Abs() > time.Minute {
			t.Errorf("the clock was set by %v too much, asked for %v", set, d)
		}
	}
	if off := c.Now().Round(0).Sub(time.Now().Round(0)); off.Abs() > time.Minute {
		t.Errorf("set forwards and back it is off by %v", off)
	}
}
