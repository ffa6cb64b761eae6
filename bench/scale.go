package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/bench/fleet"
	"github.com/seed-2f228079/neargate/client"
)

// What every size of the fleet does.
const (
	serviceTasks = 1000 // of each service but the one that is updated, which has as many as there are hosts
	scaleCluster = "scale"
	startTime    = 100 * time.Millisecond // of a container
	restTime     = 15 * time.Second       // how long the hosts are looked at while they have nothing to do
	calm         = 2 * time.Second        // nothing begins for so long: nothing is left to begin
)

var scaleZones = []string{"zone-a", "zone-b", "zone-c"}

// scaled is what one size of the fleet took.
type scaled struct {
	servers, hosts, tasks     int
	join, create, update      time.Duration
	detect, replace           time.Duration // after a zone is lost: until the first replacement runs, until the last does
	idle, full, peak          int           // a server's resident memory in kB: hosts without tasks, all tasks running, at most
	cpuJoin, cpuCreate        time.Duration // of all servers
	cpuUpdate                 time.Duration
	cpuRest                   time.Duration // in restTime, with all hosts joined and nothing to do
	hostsJoin, hostsCreate    time.Duration // CPU of this process, which shares the cores with the server
	hostsRest                 time.Duration
	describeIdle, runIdle     samples
	describeBusy, runBusy     samples
	describeErrs, runFailures int
	load                      string
}

// benchScale measures each size of the fleet in turn, smallest first, and how the figures grow.
func benchScale(ctx context.Context, s settings) error {
	var all []scaled
	sizes, err := numbers("hosts", s.hosts, 3)
	if err != nil {
		return err
	}
	for _, n := range sizes {
		one, err := scale(ctx, s, n)
		if err != nil {
			if one != nil && one.cpuCreate > 0 {
				one.print() // what was measured before
			}
			return fmt.Errorf("%d hosts: %w", n, err)
		}
		one.print()
		all = append(all, *one)
	}
	if len(all) < 2 {
		return nil
	}
	a, b := all[0], all[len(all)-1]
	exponent := func(x, y float64) float64 { return math.Log(y/x) / math.Log(float64(b.hosts)/float64(a.hosts)) }
	fmt.Printf("\nexponents from %d to %d hosts: start of all tasks %.2f (CPU %.2f), update %.2f (CPU %.2f), lost zone %.2f, memory %.2f, p99 DescribeTasks %.2f, RunTask %.2f\n",
		a.hosts, b.hosts,
		exponent(a.create.Seconds(), b.create.Seconds()), exponent(a.cpuCreate.Seconds(), b.cpuCreate.Seconds()),
		exponent(a.update.Seconds(), b.update.Seconds()), exponent(a.cpuUpdate.Seconds(), b.cpuUpdate.Seconds()),
		exponent((a.replace-a.detect).Seconds(), (b.replace-b.detect).Seconds()), exponent(float64(a.full), float64(b.full)),
		exponent(a.describeBusy.quantile(.99).Seconds(), b.describeBusy.quantile(.99).Seconds()),
		exponent(a.runBusy.quantile(.99).Seconds(), b.runBusy.quantile(.99).Seconds()))
	return nil
}

