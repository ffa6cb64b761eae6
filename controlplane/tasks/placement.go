package tasks

import (
	"cmp"
	"context"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// ExplainTaskInput names the task.
type ExplainTaskInput struct {
	Cluster string `json:"cluster" doc:"Name or ARN of the cluster."`
	Task    string `json:"task" doc:"Id or ARN of the task."`
}

// Explanation is where a task is, or why it is nowhere.
type Explanation struct {
	Task    string `json:"task"`    // id
	Status  string `json:"status"`  // as ECS's lastStatus
	Summary string `json:"summary"` // a sentence; where no host takes the task, that of the service event
	Node    string `json:"node,omitempty"`
	Hosts   []Host `json:"hosts"` // nearest to taking it first; empty when it is placed already or has stopped
}

// Host is one host's answer.
type Host struct {
	Node    string   `json:"node"`
	Reasons []string `json:"reasons"` // "RESOURCE:MEMORY: asked 512 MiB, free 128 MiB"; empty: it could run there
}

// explain implements neargate:ExplainTask.
func (s *Service) explain(ctx context.Context, in *ExplainTaskInput) (*Explanation, error) {
	v, t, st, err := s.find(ctx, in.Cluster, in.Task)
	if err != nil {
		return nil, err
	}
	out := &Explanation{Task: t.Id, Status: st.Observed.String(), Hosts: []Host{}}
	if st.Node != "" {
		out.Node = st.Node
		if n, ok := controlplane.Nodes.Get(v, state.K(st.Node)); ok {
			out.Node = n.Name
		}
	}
	switch {
	case !st.Live():
		out.Summary = cmp.Or(st.StoppedReason, "The task has stopped.")
		return out, nil
	case st.Node != "":
		out.Summary = "The task is placed on " + out.Node + "."
		return out, nil
	}
	e, err := s.Placer.Explain(v, controlplane.Tasks.Key(t))
	if err != nil {
		return nil, err
	}
	out.Summary = cmp.Or(e.Event, "There is a host that can take the task; it is placed next.")
	for _, h := range e.Hosts {
		out.Hosts = append(out.Hosts, Host{Node: h.Node, Reasons: append([]string{}, h.Reasons...)})
	}
	return out, nil
}
