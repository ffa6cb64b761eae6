package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"golang.org/x/sync/errgroup"
)

// atOnce is how many starts are begun together.
const atOnce = 8

// benchStart takes turns between RunTask on the platform, with sandboxes made ahead and without, and create + start on a Docker engine: the
// same program in an image of nothing else, on a bridge, with the same limits. The clock runs from the first byte of the API call to the
// first byte that the container sends to this process. Then the same with eight at once. With another build to measure beside, that takes the engine's place.
func benchStart(ctx context.Context, s settings) (err error) {
	l, err := newDoorbell()
	if err != nil {
		return err
	}
	defer l.Close()
	var contestants []*contestant
	open := func(name, binary string, flags ...string) (*contestant, error) {
		s := s
		s.neargate = binary
		n, err := openNative(ctx, s, l.address, flags...)
		if err != nil {
			return nil, err
		}
		n.warm = len(flags) > 0
		c := &contestant{name: name, starter: n, close: n.close}
		contestants = append(contestants, c)
		return c, nil
	}
	defer func() {
		for _, c := range contestants {
			err = errors.Join(err, c.close())
		}
	}()
	warm := []string{"--warm", strconv.Itoa(atOnce)}
	ours, err := open("native", s.neargate)
	if err != nil {
		return err
	}
	ready, err := open("native, warm", s.neargate, warm...)
	if err != nil {
		return err
	}
	if s.before != "" {
		if ours.peer, err = open("before", s.before); err == nil {
			ready.peer, err = open("before, warm", s.before, warm...)
		}
		if err != nil {
			return err
		}
	} else {
		e, err := openEngine(ctx, s.hello)
		if err != nil {
			return err
		}
		ours.peer = &contestant{name: "docker", starter: e, close: func() error { return e.close(context.WithoutCancel(ctx)) }}
		ready.peer = ours.peer
		contestants = append(contestants, ours.peer)
	}
	for i := range s.rounds + 2 {
		for _, c := range contestants {
			one, err := c.starter.run(ctx, l)
			var many startResult
			if err == nil {
				many, err = c.starter.runMany(ctx, l, atOnce)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if i >= 2 { // the first two warm caches up
				c.one, c.many = append(c.one, one), append(c.many, many)
			}
		}
	}
	for _, c := range contestants {
		c.one.print(c.name)
		first, all := c.one.first().median(), c.many.first().median()
		fmt.Printf("  one after the other %.1f starts/s; %d at once: %v until the last, %.1f starts/s, CPU a start %v\n",
			1/first.Seconds(), atOnce, c.many.first(), atOnce/all.Seconds(), c.many.cpu())
		if p := c.peer; p != nil {
			fmt.Printf("  against %s: %.2f of the time, %.2f of the CPU; %d at once %.2f and %.2f\n", p.name, ratio(c.one.first(), p.one.first()), ratio(c.one.cpu(), p.one.cpu()),
				atOnce, ratio(c.many.first(), p.many.first()), ratio(c.many.cpu(), p.many.cpu()))
		}
	}
	return nil
}

func ratio(a, b samples) float64 { return float64(a.median()) / float64(b.median()) }

// contestant is one of those who take turns.
type contestant struct {
	name    string
	starter interface {
		run(ctx context.Context, l *doorbell) (startResult, error)
		// runMany starts so many at once; first is until the last has called, cpu what one took.
		runMany(ctx context.Context, l *doorbell, n int) (startResult, error)
	}
	close     func() error
	peer      *contestant // it is compared with; nil: with none
	one, many startResults
}

// startResult is one start.
type startResult struct {
	first, cpu time.Duration // to the first output
	phases     []phase
}

type phase struct {
	name string
	took time.Duration
}

func (r *startResult) phase(name string, began time.Time) {
	r.phases = append(r.phases, phase{name, time.Since(began)})
}

type startResults []startResult

func (r startResults) of(f func(startResult) time.Duration) (s samples) {
	for _, one := range r {
		s = append(s, f(one))
	}
	return s
}

func (r startResults) first() samples {
	return r.of(func(s startResult) time.Duration { return s.first })
}
func (r startResults) cpu() samples { return r.of(func(s startResult) time.Duration { return s.cpu }) }

func (r startResults) print(name string) {
	fmt.Printf("%s: first output %v, CPU %v\n", name, r.first(), r.cpu())
	for i, p := range r[0].phases {
		fmt.Printf("  %-28s %v\n", p.name, r.of(func(s startResult) time.Duration { return s.phases[i].took }))
	}
}

// doorbell is where containers say that they run.
type doorbell struct {
	net.Listener
	address string // as containers reach it
	rings   chan ring
}

type ring struct {
	conn net.Conn
	at   time.Time
}

func newDoorbell() (*doorbell, error) {
	// Any address of this host that is not loopback does; no packet is sent.
	c, err := net.Dial("udp", "192.0.2.1:9")
	if err != nil {
		return nil, fmt.Errorf("address of this host: %w", err)
	}
	host, _, _ := net.SplitHostPort(c.LocalAddr().String())
	c.Close()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	d := &doorbell{l, l.Addr().String(), make(chan ring, atOnce)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := c.Read(make([]byte, 1)); err == nil {
				d.rings <- ring{c, time.Now()}
			}
		}
	}()
	return d, nil
}

