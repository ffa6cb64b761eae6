package wire

import (
	"sync"
	"testing"
)

// TestConcurrentFirstUse: plans are compiled lazily by whoever comes first; run with -race.
func TestConcurrentFirstUse(t *testing.T) {
	c, err := New("ecs")
	if err != nil {
		t.Fatal(err)
	}
	types := operationTypes("ecs")
	var wg sync.WaitGroup
	for range 4 {
		for _, name := range []string{"CreateService", "UpdateService", "RunTask", "RegisterTaskDefinition"} {
			o, err := c.Bind(name, types[name][0], types[name][1])
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				in, err := o.DecodeJSON([]byte(`{"tags":[{"key":"a","value":"b"}]}`))
				if err != nil {
					t.Error(err)
					return
				}
				if err := o.Validate(in); err == nil {
					t.Errorf("%s: nothing is required", name)
				}
			})
		}
	}
	wg.Wait()
}
