package agent

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/agent/metadata"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// The credentials of tasks' roles live in the memory of this process and come from the control plane, again when most of their time has
// passed. What a container keeps for its life is the id by which it asks: it follows from the task's id and a key that is on this host's
// disk, so that a later process knows it again and nobody else does: where tasks have network mode host, the id is all that
// tells them apart.

const (
	credentialsLeft = time.Hour        // with less left they are asked for anew
	credentialsKept = 5 * time.Hour    // and when they are as old, of the six that they last: this host's clock may lag behind the servers'
	askRoleWithin   = 10 * time.Second // a server's answer
)

// roleCredentials are a task's, of the last answer.
type roleCredentials struct {
	mu   sync.Mutex
	last *agentapi.RoleCredentialsAnswer // immutable; may be nil
	at   time.Time                       // when they came
}

func (r *roleCredentials) get() (*agentapi.RoleCredentialsAnswer, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.at
}

func (r *roleCredentials) set(a *agentapi.RoleCredentialsAnswer, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.at = a, at
}

// roles is what the agent has for all tasks.
type roles struct {
	asking singleflight.Group // by task id

	mu  sync.Mutex
	key []byte // nil until an earlier process's tasks are known
}

func (r *roles) setKey(key []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.key = key
}

// id is by what a task's containers ask for the credentials of its role, and for what is done with them; empty: the agent is starting.
func (r *roles) id(task string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.key == nil {
		return ""
	}
	h := hmac.New(sha256.New, r.key)
	h.Write([]byte("task " + task))
	b := h.Sum(nil)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

const roleKeySize = 32

// newRoleKey makes the key that ids follow from.
func newRoleKey() []byte {
	key := make([]byte, roleKeySize)
	rand.Read(key) // never fails
	return key
}

// Named finds the task whose containers know an id, for who asks from an address: the task itself, or, on loopback, one with network mode
// host. metadata.ErrUnknown: there is none.
func (a *Agent) Named(id string, from netip.Addr) (metadata.Task, error) {
	if a.roles.id("") == "" {
		return metadata.Task{}, status.Error(codes.Unavailable, "the agent is starting")
	}
	candidates := []*worker{a.worker(a.owners.task(from))}
	if from.IsLoopback() {
		candidates = a.list()
	}
	for _, w := range candidates {
		if w == nil || subtle.ConstantTimeCompare([]byte(id), []byte(a.roles.id(w.id))) != 1 {
			continue
		}
		if as, _ := w.current(); !from.IsLoopback() || as.Spec.GetNetworkMode() == "host" {
			return metadata.Task{Assignment: as, Status: w.snapshot()}, nil
		}
	}
	return metadata.Task{}, metadata.ErrUnknown
}

// Credentials are those of a task's role. metadata.ErrUnknown: it has none.
func (a *Agent) Credentials(ctx context.Context, task string) (*agentapi.RoleCredentialsAnswer, error) {
	if w := a.worker(task); w != nil {
		if as, _ := w.current(); as.Spec.GetTaskRole() != "" {
			return a.roleOf(ctx, w)
		}
	}
	return nil, metadata.ErrUnknown
}

// roleOf gets them from a server, unless those of before last long enough, or are all there is while no server answers.
func (a *Agent) roleOf(ctx context.Context, w *worker) (*agentapi.RoleCredentialsAnswer, error) {
	have, at := w.role.get()
	now := a.cfg.Clock.Now()
	left := have.GetExpires().AsTime().Sub(now)
	if have != nil && left > credentialsLeft && now.Sub(at) < credentialsKept {
		return have, nil
	}
	got, err, _ := a.roles.asking.Do(w.id, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askRoleWithin)
		defer cancel()
		return a.cfg.Client.RoleCredentials(ctx, &agentapi.RoleCredentialsRequest{NodeId: a.cfg.NodeID, TaskId: w.id})
	})
	switch {
	case err == nil:
		w.role.set(got.(*agentapi.RoleCredentialsAnswer), now)
		return got.(*agentapi.RoleCredentialsAnswer), nil
	case have != nil && left > 0:
		a.log.Warn("renew the credentials of a task's role; it goes on with those of before", "task", w.id, "error", err)
		return have, nil
	}
	return nil, err
}

// assumeRole makes sure, before anything is made of a task, that it can have its role.
func (w *worker) assumeRole(ctx context.Context, spec *agentapi.TaskSpec) *failure {
	if spec.TaskRole == "" {
		return nil
	}
	for wait := firstShip; ; wait = min(2*wait, lastShip) {
		_, err := w.a.roleOf(ctx, w)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Canceled:
		default:
			return &failure{codeFailedToStart, status.Convert(err).Message()}
		}
		w.a.log.Warn("get credentials of a task's role; trying again", "task", w.id, "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-w.a.cfg.Clock.After(wait):
		}
	}
}
