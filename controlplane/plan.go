package controlplane

import (
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// plan is a task definition as it is rendered for each of its tasks. It is shared: what is rendered from it has slices and maps of it, which nobody
// changes.
type plan struct {
	def   types.TaskDefinition
	order []types.ContainerDefinition // in which the containers start
	err   error                       // why there is none
}

func newPlan(d *TaskDefinition) *plan {
	p := &plan{def: d.Shape()}
	p.order, p.err = StartOrder(behindRouter(p.def.ContainerDefinitions))
	return p
}

// maxPlans bounds what Plans keep; a deployment starts thousands of tasks of one definition.
const maxPlans = 64

// Plans render tasks and keep what they have read of their definitions. The zero value is ready; nil keeps nothing. Safe for concurrent use.
type Plans struct {
	mu   sync.Mutex
	kept map[*TaskDefinition]*plan // by record: one that is put again is another
}

func (p *Plans) of(d *TaskDefinition) *plan {
	if p == nil {
		return newPlan(d)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.kept[d]
	if found == nil {
		if found = newPlan(d); len(p.kept) >= maxPlans || p.kept == nil {
			p.kept = map[*TaskDefinition]*plan{}
		}
		p.kept[d] = found
	}
	return found
}