func (r *scaled) print() {
	n := r.tasks
	rate := func(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }
	fmt.Printf("\n%d servers, %d hosts, %d tasks (%s)\n", r.servers, r.hosts, n, r.load)
	fmt.Printf("  hosts joined            %8.1f s  %6.0f/s   servers' CPU %.1f s, hosts' %.1f s\n", r.join.Seconds(), rate(r.hosts, r.join), r.cpuJoin.Seconds(), r.hostsJoin.Seconds())
	perHost := func(d time.Duration) string {
		return us(time.Duration(float64(d) / restTime.Seconds() / float64(r.hosts)))
	}
	fmt.Printf("  at rest                 servers' CPU %s a host and second, hosts' %s\n", perHost(r.cpuRest), perHost(r.hostsRest))
	fmt.Printf("  all tasks running       %8.1f s  %6.0f/s   servers' CPU %.1f s, %s a task, hosts' %s\n", r.create.Seconds(), rate(n, r.create), r.cpuCreate.Seconds(), us(r.cpuCreate/time.Duration(n)), us(r.hostsCreate/time.Duration(n)))
	fmt.Printf("  update of %6d tasks  %8.1f s  %6.0f/s   servers' CPU %.1f s, %s a task\n", r.hosts, r.update.Seconds(), rate(r.hosts, r.update), r.cpuUpdate.Seconds(), us(r.cpuUpdate/time.Duration(r.hosts)))
	fmt.Printf("  a zone lost             %8.1f s to the first replacement, %.1f s to the last of %d (%.0f/s)\n", r.detect.Seconds(), r.replace.Seconds(), n/3, rate(n/3, r.replace-r.detect))
	fmt.Printf("  memory of a server      %8.1f MB without tasks, %.1f MB with (%.2f kB a task), at most %.1f MB\n", float64(r.idle)/1024, float64(r.full)/1024, float64(r.full-r.idle)/float64(n), float64(r.peak)/1024)
	fmt.Printf("  quiet: DescribeTasks p50 %s p99 %s, RunTask p50 %s p99 %s\n", ms(r.describeIdle.median()), ms(r.describeIdle.quantile(.99)), ms(r.runIdle.median()), ms(r.runIdle.quantile(.99)))
	fmt.Printf("  during the update: DescribeTasks p50 %s p99 %s (%d, %d failed), RunTask p50 %s p99 %s (%d, %d failed)\n",
		ms(r.describeBusy.median()), ms(r.describeBusy.quantile(.99)), len(r.describeBusy), r.describeErrs, ms(r.runBusy.median()), ms(r.runBusy.quantile(.99)), len(r.runBusy), r.runFailures)
}

// scale is one size: servers, a fleet that joins them, services that fill it, an update and a lost zone.
func scale(ctx context.Context, s settings, hosts int) (r *scaled, err error) {
	c, err := startServers(ctx, s.neargate, s.servers, strings.Fields(s.serverFlags)...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	// Garbage of the hosts is not what is measured, and the cores are shared: it may pile up.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	b := &scaling{ctx: ctx, api: c.all[0].Client, servers: c, r: &scaled{servers: s.servers, hosts: hosts, tasks: hosts * s.hostTasks}, tasks: hosts * s.hostTasks}
	var peers []string
	for _, one := range c.all {
		peers = append(peers, one.peers)
	}
	// A host has room for twice its tasks, so that two zones can take what a third one had.
	return b.r, b.run(fleet.Config{
		Servers: peers, Token: joinToken, Dir: filepath.Join(c.dir, "hosts"), Hosts: hosts, Zones: scaleZones, Cluster: scaleCluster,
		CPU: uint32(s.hostTasks * 2 * 64), Memory: uint32(s.hostTasks * 2 * 64), Start: startTime,
	})
}

// scaling is a run of one size.
type scaling struct {
	ctx     context.Context
	api     *client.Client
	servers *servers
	r       *scaled
	tasks   int
	fleet   *fleet.Fleet
}

func (b *scaling) run(cfg fleet.Config) (err error) {
	if _, err := b.api.ECS.CreateCluster(b.ctx, &ecs.CreateClusterInput{ClusterName: aws.String(scaleCluster)}); err != nil {
		return err
	}
	before, own := b.servers.cpu(), b.ownCPU()
	began := time.Now()
	if b.fleet, err = fleet.Begin(b.ctx, cfg); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.fleet.Close()) }()
	b.r.join, b.r.cpuJoin, b.r.hostsJoin = time.Since(began), b.servers.cpu()-before, b.ownCPU()-own
	fmt.Printf("%d hosts have joined in %.1f s\n", b.r.hosts, b.r.join.Seconds())
	for i, step := range []func() error{b.rest, b.fill, b.quiet, b.update, b.loseZone} {
		if err := step(); err != nil {
			return err
		}
		fmt.Printf("step %d of 5 is done after %.1f s (%d sessions)\n", i+1, time.Since(began).Seconds(), b.fleet.Sessions())
	}
	b.r.load = load()
	return nil
}