func (d *doorbell) wait(ctx context.Context) (at time.Time, hangUp func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	select {
	case r := <-d.rings:
		return r.at, r.conn.Close, nil
	case <-ctx.Done():
		return at, nil, fmt.Errorf("no container calls: %w", ctx.Err())
	}
}

// waitFor waits for so many; at is when the last called.
func (d *doorbell) waitFor(ctx context.Context, n int) (at time.Time, hangUp func(), err error) {
	var calls []func() error
	hangUp = func() {
		for _, c := range calls {
			c()
		}
	}
	for range n {
		one, c, err := d.wait(ctx)
		if err != nil {
			hangUp()
			return at, nil, err
		}
		calls = append(calls, c)
		if one.After(at) {
			at = one
		}
	}
	return at, hangUp, nil
}

// native is the platform with the benchmark's task definition in it.
type native struct {
	*platform
	data       string
	definition string
	warm       bool // it has sandboxes ready
	ran        bool // the task definition
}

func openNative(ctx context.Context, s settings, address string, flags ...string) (_ *native, err error) {
	n := &native{}
	if n.data, err = os.MkdirTemp("", "neargate-bench-"); err != nil {
		return nil, err
	}
	if n.platform, err = startPlatform(ctx, s.neargate, n.data, "native", flags...); err != nil {
		return nil, errors.Join(err, os.RemoveAll(n.data))
	}
	image, err := n.push(ctx, "hello", s.hello)
	if err == nil {
		_, err = n.ECS.CreateCluster(ctx, &ecs.CreateClusterInput{})
	}
	if err == nil {
		_, err = n.ECS.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{
			Family: aws.String("hello"), RequiresCompatibilities: []ecstypes.Compatibility{ecstypes.CompatibilityEc2},
			ContainerDefinitions: []ecstypes.ContainerDefinition{{
				Name: aws.String("hello"), Image: &image, Cpu: 256, Memory: aws.Int32(256), Essential: aws.Bool(true),
				Environment: []ecstypes.KeyValuePair{{Name: aws.String("BENCH_ADDR"), Value: &address}},
			}},
		})
	}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	n.definition = "hello"
	return n, nil
}

func (n *native) close() error {
	return errors.Join(n.stop(syscall.SIGINT), os.RemoveAll(n.data))
}

// cpu is what the platform, its shims and their containers took. Shims are its children, or were.
func (n *native) cpu() time.Duration { return cpuOf(n.Process.Pid) }

