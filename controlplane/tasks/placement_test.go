package tasks

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

func TestExplain(t *testing.T) {
	p := newPlatform(t)
	p.join(fake.New(fake.Config{Script: script()}))
	placed, waiting, ended := p.task("a", "nginx"), p.task("", "nginx"), p.task("", "nginx")
	p.untilState(placed, agentapi.TaskState_RUNNING)
	p.change(func(tx *state.Tx) {
		s, _ := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(ended))
		s, _ = s.AdvanceLost("UserInitiated", "Task stopped by user", ended.Created.AsTime())
		controlplane.TaskStatuses.Put(tx, s)
	})
	for _, c := range []struct {
		task *controlplane.Task
		want Explanation
	}{
		{placed, Explanation{Status: "RUNNING", Summary: "The task is placed on laptop.", Node: "laptop", Hosts: []Host{}}},
		{ended, Explanation{Status: "STOPPED", Summary: "Task stopped by user", Hosts: []Host{}}},
		{waiting, Explanation{Status: "PROVISIONING", Hosts: []Host{{Node: "laptop", Reasons: []string{"RESOURCE:CPU: asked 8192 units, free 0 units"}}},
			Summary: "(service family:web) was unable to place a task because no container instance met all of its requirements."}},
	} {
		c.want.Task = c.task.Id
		resp := p.get(t.Context(), "test", "default", c.task.Id, "placement")
		var got Explanation
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("HTTP %d, %v", resp.StatusCode, err)
		}
		got.Summary, _, _ = strings.Cut(got.Summary, " The closest matching") // names an instance by its id
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Error(diff)
		}
	}
}
