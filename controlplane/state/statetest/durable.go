package statetest

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// RunDurable is what every engine that keeps its state must pass besides RunEngine.
func RunDurable(t *testing.T, open Opener) {
	t.Run("Restart", func(t *testing.T) {
		dir := t.TempDir()
		want := map[string]int64{}
		for round := range 4 {
			t.Run("", func(t *testing.T) {
				s := Open(t, open, dir)
				if diff := cmp.Diff(want, contents(s.View())); diff != "" {
					t.Fatalf("round %d: %s", round, diff)
				}
				var mu sync.Mutex
				var group sync.WaitGroup
				for w := range 8 {
					group.Go(func() {
						for i := range 20 {
							id, n := fmt.Sprintf("%d/%d", w, i%7), int64(round*100+i)
							if _, err := s.Update(t.Context(), func(tx *state.Tx) error {
								Records.Put(tx, &Record{Id: id, Number: n})
								return nil
							}); err != nil {
								t.Error(err)
								return
							}
							mu.Lock()
							want[id] = n
							mu.Unlock()
						}
					})
				}
				group.Wait()
				if s.Revision() != state.Revision((round+1)*160) {
					t.Errorf("at revision %d", s.Revision())
				}
			})
		}
	})
}

// Bytes is everything that a machine replicates. Machines that applied the same entries have the same.
func Bytes(t testing.TB, m *state.Machine) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.Snapshot().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
