package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Statuses of services and deployments.
const (
	serviceDraining   = "DRAINING"
	serviceInactive   = "INACTIVE"
	rolloutInProgress = "IN_PROGRESS"
	rolloutCompleted  = "COMPLETED"
	rolloutFailed     = "FAILED"

	deploymentPrimary  = "PRIMARY"
	deploymentActive   = "ACTIVE"
	deploymentInactive = "INACTIVE"
)

// stepTasks bounds how many tasks one transaction starts, and stops; there are as many as it takes. Each task is up to three
// records, and its endpoints.
const stepTasks = 15

// lookTasks bounds how many tasks one look at a service starts, and stops, in as many transactions as it takes: a look reads all of the
// service's tasks.
const lookTasks = 20 * stepTasks

// restPerTask is for how long a service that changes is left alone after a look, for each of its tasks: looks, each of which costs as
// much again, then take a bounded part of the time however many reports come in.
const restPerTask = 5 * time.Microsecond

// services keeps every service at what it wants.
func (o *Orchestrator) services() *reconciler {
	return &reconciler{
		name: "services",
		tables: append([]state.TableInfo{
			controlplane.Services, controlplane.Deployments, controlplane.ServiceDeployments, controlplane.TaskStatuses, controlplane.ContainerInstances,
			controlplane.Nodes,
		}, o.RouterTables...),
		list: func(v *state.View) iter.Seq[state.Key] {
			return func(yield func(state.Key) bool) {
				for s := range controlplane.Services.Scan(v, state.K()) {
					if !yield(controlplane.Services.Key(s)) {
						return
					}
				}
			}
		},
		keys:      o.serviceKeys,
		reconcile: o.reconcileService,
		rest:      func(key state.Key) time.Duration { return time.Duration(o.looks.size(key)) * restPerTask },
		workers:   o.Workers,
	}
}

// serviceKeys are the services that an event concerns.
func (o *Orchestrator) serviceKeys(v *state.View, e state.Event) (keys []state.Key) {
	record := e.New
	if record == nil {
		record = e.Old
	}
	switch r := record.(type) {
	case *controlplane.Service:
		return []state.Key{e.Key}
	case *controlplane.Deployment:
		return []state.Key{r.Scope().Key(r.Cluster, r.Service)}
	case *controlplane.ServiceDeployment:
		return []state.Key{r.Scope().Key(r.Cluster, r.Service)}
	case *controlplane.TaskStatus:
		if r.Service != "" {
			return []state.Key{r.Scope().Key(r.Cluster, r.Service)}
		}
	case *controlplane.ContainerInstance:
		for s := range controlplane.LiveTasksByNode.Scan(v, state.K(r.Node)) {
			if s.Service != "" && s.Cluster == r.Cluster && s.Scope() == r.Scope() {
				keys = append(keys, s.Scope().Key(s.Cluster, s.Service))
			}
		}
		keys = appendFollowers(keys, v, r)
	case *controlplane.Node: // its agent is there, or no more
		if old, ok := e.Old.(*controlplane.Node); !ok || e.New == nil || old.Status != r.Status || !maps.Equal(old.Attributes, r.Attributes) {
			for ci := range controlplane.ContainerInstancesByNode.Scan(v, state.K(r.Id)) {
				keys = appendFollowers(keys, v, ci)
			}
			if r.Serverless && r.Status == capacity.NodeReady {
				for s := range controlplane.Services.Scan(v, state.K()) {
					if rebalances(s) && serverlessOnly(s) {
						keys = append(keys, controlplane.Services.Key(s))
					}
				}
			}
		}
	default: // a router's
		if task, one := o.taskOf(e); one {
			if s, ok := controlplane.TaskStatuses.Get(v, task); ok && s.Service != "" {
				keys = append(keys, s.Scope().Key(s.Cluster, s.Service))
			}
			return keys
		}
		for s := range controlplane.Services.Scan(v, state.K()) {
			if s.Status != serviceInactive && (set(s.LoadBalancersJson) || set(s.ServiceRegistriesJson)) {
				keys = append(keys, controlplane.Services.Key(s))
			}
		}
	}
	return keys
}

