package dispatcher

import (
	"context"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// ReportHealth takes in how containers of a node's tasks are, and nothing else of them: it is put onto what was reported last, by the leader, so that it
// undoes nothing that was reported at the same time another way.
func (s *Server) ReportHealth(ctx context.Context, node string, tasks []*agentapi.TaskStatus) error {
	list := &Reports{}
	for _, t := range tasks {
		list.Reports = append(list.Reports, &Reports_Report{Node: node, Task: t})
	}
	return s.lead(ctx, func() error { return s.writeHealth(ctx, list) }, &Relay{Body: &Relay_TaskHealth{list}})
}

// writeHealth commits it, on the leader. A container that is as it was is no change.
func (s *Server) writeHealth(ctx context.Context, list *Reports) error {
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error {
		for _, one := range list.Reports {
			for t := range controlplane.TasksByID.Scan(tx, state.K(one.Task.TaskId)) {
				st, ok := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(t))
				d, defined := controlplane.TaskDefinitions.Get(tx, t.Scope().FamilyRevisionKey(t.TaskDefinition))
				if !ok || !defined || st.Node != one.Node || !st.Live() || st.Report == nil {
					continue
				}
				r := proto.CloneOf(st.Report)
				for _, said := range one.Task.Containers {
					for _, c := range r.Containers {
						if c.Name == said.Name && c.Health != said.Health {
							c.Health, c.HealthSince = said.Health, said.HealthSince
						}
					}
				}
				controlplane.SettleHealth(r, d.Shape())
				if proto.Equal(r, st.Report) {
					continue
				}
				if err := s.Reporter.Report(tx, one.Node, r); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return err
}
