package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
)

const (
	blobSize = 1 << 10
	batch    = 500 // blobs a turn
)

// benchPush pushes distinct small blobs as docker does, POST then PUT over one connection, and gives the platform's CPU for each.
func benchPush(ctx context.Context, s settings) (err error) {
	dir, err := os.MkdirTemp("", "neargate-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p, err := startPlatform(ctx, s.neargate, dir, "fake")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop(syscall.SIGINT)) }()
	if _, err := p.ECR.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: aws.String("bench")}); err != nil {
		return err
	}
	cred, err := p.credentials(ctx)
	if err != nil {
		return err
	}
	send := func(method, url string, body []byte, want int) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.SetBasicAuth(cred.User, cred.Password)
		req.Header.Set("Content-Type", "application/octet-stream")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != want {
			err = fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
		}
		return resp, err
	}
	var cpu, wall samples
	n := 0
	for i := range s.rounds + 1 {
		before, began := cpuOf(p.Process.Pid), time.Now()
		for range batch {
			n++
			content := bytes.Repeat(fmt.Appendf(nil, "%016d", n), blobSize/16)
			resp, err := send(http.MethodPost, p.Config.Endpoint+"/v2/bench/blobs/uploads/", nil, http.StatusAccepted)
			if err != nil {
				return err
			}
			to, err := resp.Location()
			if err != nil {
				return err
			}
			query := to.Query()
			query.Set("digest", fmt.Sprintf("sha256:%x", sha256.Sum256(content)))
			to.RawQuery = query.Encode()
			if _, err := send(http.MethodPut, to.String(), content, http.StatusCreated); err != nil {
				return err
			}
		}
		if i > 0 {
			cpu, wall = append(cpu, (cpuOf(p.Process.Pid)-before)/batch), append(wall, time.Since(began)/batch)
		}
	}
	fmt.Printf("a blob of %d bytes: CPU %s (%s to %s), on the clock %s\n", blobSize, us(cpu.median()), us(cpu.quantile(0.25)), us(cpu.quantile(0.75)), ms(wall.median()))
	return nil
}
