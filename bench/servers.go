package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/seed-2f228079/neargate/client"
)

const joinToken = "bench-join-token"

// servers are those of one cluster, each a process with a data directory of its own on the same disk.
type servers struct {
	dir string
	all []*oneServer
}

type oneServer struct {
	*program
	*client.Client
	listen, peers string
}

// startServers starts n servers, 1, 3 or 5, on ports that are free now, and returns once each is ready.
func startServers(ctx context.Context, binary string, n int, flags ...string) (_ *servers, err error) {
	c := &servers{}
	if c.dir, err = os.MkdirTemp("", "neargate-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	var join []string
	for range n {
		one := &oneServer{}
		if one.listen, err = freePort(); err != nil {
			return nil, err
		}
		if one.peers, err = freePort(); err != nil {
			return nil, err
		}
		if one.Client, err = client.New(client.Config{Endpoint: "http://" + one.listen, Region: "us-east-1", AccessKey: "test", SecretKey: "test"}); err != nil {
			return nil, err
		}
		c.all, join = append(c.all, one), append(join, one.peers)
	}
	for i, one := range c.all {
		args := []string{"server", "--data", filepath.Join(c.dir, fmt.Sprint(i)), "--listen", one.listen, "--peer-listen", one.peers, "--insecure",
			"--join-token", joinToken, "--bootstrap-expect", fmt.Sprint(n), "--public-name", c.all[0].listen}
		if n > 1 {
			args = append(args, "--join", strings.Join(join, ","))
		}
		if one.program, err = startProgram(binary, append(args, flags...)...); err != nil {
			return nil, err
		}
	}
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, one := range c.all {
		if err := one.WaitReady(ready); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// leader is the number of the server that leads.
func (c *servers) leader(ctx context.Context) (int, error) {
	members, err := c.all[0].Servers(ctx)
	if err != nil {
		return 0, err
	}
	for _, m := range members {
		for i, one := range c.all {
			if m.Role == "leader" && m.Address == one.peers {
				return i, nil
			}
		}
	}
	return 0, errors.New("no server leads")
}

// cpu is what all of them have used.
func (c *servers) cpu() (sum time.Duration) {
	for _, one := range c.all {
		sum += cpuOf(one.Process.Pid)
	}
	return sum
}

// stop ends all and removes what they had on the disk. What they said goes into the error, if there is one.
func (c *servers) stop() error {
	var errs []error
	for _, one := range c.all {
		if one.program == nil {
			continue
		}
		if err := one.program.stop(syscall.SIGTERM); err != nil {
			errs = append(errs, fmt.Errorf("%w\n%s", err, one.output.String()))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}