// appendFollowers adds the services that are not content with what they have when there is another instance: those that may be to have a task of it.
func appendFollowers(keys []state.Key, v *state.View, ci *controlplane.ContainerInstance) []state.Key {
	for s := range controlplane.Services.Scan(v, ci.Scope().Key(ci.Cluster)) {
		if s.SchedulingStrategy == string(types.SchedulingStrategyDaemon) || rebalances(s) {
			keys = append(keys, controlplane.Services.Key(s))
		}
	}
	return keys
}

// taskOf is the one task that a router's event concerns.
func (o *Orchestrator) taskOf(e state.Event) (state.Key, bool) {
	if o.TaskOf == nil {
		return "", false
	}
	return o.TaskOf(e)
}

// set says whether a list kept as JSON has members.
func set(list string) bool { return list != "" && list != "[]" && list != "null" }

// step is one look at one service: what there is, and the transaction in which it changes.
//
// The tasks are read from a view, not from the transaction: this reconciler alone creates tasks of services, and a report that
// comes in meanwhile must not make it start over. The service and its deployments are read in the transaction.
type step struct {
	*Orchestrator
	tx      *state.Tx
	v       *state.View
	now     time.Time
	service *controlplane.Service
	primary *controlplane.Deployment
	others  []*controlplane.Deployment
	room    *room
	known   *hosts
	live    []liveTask
	wanted  []member // see members; nil: not made yet
	again   time.Duration

	// What is left to do of what this look has found, and how much of each at most in a transaction.
	starting []*controlplane.Task
	stopping []victim
	most     int

	// isPart: of what a look has found, to be done beside others. What it says is then told by carryOn.
	isPart bool
	said   []string
}

func (o *Orchestrator) reconcileService(ctx context.Context, key state.Key) (time.Duration, error) {
	room := rooms.Get().(*room)
	defer room.leave()
	var s *step
	err := error(nil)
	for most := stepTasks; ; most /= 2 {
		if _, err = o.Store.Update(ctx, func(tx *state.Tx) error {
			if s = o.look(tx, key, room); s == nil {
				return nil
			}
			s.most = most
			return s.reconcile()
		}); most == 1 || !tooMuch(err) {
			break
		}
	}
	if err != nil || s == nil {
		o.looks.set(key, nil, 0)
		return 0, err
	}
	o.looks.set(key, s.live, s.known.number)
	err = s.carryOn(ctx, key)
	return s.again, err
}

// look reads a service and what belongs to it; nil: it is gone.
func (o *Orchestrator) look(tx *state.Tx, key state.Key, room *room) *step {
	service, ok := controlplane.Services.Get(tx, key)
	if !ok {
		return nil
	}
	s := &step{Orchestrator: o, tx: tx, v: o.Store.View(), now: o.Clock.Now(), service: service, room: room}
	for d := range controlplane.Deployments.Scan(tx, key) {
		if d.Id == service.PrimaryDeployment {
			s.primary = d
		} else {
			s.others = append(s.others, d)
		}
	}
	s.known = o.hosts.of(s.v)
	s.live = liveTasks(room.live[:0], s.v, key, o.looks.get(key), s.known)
	room.live = s.live
	return s
}

// holds says whether what the look decided from the service is still so.
func (s *step) holds(key state.Key) bool {
	service, ok := controlplane.Services.Get(s.tx, key)
	if !ok || !proto.Equal(service, s.service) || s.primary == nil {
		return ok && s.primary == nil && proto.Equal(service, s.service) // it is drained
	}
	primary, ok := controlplane.Deployments.Get(s.tx, controlplane.Deployments.Key(s.primary))
	return ok && proto.Equal(primary, s.primary)
}

