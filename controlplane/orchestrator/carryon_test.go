package orchestrator

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator/orchestratortest"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// manyEndpoints has nine more for each task that leaves.
type manyEndpoints struct{ *orchestratortest.Router }

func (r manyEndpoints) Withdraw(tx *state.Tx, t *controlplane.Task, planned bool) error {
	for i := range 9 {
		orchestratortest.Endpoints.Put(tx, wrapperspb.String(fmt.Sprintf("%s%02d more", t.Id[:30], i)))
	}
	return r.Router.Withdraw(tx, t, planned)
}

// TestLooksAreCarriedOutWhole: what a look decides is done, and told once for each task, in however many transactions, that are under way together and some of them
// too large.
func TestLooksAreCarriedOutWhole(t *testing.T) {
	const tasks = 140
	w := newWorld(t)
	w.o.Workers, w.o.Rand = 4, rand.Reader
	w.o.lifecycle = NewLifecycle(w.clock, rand.Reader, manyEndpoints{w.router})
	look := func() {
		t.Helper()
		if _, err := w.o.reconcileService(t.Context(), scope.Key("default", "web")); err != nil {
			t.Fatal(err)
		}
	}
	told := func(what string) map[string]int {
		ids := map[string]int{}
		for _, e := range controlplane.ServiceEventsOf(w.store.View(), scope.Key("default", "web")) {
			if strings.Contains(e.Message, what) {
				for _, id := range hexID.FindAllString(e.Message, -1) {
					ids[id]++
				}
			}
		}
		return ids
	}
	check := func(what string, state agentapi.TaskState) {
		t.Helper()
		ids := told(what)
		for _, s := range w.statuses() {
			if ids[s.Id] != 1 || s.Desired != state {
				t.Errorf("task %s is %v and was told of %d times", s.Id, s.Desired, ids[s.Id])
			}
		}
		if n := len(w.statuses()); n != tasks || len(ids) != n {
			t.Errorf("%d tasks, told are %d", n, len(ids))
		}
	}

	w.command(strings.Fields("node a zone=z1"), nil)
	w.command(strings.Fields(fmt.Sprintf("create desired=%d min=100 max=200 lb", tasks)), nil)
	look()
	check("has started", agentapi.TaskState_RUNNING)
	w.schedule()
	w.command(strings.Fields("report RUNNING all"), nil)
	w.command(strings.Fields("update desired=0"), nil)
	look()
	check("has stopped", agentapi.TaskState_DEACTIVATING)
}