// ready waits until as many sandboxes wait as the platform keeps ready, if it does and has seen the task definition.
func (n *native) ready(ctx context.Context) error {
	for n.warm && n.ran {
		ready := 0
		boxes, err := filepath.Glob(filepath.Join(n.data, "agent", "native", "tasks", "warm-*"))
		if err != nil {
			return err
		}
		for _, b := range boxes {
			record, _ := os.ReadFile(filepath.Join(b, "sandbox.json"))
			if _, err := os.Stat(filepath.Join(b, "record.json")); err != nil && strings.Contains(string(record), `"Complete":true`) {
				ready++
			}
		}
		if ready >= atOnce {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	n.ran = true
	return nil
}

func (n *native) runMany(ctx context.Context, l *doorbell, count int) (r startResult, err error) {
	if err := n.ready(ctx); err != nil {
		return r, err
	}
	cpu, began := n.cpu(), time.Now()
	arns := make([]string, count)
	g, calling := errgroup.WithContext(ctx)
	for i := range arns {
		g.Go(func() error {
			out, err := n.ECS.RunTask(calling, &ecs.RunTaskInput{TaskDefinition: &n.definition, LaunchType: ecstypes.LaunchTypeEc2})
			if err == nil && len(out.Tasks) != 1 {
				err = fmt.Errorf("not placed: %+v", out.Failures)
			}
			if err == nil {
				arns[i] = *out.Tasks[0].TaskArn
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return r, err
	}
	last, hangUp, err := l.waitFor(ctx, count)
	if err != nil {
		return r, err
	}
	r.first, r.cpu = last.Sub(began), (n.cpu()-cpu)/time.Duration(count)
	hangUp()
	for _, arn := range arns {
		if _, err := n.task(ctx, arn, ecstypes.DesiredStatusStopped); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (n *native) run(ctx context.Context, l *doorbell) (r startResult, err error) {
	if err := n.ready(ctx); err != nil {
		return r, err
	}
	cpu, began := n.cpu(), time.Now()
	out, err := n.ECS.RunTask(ctx, &ecs.RunTaskInput{TaskDefinition: &n.definition, LaunchType: ecstypes.LaunchTypeEc2})
	if err != nil {
		return r, err
	}
	if len(out.Tasks) != 1 {
		return r, fmt.Errorf("not placed: %+v", out.Failures)
	}
	r.phase("API and placement", began)
	rang, hangUp, err := l.wait(ctx)
	if err != nil {
		return r, err
	}
	r.first, r.cpu = rang.Sub(began), n.cpu()-cpu
	t, err := n.task(ctx, *out.Tasks[0].TaskArn, ecstypes.DesiredStatusRunning)
	hangUp()
	if err != nil {
		return r, err
	}
	// The platform's clock is this one's; its times are in milliseconds.
	r.phases = append(r.phases,
		phase{"assignment to the agent", t.PullStartedAt.Sub(began) - r.phases[0].took},
		phase{"image (at hand)", t.PullStoppedAt.Sub(*t.PullStartedAt)},
		phase{"create and start", rang.Sub(*t.PullStoppedAt)})
	_, err = n.task(ctx, *out.Tasks[0].TaskArn, ecstypes.DesiredStatusStopped)
	return r, err
}

// task waits until the task has reached a state, and the times that come with it.
func (n *native) task(ctx context.Context, arn string, want ecstypes.DesiredStatus) (t ecstypes.Task, err error) {
	for {
		out, err := n.ECS.DescribeTasks(ctx, &ecs.DescribeTasksInput{Tasks: []string{arn}})
		if err != nil {
			return t, err
		}
		if len(out.Tasks) != 1 {
			return t, fmt.Errorf("task %s is gone", arn)
		}
		t = out.Tasks[0]
		if reached := []string{string(want), "STOPPED"}; slices.Contains(reached, aws.ToString(t.LastStatus)) {
			if t.PullStartedAt == nil || t.PullStoppedAt == nil {
				return t, fmt.Errorf("task %s did not start: %s", arn, aws.ToString(t.StoppedReason))
			}
			return t, nil
		}
		select {
		case <-ctx.Done():
			return t, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