func (s *step) reconcile() error {
	if s.service.Status != capacity.Active || s.primary == nil {
		return s.drain()
	}
	if s.obey() || s.trip() {
		return nil
	}
	if s.service.SchedulingStrategy == string(types.SchedulingStrategyDaemon) {
		s.starting, s.stopping = s.planDaemon()
	} else if !s.rebalance() {
		n, victims, blocked := plan(s.situation())
		s.stopping = victims
		if blocked {
			s.eventOnce("(service " + s.service.Name + ") was unable to stop or start tasks during a deployment because of the service deployment configuration. " +
				"Update the minimumHealthyPercent or maximumPercent value and try again.")
		}
		for range min(n, lookTasks) {
			s.starting = append(s.starting, s.newTask())
		}
	}
	s.stopping = s.stopping[:min(len(s.stopping), lookTasks)]
	if len(s.starting) == 0 && len(s.stopping) == 0 {
		s.settle()
		return nil
	}
	if err := s.complete(s.starting); err != nil {
		return err
	}
	return s.proceed()
}

// proceed does as much of what is to be done as fits the transaction.
func (s *step) proceed() error {
	n := min(len(s.stopping), s.most)
	if err := s.stop(s.stopping[:n]); err != nil {
		return err
	}
	s.stopping = s.stopping[n:]
	n = min(len(s.starting), s.most)
	tasks := s.starting[:n]
	s.starting = s.starting[n:]
	return s.start(tasks)
}

// situation sums up the records for plan.
func (s *step) situation() situation {
	in := situation{
		desired: int(s.service.DesiredCount), minimumPercent: int(s.service.MinimumHealthyPercent), maximumPercent: int(s.service.MaximumPercent),
	}
	in.tasks = s.members()
	current := 0
	for _, m := range in.tasks {
		if m.current && m.failed == "" {
			current++
		}
	}
	if current < in.desired {
		in.throttled = s.throttled(in.desired)
	}
	return in
}

// members are the tasks that nobody wants gone.
func (s *step) members() []member {
	if s.wanted != nil {
		return s.wanted
	}
	routed := s.routed()
	s.wanted = slices.Grow(s.room.wanted[:0], len(s.live))
	for i := range s.live {
		l := &s.live[i]
		status := l.status
		if status.Desired > agentapi.TaskState_RUNNING {
			continue
		}
		m := member{task: l.task, host: nowhere, unplaceable: status.PlacementFailure != ""}
		if status.Node != "" {
			if l.host == nil {
				l.host = s.known.in(s.v, status.Node)
			}
			m.host = l.host
		}
		m.current = cmp.Or(status.Deployment, l.task.Deployment) == s.primary.Id && !s.draining(m.host)
		m.running = status.Observed == agentapi.TaskState_RUNNING
		// A task of which an essential container has a health check counts once that has succeeded.
		m.healthy = m.running && (status.Health == "" || status.Health == "HEALTHY") && (!routed || s.lifecycle.routers.Healthy(s.v, l.task))
		m.failed = s.failed(l, routed)
		if m.protected = status.Protected(s.now); m.protected {
			s.lookAgain(status.ProtectedUntil.AsTime().Sub(s.now))
		}
		s.wanted = append(s.wanted, m)
	}
	s.room.wanted = s.wanted
	return s.wanted
}

// routed says whether routers may have endpoints of the service's tasks, by any of its deployments.
func (s *step) routed() bool {
	has := func(d *controlplane.Deployment) bool { return set(d.LoadBalancersJson) || set(d.ServiceRegistriesJson) }
	return set(s.service.LoadBalancersJson) || set(s.service.ServiceRegistriesJson) || has(s.primary) || slices.ContainsFunc(s.others, has)
}

// draining says whether the host's container instance drains; tasks of the serverless pool are on none.
func (s *step) draining(h *host) bool {
	return len(h.resting) > 0 && s.service.LaunchType != string(types.LaunchTypeFargate) && slices.Contains(h.resting, membership{s.service.Scope(), s.service.Cluster})
}

