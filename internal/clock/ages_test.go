package clock_test

import (
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/clock/clocktest"
)

// An age is what the record's time says when it is first asked for, and grows by what passes, not by what the clock is set to.
func TestAges(t *testing.T) {
	for name, jump := range map[string]time.Duration{"forwards": 5 * time.Hour, "backwards": -5 * time.Hour} {
		var c clocktest.Clock
		var ages clock.Ages[string]
		stamp := func(ago time.Duration) time.Time { return c.Now().Add(-ago).UTC() } // as a record has it
		is := func(what string, since time.Time, want time.Duration) {
			t.Helper()
			if got := ages.Of(what, since, c.Now()); got < want || got > want+time.Minute {
				t.Errorf("%s: %s is %v old, want %v", name, what, got, want)
			}
		}
		old, fresh, coming := stamp(10*time.Minute), stamp(0), stamp(-2*time.Hour)
		for range 2 {
			is("old", old, 10*time.Minute)
			is("fresh", fresh, 0)
			is("still to come", coming, 0)
			c.Jump(jump)
		}
		is("fresh", stamp(time.Hour), time.Hour) // it is so since another time
	}
}

func TestAgesAreForgotten(t *testing.T) {
	f := clock.NewFake(time.Unix(1e9, 0))
	var ages clock.Ages[int]
	since := f.Now().Add(time.Hour) // of a clock that is ahead
	ages.Of(1, since, f.Now())
	f.Advance(30 * time.Minute)
	if got := ages.Of(1, since, f.Now()); got != 30*time.Minute {
		t.Errorf("asked about again it is %v old", got)
	}
	f.Advance(2 * time.Hour)
	ages.Of(2, since, f.Now())
	if got := ages.Of(1, since, f.Now()); got != 90*time.Minute {
		t.Errorf("forgotten, and asked about anew, it is %v old, want what the record says", got)
	}
}
