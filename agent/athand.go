package agent

import (
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// answersFor is for how long the registry's answers that came with an assignment are as good as asking it.
const answersFor = 10 * time.Second

// answers are what the platform's own registry says of a task's images, by container, and when that came. They are of this process alone: on disk they
// would grow old.
type answers struct {
	digests map[string]string
	came    time.Time
}

// takeAnswers takes them out of an assignment before it is kept.
func (a *Agent) takeAnswers(as *agentapi.Assignment) answers {
	digests := as.ImageDigests
	as.ImageDigests = nil
	return answers{digests, a.cfg.Clock.Now()}
}

// pulled says whether nothing is to be pulled: the registry has said what all images are, that the task may have them, and they are here. Then the time that
// takes is told with what follows.
func (w *worker) pulled(spec *agentapi.TaskSpec, secrets confidences) bool {
	driver, ok := w.a.cfg.Driver.(runtime.Keeping)
	began := w.now()
	if age := began.AsTime().Sub(w.answers.came); !ok || age < 0 || age > answersFor {
		return false
	}
	digests := make([]string, len(spec.Containers))
	for i, c := range spec.Containers {
		digest := w.answers.digests[c.Name]
		if digest == "" || c.RegistryRefusal != "" || secrets[c.Name].GetRegistryUser() != "" { // with credentials of its own, it asks as another
			return false
		}
		image, ok := driver.AtHand(c.Image, digest)
		if !ok {
			return false
		}
		digests[i] = image.Digest
	}
	w.change(func(st *agentapi.TaskStatus) {
		st.PullStarted, st.PullStopped = began, w.now()
		for i, c := range spec.Containers {
			cs := containerStatus(st, c.Name)
			cs.State, cs.ImageDigest = agentapi.ContainerState_CONTAINER_PULLED, digests[i]
		}
	})
	return true
}
