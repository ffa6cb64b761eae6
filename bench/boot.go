package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// settle is how long memory is given to come to rest.
const settle = 10 * time.Second

// benchBoot takes turns between starting on an empty data directory and on one that is there; then it looks at the memory.
func benchBoot(ctx context.Context, s settings) (err error) {
	dir, err := os.MkdirTemp("", "neargate-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	existing := filepath.Join(dir, "existing")
	var empty, again, emptyCPU, againCPU samples
	for i := range s.rounds + 1 {
		p, cpu, err := bootOnce(ctx, s, filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		q, qcpu, err := bootOnce(ctx, s, existing)
		if err != nil {
			return err
		}
		if i > 0 { // the first makes the directory
			empty, emptyCPU, again, againCPU = append(empty, p), append(emptyCPU, cpu), append(again, q), append(againCPU, qcpu)
		}
	}
	fmt.Printf("empty data directory:    %v, CPU %v\nexisting data directory: %v, CPU %v\n", empty, emptyCPU, again, againCPU)

	p, err := startPlatform(ctx, s.neargate, existing, "native")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop(syscall.SIGINT)) }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
	}
	m, err := memoryOf(p.Process.Pid)
	fmt.Printf("idle, %v after start: %v\n", settle, m)
	return err
}

func bootOnce(ctx context.Context, s settings, data string) (wall, cpu time.Duration, err error) {
	p, err := startPlatform(ctx, s.neargate, data, "native")
	if err != nil {
		return 0, 0, err
	}
	cpu = cpuOf(p.Process.Pid)
	return p.toReady, cpu, p.stop(syscall.SIGINT)
}
