package agent

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// confidences are what the containers of a task have beside their specs, by name. They are asked for once for each bring-up and are in the
// memory of this process until its containers have been started; a process that takes over a half-started task asks anew.
type confidences map[string]*agentapi.ContainerSecrets

// allStarted says whether nothing is left to be started.
func allStarted(spec *agentapi.TaskSpec, found *runtime.Recovered) bool {
	if found == nil {
		return false
	}
	for _, c := range spec.Containers {
		if was := found.Containers[c.Name]; was.Started.At.IsZero() && was.Exit == nil {
			return false
		}
	}
	return true
}

// fetchSecrets asks the control plane, for as long as it takes to reach it.
func (w *worker) fetchSecrets(ctx context.Context) (confidences, *failure) {
	for wait := firstShip; ; wait = min(2*wait, lastShip) {
		a, err := w.a.cfg.Client.TaskSecrets(ctx, &agentapi.TaskSecretsRequest{NodeId: w.a.cfg.NodeID, TaskId: w.id})
		switch code := status.Code(err); {
		case ctx.Err() != nil:
			return nil, nil
		case err == nil && a.Failure != "":
			return nil, &failure{codeFailedToStart, a.Failure}
		case err == nil:
			all := confidences{}
			for _, c := range a.Containers {
				all[c.Name] = c
			}
			return all, nil
		case code != codes.Unavailable && code != codes.ResourceExhausted && code != codes.DeadlineExceeded && code != codes.Canceled:
			return nil, &failure{codeFailedToStart, "ResourceInitializationError: unable to pull secrets or registry auth: " + status.Convert(err).Message()}
		}
		w.a.log.Warn("ask for the secrets of a task; trying again", "task", w.id, "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return nil, nil
		case <-w.a.cfg.Clock.After(wait):
		}
	}
}

// request is how the container's image is pulled.
func (s confidences) request(c *agentapi.ContainerSpec) runtime.PullRequest {
	r := runtime.PullRequest{Image: c.Image, User: c.RegistryUser, Password: c.RegistryPassword}
	if own := s[c.Name]; own.GetRegistryUser() != "" {
		r.User, r.Password = own.RegistryUser, own.RegistryPassword
	}
	return r
}

func (s confidences) forDriver() map[string]runtime.Secrets {
	all := map[string]runtime.Secrets{}
	for name, c := range s {
		all[name] = runtime.Secrets{Environment: c.Environment, Files: c.Files, LogOptions: c.LogOptions}
	}
	return all
}
