package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"golang.org/x/sync/errgroup"
)

// bringUp makes the task run, from wherever an earlier process left it. Nil: it runs, or ctx ended first.
func (w *worker) bringUp(ctx context.Context, found *runtime.Recovered, exits chan<- exit) *failure {
	as, _ := w.current()
	spec := as.Spec
	if found == nil && w.snapshot().State >= agentapi.TaskState_ACTIVATING {
		return &failure{codeEssentialExited, "The task's containers are gone: the host was restarted"}
	}
	if w.snapshot().State < agentapi.TaskState_ACTIVATING {
		if err := w.a.cfg.Policy.check(spec); err != nil {
			return &failure{codeFailedToStart, "CannotCreateContainerError: " + err.Error()}
		}
		if err := w.a.cfg.checkGPUs(spec); err != nil {
			return &failure{codeFailedToStart, "ResourceInitializationError: " + err.Error()}
		}
		if f := w.assumeRole(ctx, spec); f != nil || ctx.Err() != nil {
			return f
		}
	}
	var secrets confidences
	if spec.HasSecrets && !allStarted(spec, found) {
		var f *failure
		if secrets, f = w.fetchSecrets(ctx); f != nil || ctx.Err() != nil {
			return f
		}
	}
	// An earlier process that died before ACTIVATING may have left half a sandbox; Create completes it.
	if w.snapshot().State < agentapi.TaskState_ACTIVATING {
		if f := w.pull(ctx, spec, secrets); f != nil || ctx.Err() != nil {
			return f
		}
		if f := w.mountVolumes(ctx, spec); f != nil || ctx.Err() != nil {
			return f
		}
		box, err := w.a.cfg.Driver.Create(ctx, w.task(spec))
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return &failure{codeFailedToStart, "ResourceInitializationError: " + err.Error()}
		}
		found = &runtime.Recovered{Sandbox: box}
	}
	if len(secrets) > 0 {
		if err := w.a.cfg.Driver.Confide(ctx, w.id, secrets.forDriver()); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return &failure{codeFailedToStart, "ResourceInitializationError: " + err.Error()}
		}
	}
	w.a.owners.set(found.Sandbox.Address, owner{w.id, spec.Account, spec.Region})
	w.a.owners.set(found.Sandbox.IPv6, owner{w.id, spec.Account, spec.Region})
	w.report(func(st *agentapi.TaskStatus) {
		st.State = agentapi.TaskState_ACTIVATING
		st.Address, st.HostAddress, st.MacAddress = found.Sandbox.Address, w.a.cfg.Address, found.Sandbox.MAC
		st.Ipv6Address = found.Sandbox.IPv6
		for name, ports := range found.Sandbox.Ports {
			containerStatus(st, name).Ports = ports
		}
	})
	if f := w.startAll(ctx, spec, found.Containers, exits); f != nil || ctx.Err() != nil {
		return f
	}
	return nil
}

func (w *worker) task(spec *agentapi.TaskSpec) runtime.Task {
	t := runtime.Task{ID: w.id, Spec: w.a.cfg.Metadata.withEnvironment(w.id, w.a.roles.id(w.id), spec), DNSServers: spec.DnsServers, DNSSearch: w.a.cfg.DNSSearch, Environment: w.a.cfg.Environment}
	if len(t.DNSServers) == 0 {
		t.DNSServers = w.a.cfg.DNSServers
	}
	w.a.cfg.giveGPUs(t.Spec)
	w.a.cfg.placeVolumes(w.id, t.Spec)
	return t
}