const failedContainerHealth = "Task failed container health checks"

// failed is why a running task has to be replaced; during the grace period after its start, health checks are not asked.
func (s *step) failed(l *liveTask, routed bool) string {
	status := l.status
	if status.Observed != agentapi.TaskState_RUNNING {
		return ""
	}
	why := ""
	switch {
	case status.Health == "UNHEALTHY":
		why = failedContainerHealth
	case routed:
		why = s.lifecycle.routers.Failed(s.v, l.task)
	}
	if why == "" {
		return ""
	}
	grace := time.Duration(s.service.HealthCheckGraceSeconds) * time.Second
	if left := grace - s.ages.Of(l.key, status.Report.GetStarted().AsTime(), s.now); left > 0 {
		s.lookAgain(left)
		return ""
	}
	return why
}

func (s *step) lookAgain(after time.Duration) {
	if s.again == 0 || after < s.again {
		s.again = after
	}
}

// throttled says whether starting more tasks has to wait, because those before failed. A deployment that the circuit breaker
// ended starts none any more.
func (s *step) throttled(desired int) bool {
	if s.primary.RolloutState == rolloutFailed {
		return true
	}
	count, last, unhealthy := failures(s.v, s.service, s.primary, true)
	failed := count
	if s.primary.RolloutState == rolloutInProgress {
		failed += unhealthy
	}
	if uint32(failed) != s.primary.FailedTasks {
		s.changePrimary(func(d *controlplane.Deployment) { d.FailedTasks = uint32(failed) })
	}
	pause := backoff(count, desired)
	if pause == 0 {
		return false
	}
	wait := pause - s.ages.Of(controlplane.Services.Key(s.service), last.GetStopped().AsTime(), s.now)
	if wait <= 0 {
		return false
	}
	s.lookAgain(wait)
	if last.StopCode == stopFailedToStart {
		s.eventOnce(fmt.Sprintf("(service %s) failed to launch a task with (error %s).", s.service.Name, last.StoppedReason))
	}
	s.eventOnce(fmt.Sprintf("(service %s) is unable to consistently start tasks successfully. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.", s.service.Name))
	return true
}

func (s *step) changePrimary(change func(*controlplane.Deployment)) {
	d := proto.CloneOf(s.primary)
	change(d)
	d.Updated = timestamppb.New(s.now)
	s.primary = d
	controlplane.Deployments.Put(s.tx, d)
}

// launchAgain is the pause after tasks could not be started because of their roles. Nothing that is watched says that they can be now.
const launchAgain = 30 * time.Second

// assumeRoles says why tasks like t cannot have their roles; nil: they can.
func (s *step) assumeRoles(t *controlplane.Task) error {
	def, ok := controlplane.TaskDefinitions.Get(s.v, s.service.Scope().FamilyRevisionKey(t.TaskDefinition))
	if !ok || s.Assume == nil {
		return nil
	}
	task, execution := t.Roles(def)
	for _, role := range []string{task, execution} {
		if role == "" {
			continue
		}
		if err := s.Assume(t.Account, role, t.ARN()); err != nil {
			return err
		}
	}
	return nil
}

// start creates tasks; the scheduler finds their nodes.
func (s *step) start(tasks []*controlplane.Task) error {
	if len(tasks) == 0 {
		return nil
	}
	if err := s.assumeRoles(tasks[0]); err != nil {
		why := err.Error()
		if e, ok := awserr.As(err); ok {
			why = e.Message
		}
		s.eventOnce(fmt.Sprintf("(service %s) failed to launch a task with (error %s).", s.service.Name, why))
		s.lookAgain(launchAgain)
		s.starting = nil // nor would others
		return nil
	}
	for _, t := range tasks {
		controlplane.CreateTask(s.tx, t, controlplane.TaskTags(s.v, t, nil, s.service.PropagateTags, s.service.EnableEcsManagedTags))
	}
	s.tellStarted(tasks)
	return nil
}

