package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/docker/docker/api/types/container"
)

// kept is how both sides keep a container's output: in blocking mode, so that what is measured is what they take in.
var kept = map[string]string{"max-size": "16m", "max-file": "2", "mode": "blocking"}

// benchLogs takes turns between the platform and a Docker engine: the same program writes lines to its standard output, one write each, and
// says how long it was held up. The CPU is that of everybody, the program included.
func benchLogs(ctx context.Context, s settings) (err error) {
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
	if err := n.keepLogs(ctx, s.lines); err != nil {
		return err
	}
	var nativeTime, nativeCPU, otherTime, otherCPU samples
	for i := range s.rounds + 1 {
		a, cpuA, err := n.write(ctx, l)
		if err != nil {
			return fmt.Errorf("native: %w", err)
		}
		b, cpuB, err := e.write(ctx, l, s.lines)
		if err != nil {
			return fmt.Errorf("docker: %w", err)
		}
		if i > 0 {
			nativeTime, nativeCPU, otherTime, otherCPU = append(nativeTime, a), append(nativeCPU, cpuA), append(otherTime, b), append(otherCPU, cpuB)
		}
	}
	for _, side := range []struct {
		name      string
		took, cpu samples
	}{{"native", nativeTime, nativeCPU}, {"docker", otherTime, otherCPU}} {
		seconds := side.took.median().Seconds()
		fmt.Printf("%s: %d lines in %v: %.0f lines/s, %.1f MB/s; CPU %v\n", side.name, s.lines, side.took, float64(s.lines)/seconds, float64(s.lines)/1e4/seconds, side.cpu)
	}
	return nil
}

// written waits for what a container says when it has written everything.
func (d *doorbell) written(ctx context.Context) (took time.Duration, hangUp func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	select {
	case r := <-d.rings:
		defer context.AfterFunc(ctx, func() { r.conn.Close() })()
		text, err := bufio.NewReader(r.conn).ReadString('\n')
		if err == nil {
			took, err = time.ParseDuration(strings.TrimSpace(text))
		}
		return took, r.conn.Close, err
	case <-ctx.Done():
		return 0, nil, fmt.Errorf("no container calls: %w", ctx.Err())
	}
}

// keepLogs makes a task definition that writes.
func (n *native) keepLogs(ctx context.Context, lines int) error {
	d, err := n.ECS.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &n.definition})
	if err != nil {
		return err
	}
	c := d.TaskDefinition.ContainerDefinitions[0]
	c.Environment = append(c.Environment, ecstypes.KeyValuePair{Name: aws.String("BENCH_LINES"), Value: aws.String(fmt.Sprint(lines))})
	c.LogConfiguration = &ecstypes.LogConfiguration{LogDriver: ecstypes.LogDriverJsonFile, Options: kept}
	n.definition = "logs"
	_, err = n.ECS.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: &n.definition, ContainerDefinitions: []ecstypes.ContainerDefinition{c}})
	return err
}

func (n *native) write(ctx context.Context, l *doorbell) (took, cpu time.Duration, err error) {
	before := n.cpu()
	out, err := n.ECS.RunTask(ctx, &ecs.RunTaskInput{TaskDefinition: &n.definition, LaunchType: ecstypes.LaunchTypeEc2})
	if err != nil {
		return 0, 0, err
	}
	if len(out.Tasks) != 1 {
		return 0, 0, fmt.Errorf("not placed: %+v", out.Failures)
	}
	took, hangUp, err := l.written(ctx)
	if err != nil {
		return 0, 0, err
	}
	cpu = n.cpu() - before
	hangUp()
	_, err = n.task(ctx, *out.Tasks[0].TaskArn, ecstypes.DesiredStatusStopped)
	return took, cpu, err
}

func (e *engine) write(ctx context.Context, l *doorbell, lines int) (took, cpu time.Duration, err error) {
	before := e.cpu()
	made, err := e.ContainerCreate(ctx,
		&container.Config{Image: dockerImage, Entrypoint: []string{"/hello"}, Env: []string{"BENCH_ADDR=" + l.address, fmt.Sprint("BENCH_LINES=", lines)}},
		&container.HostConfig{NetworkMode: "bridge", LogConfig: container.LogConfig{Type: "json-file", Config: kept},
			Resources: container.Resources{CPUShares: 256, Memory: 256 << 20, MemorySwap: 256 << 20}}, nil, nil, "")
	if err != nil {
		return 0, 0, err
	}
	defer func() {
		err = errors.Join(err, e.ContainerRemove(context.WithoutCancel(ctx), made.ID, container.RemoveOptions{Force: true}))
	}()
	if err := e.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return 0, 0, err
	}
	took, hangUp, err := l.written(ctx)
	if err != nil {
		return 0, 0, err
	}
	cpu = e.cpu() - before
	return took, cpu, hangUp()
}