// memory is what the server that has most of it has in kB, now and at most.
func (b *scaling) memory() (now int) {
	for _, one := range b.servers.all {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", one.Process.Pid))
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 1 {
				n, _ := strconv.Atoi(f[1])
				switch f[0] {
				case "VmRSS:":
					now = max(now, n)
				case "VmHWM:":
					b.r.peak = max(b.r.peak, n)
				}
			}
		}
	}
	return now
}

// ownCPU is that of the hosts, and of what little else this process does: it is the server's parent, which is not in it.
func (b *scaling) ownCPU() time.Duration {
	p, _ := readProcess(os.Getpid())
	return p.own
}

// rest measures what hosts cost that have nothing to do.
func (b *scaling) rest() error {
	before, own := b.servers.cpu(), b.ownCPU()
	select {
	case <-time.After(restTime):
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
	b.r.cpuRest, b.r.hostsRest, b.r.idle = b.servers.cpu()-before, b.ownCPU()-own, b.memory()
	return nil
}

// register makes the next revision of a task definition.
func (b *scaling) register(family string) (string, error) {
	out, err := b.api.ECS.RegisterTaskDefinition(b.ctx, &ecs.RegisterTaskDefinitionInput{
		Family: &family, NetworkMode: types.NetworkModeBridge,
		ContainerDefinitions: []types.ContainerDefinition{{Name: aws.String("web"), Image: aws.String("registry.test/web:1"), Cpu: 64, Memory: aws.Int32(64)}},
	})
	if err != nil {
		return "", err
	}
	return *out.TaskDefinition.TaskDefinitionArn, nil
}

// fill makes the services, all at once, and waits until their tasks run.
func (b *scaling) fill() error {
	before, own := b.servers.cpu(), b.ownCPU()
	definition, err := b.register("web")
	if err != nil {
		return err
	}
	began := time.Now()
	create := func(name string, n int) error {
		_, err := b.api.ECS.CreateService(b.ctx, &ecs.CreateServiceInput{
			Cluster: aws.String(scaleCluster), ServiceName: &name, TaskDefinition: &definition, DesiredCount: aws.Int32(int32(n)), LaunchType: types.LaunchTypeEc2,
			AvailabilityZoneRebalancing: types.AvailabilityZoneRebalancingDisabled, // what it would start comes on top of what is measured
		})
		return err
	}
	if err := create("big", b.r.hosts); err != nil {
		return err
	}
	for left, i := b.tasks-b.r.hosts, 0; left > 0; left, i = left-serviceTasks, i+1 {
		if err := create(fmt.Sprintf("service-%04d", i), min(left, serviceTasks)); err != nil {
			return err
		}
	}
	if err := b.until("all tasks run", func() (bool, error) { return b.fleet.Running() >= b.tasks, nil }); err != nil {
		return err
	}
	if err := b.until("the service's deployment is over", b.complete); err != nil {
		return err
	}
	b.r.create, b.r.cpuCreate, b.r.hostsCreate, b.r.full = time.Since(began), b.servers.cpu()-before, b.ownCPU()-own, b.memory()
	return nil
}

// complete says whether the big service has what it wants, by one deployment.
func (b *scaling) complete() (bool, error) {
	out, err := b.api.ECS.DescribeServices(b.ctx, &ecs.DescribeServicesInput{Cluster: aws.String(scaleCluster), Services: []string{"big"}})
	if err != nil || len(out.Services) != 1 {
		return false, err
	}
	s := out.Services[0]
	return len(s.Deployments) == 1 && s.Deployments[0].RolloutState == types.DeploymentRolloutStateCompleted && int(s.RunningCount) == b.r.hosts, nil
}

// until polls; what is measured takes seconds.
func (b *scaling) until(what string, is func() (bool, error)) error {
	last, moved := -1, time.Now()
	for b.ctx.Err() == nil {
		ok, err := is()
		if ok || err != nil {
			return err
		}
		if now := b.fleet.Started(); now != last {
			last, moved = now, time.Now()
		}
		if time.Since(moved) > 3*time.Minute {
			return fmt.Errorf("%s: nothing has moved for three minutes; %d tasks run, %d hosts are connected", what, b.fleet.Running(), b.fleet.Connected())
		}
		time.Sleep(20 * time.Millisecond)
	}
	return b.ctx.Err()
}

// settle waits until no task has begun to run for a while.
func (b *scaling) settle() error {
	last, moved := b.fleet.Started(), time.Now()
	return b.until("no more tasks begin", func() (bool, error) {
		if now := b.fleet.Started(); now != last {
			last, moved = now, time.Now()
		}
		return time.Since(moved) > calm, nil
	})
}

// quiet measures calls while nothing else happens.
func (b *scaling) quiet() error {
	arns, err := b.someTasks()
	if err != nil {
		return err
	}
	for range 100 {
		b.describe(arns, &b.r.describeIdle)
		b.runTask(&b.r.runIdle)
	}
	return nil
}

// someTasks are a page of the cluster's tasks.
func (b *scaling) someTasks() ([]string, error) {
	out, err := b.api.ECS.ListTasks(b.ctx, &ecs.ListTasksInput{Cluster: aws.String(scaleCluster), ServiceName: aws.String("service-0000")})
	if err != nil {
		return nil, err
	}
	return out.TaskArns, nil
}

func (b *scaling) describe(arns []string, s *samples) {
	rand.Shuffle(len(arns), func(i, j int) { arns[i], arns[j] = arns[j], arns[i] })
	began := time.Now()
	_, err := b.api.ECS.DescribeTasks(b.ctx, &ecs.DescribeTasksInput{Cluster: aws.String(scaleCluster), Tasks: arns[:min(10, len(arns))]})
	*s = append(*s, time.Since(began))
	if err != nil {
		b.r.describeErrs++
	}
}

func (b *scaling) runTask(s *samples) {
	began := time.Now()
	out, err := b.api.ECS.RunTask(b.ctx, &ecs.RunTaskInput{Cluster: aws.String(scaleCluster), TaskDefinition: aws.String("web:1"), LaunchType: types.LaunchTypeEc2})
	*s = append(*s, time.Since(began))
	if err != nil || len(out.Failures) > 0 {
		b.r.runFailures++
	}
}

// update replaces every task of the big service, and measures calls meanwhile.
func (b *scaling) update() error {
	arns, err := b.someTasks()
	if err != nil {
		return err
	}
	definition, err := b.register("web")
	if err != nil {
		return err
	}
	before := b.servers.cpu()
	began := time.Now()
	if _, err := b.api.ECS.UpdateService(b.ctx, &ecs.UpdateServiceInput{Cluster: aws.String(scaleCluster), Service: aws.String("big"), TaskDefinition: &definition}); err != nil {
		return err
	}
	stop := make(chan struct{})
	var calls sync.WaitGroup
	calls.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				b.describe(arns, &b.r.describeBusy)
			}
		}
	})
	calls.Go(func() {
		for range 1000 {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				b.runTask(&b.r.runBusy)
			}
		}
	})
	err = b.until("the update is complete", b.complete)
	close(stop)
	calls.Wait()
	b.r.update, b.r.cpuUpdate = time.Since(began), b.servers.cpu()-before
	return err
}

// loseZone cuts off a third of the hosts and waits until others run what they had.
func (b *scaling) loseZone() error {
	// What the update has begun would pass for a replacement.
	if err := b.settle(); err != nil {
		return err
	}
	before, began := b.fleet.Started(), time.Now()
	running := b.fleet.Running()
	b.fleet.Lose(scaleZones[0])
	lost := running - b.fleet.Running()
	if lost == 0 {
		return errors.New("the zone ran nothing")
	}
	if err := b.until("the first replacement runs", func() (bool, error) { return b.fleet.Started() > before, nil }); err != nil {
		return err
	}
	b.r.detect = time.Since(began)
	err := b.until("all services have their tasks", func() (bool, error) {
		// Standalone tasks are not replaced.
		return b.fleet.Running() >= b.tasks, nil
	})
	b.r.replace = time.Since(began)
	b.memory()
	return err
}
