package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// benchStart takes turns between RunTask on the platform and create + start on a Docker engine: the same program in an image of
// nothing else, on a bridge, with the same limits. The clock runs from the first byte of the API call to the first byte that the
// container sends to this process.
func benchStart(ctx context.Context, s settings) (err error) {
	l, err := newDoorbell()
	if err != nil {
		return err
	}
	defer l.Close()
	e, err := openEngine(ctx, s.hello)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close(context.WithoutCancel(ctx))) }()
	n, err := openNative(ctx, s, l.address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()

	var native, other startResults
	for i := range s.rounds + 2 {
		a, err := n.run(ctx, l)
		if err != nil {
			return fmt.Errorf("native: %w", err)
		}
		b, err := e.run(ctx, l)
		if err != nil {
			return fmt.Errorf("docker: %w", err)
		}
		if i >= 2 { // the first two warm caches up
			native, other = append(native, a), append(other, b)
		}
	}
	native.print("native")
	other.print("docker")
	fmt.Printf("native/docker: %.2f of the time, %.2f of the CPU\n",
		float64(native.first().median())/float64(other.first().median()), float64(native.cpu().median())/float64(other.cpu().median()))
	return nil
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
	d := &doorbell{l, l.Addr().String(), make(chan ring, 1)}
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

// native is the platform with the benchmark's task definition in it.
type native struct {
	*platform
	data       string
	definition string
}

func openNative(ctx context.Context, s settings, address string) (_ *native, err error) {
	n := &native{}
	if n.data, err = os.MkdirTemp("", "neargate-bench-"); err != nil {
		return nil, err
	}
	if n.platform, err = startPlatform(ctx, s.neargate, n.data, "native"); err != nil {
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

func (n *native) run(ctx context.Context, l *doorbell) (r startResult, err error) {
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
