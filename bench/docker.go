package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	docker "github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"
)

const dockerImage = "neargate-bench:hello"

// engine is the Docker engine of DOCKER_HOST with the benchmark's image in it.
type engine struct{ *docker.Client }

func openEngine(ctx context.Context, hello string) (*engine, error) {
	c, err := docker.NewClientWithOpts(docker.FromEnv, docker.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(hello)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err = w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o755, Size: int64(len(b))})
	if err == nil {
		_, err = w.Write(b)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	r, err := c.ImageImport(ctx, image.ImportSource{Source: &layer, SourceName: "-"}, dockerImage, image.ImportOptions{})
	if err != nil {
		return nil, fmt.Errorf("reach the Docker engine (set DOCKER_HOST): %w", err)
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return &engine{c}, err
}

func (e *engine) close(ctx context.Context) error {
	_, err := e.ImageRemove(ctx, dockerImage, image.RemoveOptions{})
	return errors.Join(err, e.Close())
}

// cpu is what the engine, its containerd, its shims and their containers took.
func (e *engine) cpu() time.Duration {
	return treeCPU(func(_ int, args []string) bool {
		return strings.HasSuffix(args[0], "dockerd") || strings.HasSuffix(args[0], "/containerd") || args[0] == "containerd" ||
			strings.HasSuffix(args[0], "containerd-shim-runc-v2")
	})
}

// run starts a container on the bridge with the limits of the native turn.
func (e *engine) run(ctx context.Context, l *doorbell) (r startResult, err error) {
	cpu, began := e.cpu(), time.Now()
	id, err := e.create(ctx, l)
	if err != nil {
		return r, err
	}
	defer func() {
		err = errors.Join(err, e.ContainerRemove(context.WithoutCancel(ctx), id, container.RemoveOptions{Force: true}))
	}()
	r.phase("create", began)
	starting := time.Now()
	if err := e.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		return r, err
	}
	r.phase("start", starting)
	rang, hangUp, err := l.wait(ctx)
	if err != nil {
		return r, err
	}
	r.first, r.cpu = rang.Sub(began), e.cpu()-cpu
	hangUp()
	ended, failed := e.ContainerWait(ctx, id, container.WaitConditionNotRunning)
	select {
	case <-ended:
	case err = <-failed:
	}
	return r, err
}

// runMany makes and starts so many containers at once.
func (e *engine) runMany(ctx context.Context, l *doorbell, n int) (r startResult, err error) {
	cpu, began := e.cpu(), time.Now()
	ids := make([]string, n)
	g, starting := errgroup.WithContext(ctx)
	for i := range ids {
		g.Go(func() error {
			made, err := e.create(starting, l)
			if err != nil {
				return err
			}
			ids[i] = made
			return e.ContainerStart(starting, made, container.StartOptions{})
		})
	}
	defer func() {
		for _, id := range ids {
			if id != "" {
				err = errors.Join(err, e.ContainerRemove(context.WithoutCancel(ctx), id, container.RemoveOptions{Force: true}))
			}
		}
	}()
	if err := g.Wait(); err != nil {
		return r, err
	}
	last, hangUp, err := l.waitFor(ctx, n)
	if err != nil {
		return r, err
	}
	r.first, r.cpu = last.Sub(began), (e.cpu()-cpu)/time.Duration(n)
	hangUp()
	return r, nil
}

func (e *engine) create(ctx context.Context, l *doorbell) (id string, err error) {
	made, err := e.ContainerCreate(ctx,
		&container.Config{Image: dockerImage, Entrypoint: []string{"/hello"}, Env: []string{"BENCH_ADDR=" + l.address}},
		&container.HostConfig{NetworkMode: "bridge", Resources: container.Resources{CPUShares: 256, Memory: 256 << 20, MemorySwap: 256 << 20}}, nil, nil, "")
	return made.ID, err
}
