package crash

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ledger is what one client was told by the platform. Each key is written by one goroutine, one change at a time.
type ledger struct {
	mu    sync.Mutex
	facts map[string]fact
}

// fact is the value that was acknowledged last, "" for none, and the one that a change in flight may have made of it.
type fact struct {
	acknowledged string
	inFlight     *string
}

func newLedger() *ledger { return &ledger{facts: map[string]fact{}} }

// change notes that key is to become value, does it, and notes the acknowledgement. After an error both values are possible.
func (l *ledger) change(key, value string, do func() error) error {
	l.mu.Lock()
	f := l.facts[key]
	f.inFlight = &value
	l.facts[key] = f
	l.mu.Unlock()
	err := do()
	if err == nil {
		l.set(key, value)
	}
	return err
}

func (l *ledger) set(key, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.facts[key] = fact{acknowledged: value}
}

func (l *ledger) acknowledged(key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.facts[key].acknowledged
}

// holding are the names under which there is something of a kind, so far as is known.
func (l *ledger) holding(kind string) (names []string) {
	for _, key := range l.keys() {
		if name, ok := strings.CutPrefix(key, kind); ok && l.acknowledged(key) != "" {
			names = append(names, name)
		}
	}
	return names
}

// keys are all of them, sorted.
func (l *ledger) keys() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.facts))
}

// readWithin bounds how long a fact may be unreadable after a restart: clients still hold connections to the process that was killed.
const readWithin = patience

// check holds what the platform has now against what it said, and then takes it as known.
func (l *ledger) check(t *testing.T, read func(key string) (string, error)) (checked int) {
	t.Helper()
	for _, key := range l.keys() {
		now, err := read(key)
		for end := time.Now().Add(readWithin); err != nil && time.Now().Before(end); now, err = read(key) {
			t.Logf("%s: %v", key, err)
			time.Sleep(100 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		l.mu.Lock()
		f := l.facts[key]
		l.mu.Unlock()
		switch {
		case now == f.acknowledged:
		case f.inFlight != nil && now == *f.inFlight:
		case f.inFlight != nil:
			t.Errorf("%s is %q; %q was acknowledged and %q under way", key, now, f.acknowledged, *f.inFlight)
		default:
			t.Errorf("%s is %q; %q was acknowledged", key, now, f.acknowledged)
		}
		l.set(key, now)
		checked++
	}
	return checked
}