// stop asks tasks to leave.
func (s *step) stop(list []victim) error {
	draining := 0
	for _, v := range list {
		reason := v.reason
		if reason == "" {
			reason = "Scaling activity initiated by (deployment " + s.service.PrimaryDeployment + ")"
		}
		status, err := s.lifecycle.Stop(s.tx, s.service.Scope().Key(s.service.Cluster, v.id), stopScheduler, reason, v.planned)
		if err != nil {
			return err
		}
		if status.Desired == agentapi.TaskState_DEACTIVATING {
			draining++
		}
		if v.reason == failedContainerHealth {
			s.event("(service %s) (task %s) failed container health checks.", s.service.Name, v.id)
		}
	}
	if len(list) == 0 {
		return nil
	}
	if draining > 0 {
		for _, group := range targetGroups(s.service) {
			s.event("(service %s) deregistered %d targets in (target-group %s)", s.service.Name, draining, group)
		}
		s.event("(service %s) has begun draining connections on %d tasks.", s.service.Name, draining)
	}
	s.tellStopped(list)
	return nil
}

// settle is for a service that nothing has to be done about right now: deployments end when their tasks have, and a service
// that has what it wants says so.
func (s *step) settle() {
	byDeployment := map[string]int{}
	if len(s.others) > 0 {
		for i := range s.live {
			byDeployment[s.live[i].task.Deployment]++
		}
	}
	others := s.forgetDeployments(byDeployment)
	healthy := 0
	for _, m := range s.members() {
		if m.current && m.healthy {
			healthy++
		}
	}
	if others > 0 || healthy != int(s.service.DesiredCount) || len(s.live) != healthy || s.primary.RolloutState == rolloutFailed {
		return
	}
	if s.primary.RolloutState != rolloutCompleted {
		s.changePrimary(func(d *controlplane.Deployment) {
			d.RolloutState = rolloutCompleted
			d.RolloutReason = "ECS deployment " + d.Id + " completed."
		})
		s.completeRelease()
		s.event("(service %s) (deployment %s) deployment completed.", s.service.Name, s.primary.Id)
	}
	s.event("(service %s) has reached a steady state.", s.service.Name)
}

// drain ends a service that was deleted: no task is left, then no deployment.
func (s *step) drain() error {
	var list []victim
	for i := range s.live {
		if l := &s.live[i]; l.status.Desired == agentapi.TaskState_RUNNING {
			list = append(list, victim{id: l.status.Id})
		}
	}
	s.stopping = list[:min(len(list), lookTasks)]
	if err := s.proceed(); err != nil {
		return err
	}
	if len(s.live) > 0 || s.service.Status != serviceDraining {
		return nil
	}
	if s.forgetReleases() {
		s.lookAgain(time.Nanosecond)
		return nil
	}
	for d := range controlplane.Deployments.Scan(s.tx, controlplane.Services.Key(s.service)) {
		controlplane.Deployments.Delete(s.tx, controlplane.Deployments.Key(d))
	}
	ended := proto.CloneOf(s.service)
	ended.Status, ended.ServiceDeployment = serviceInactive, ""
	ended.InactiveSince = timestamppb.New(s.now)
	controlplane.Services.Put(s.tx, ended)
	return nil
}

func (s *step) event(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if s.isPart {
		s.said = append(s.said, message)
		return
	}
	controlplane.AppendServiceEvent(s.tx, s.service, message, s.now, s.Rand)
}

// repeatAfter is how long ECS omits an event that was said already.
const repeatAfter = 6 * time.Hour

func (s *step) eventOnce(message string) {
	for _, e := range controlplane.ServiceEventsOf(s.tx, controlplane.Services.Key(s.service)) {
		if e.Message == message && s.now.Sub(e.Created.AsTime()).Abs() < repeatAfter {
			return
		}
	}
	s.event("%s", message)
}