// pull gets all images at once.
func (w *worker) pull(ctx context.Context, spec *agentapi.TaskSpec, secrets confidences) *failure {
	if w.pulled(spec, secrets) {
		return nil
	}
	w.report(func(st *agentapi.TaskStatus) { st.PullStarted = w.now() })
	var failed struct {
		sync.Mutex
		f *failure
	}
	g, pulling := errgroup.WithContext(ctx)
	for _, c := range spec.Containers {
		g.Go(func() error {
			img, err := w.pullOne(pulling, c.RegistryRefusal, secrets.request(c))
			if err == nil {
				w.report(func(st *agentapi.TaskStatus) {
					cs := containerStatus(st, c.Name)
					cs.State, cs.ImageDigest = agentapi.ContainerState_CONTAINER_PULLED, img.Digest
				})
				return nil
			}
			failed.Lock()
			defer failed.Unlock()
			if failed.f == nil && pulling.Err() == nil {
				failed.f = &failure{codeFailedToStart, err.Error()}
				w.report(func(st *agentapi.TaskStatus) { containerStatus(st, c.Name).Reason = err.Error() })
			}
			return err
		})
	}
	err := g.Wait()
	if err != nil && ctx.Err() != nil {
		return nil
	}
	w.report(func(st *agentapi.TaskStatus) { st.PullStopped = w.now() }) // also when it failed, as ECS's agent has it
	if err != nil {
		return failed.f
	}
	return nil
}

// pullOne tries again, a little later each time, while the registry's answer gives hope.
func (w *worker) pullOne(ctx context.Context, refusal string, req runtime.PullRequest) (runtime.Image, error) {
	if refusal != "" {
		return runtime.Image{}, &runtime.PullError{Reason: refusal}
	}
	const tries = 4
	for wait, n := time.Second, 1; ; wait, n = 2*wait, n+1 {
		img, err := w.a.cfg.Driver.Pull(ctx, req)
		var pe *runtime.PullError
		if err == nil || n == tries || !errors.As(err, &pe) || !pe.Retryable {
			return img, err
		}
		w.a.log.Warn("pull again", "task", w.id, "image", req.Image, "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return img, ctx.Err()
		case <-w.a.cfg.Clock.After(wait):
		}
	}
}

// startAll starts every container once what it depends on is as it has to be; then the task runs. Those that an earlier process started are taken over.
func (w *worker) startAll(ctx context.Context, spec *agentapi.TaskSpec, found map[string]runtime.RecoveredContainer, exits chan<- exit) *failure {
	for waiting := spec.Containers; len(waiting) > 0; {
		var blocked []*agentapi.ContainerSpec
		var patience time.Duration // until the first start timeout passes; 0: there is none
		for i, c := range waiting {
			was := found[c.Name]
			if was.Started.At.IsZero() && was.Exit == nil {
				left, why := w.blocked(spec, c)
				if why != "" {
					w.report(func(st *agentapi.TaskStatus) { containerStatus(st, c.Name).Reason = why })
					return &failure{codeFailedToStart, why}
				}
				if left != 0 {
					blocked = append(blocked, c)
					if left > 0 && (patience == 0 || left < patience) {
						patience = left
					}
					continue
				}
			}
			last := i == len(waiting)-1 && len(blocked) == 0
			if f := w.start(ctx, c, was, last, exits); f != nil || ctx.Err() != nil {
				return f
			}
		}
		if len(blocked) < len(waiting) {
			waiting = blocked // a start may have opened the way for others
			continue
		}
		var late <-chan time.Time
		if patience > 0 {
			late = w.a.cfg.Clock.After(patience)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.moved:
		case <-late:
		}
	}
	return nil
}

// start starts one container, or takes over what an earlier process started, and has it watched. After the last one the task runs.
func (w *worker) start(ctx context.Context, c *agentapi.ContainerSpec, was runtime.RecoveredContainer, last bool, exits chan<- exit) *failure {
	started := was.Started
	if started.At.IsZero() && was.Exit == nil {
		if f := w.openLog(ctx, c); f != nil || ctx.Err() != nil {
			return f
		}
		var err error
		if started, err = w.a.cfg.Driver.Start(ctx, w.id, c.Name); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			reason := err.Error()
			w.report(func(st *agentapi.TaskStatus) { containerStatus(st, c.Name).Reason = reason })
			return &failure{codeFailedToStart, reason}
		}
	}
	w.noteStart(c, started, last)
	w.watching.Go(func() { w.watch(ctx, c, started, exits) })
	return nil
}
