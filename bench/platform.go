package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/seed-2f228079/neargate/client"
	"github.com/seed-2f228079/neargate/internal/ociclient"
)

// program is a process under measurement.
type program struct {
	*exec.Cmd
	output bytes.Buffer
	ended  chan error
}

func startProgram(name string, args ...string) (*program, error) {
	p := &program{Cmd: exec.Command(name, args...), ended: make(chan error, 1)}
	p.Stdout, p.Stderr = &p.output, &p.output
	if err := p.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- p.Wait() }()
	return p, nil
}

// stop ends the process as its user would, and waits.
func (p *program) stop(s os.Signal) error {
	p.Process.Signal(s)
	select {
	case err := <-p.ended:
		return err
	case <-time.After(30 * time.Second):
		p.Process.Kill()
		return errors.Join(fmt.Errorf("%s did not end", p.Path), <-p.ended)
	}
}

// platform is a running `neargate dev`.
type platform struct {
	*program
	*client.Client
	toReady time.Duration // from exec to 200 at /healthz
}

// startPlatform starts `neargate dev` on ports that are free now.
func startPlatform(ctx context.Context, binary, data, runtime string, more ...string) (*platform, error) {
	listen, err := freePort()
	if err != nil {
		return nil, err
	}
	dns, err := freePort()
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Config{Endpoint: "http://" + listen, Region: "us-east-1", AccessKey: "test", SecretKey: "test"})
	if err != nil {
		return nil, err
	}
	began := time.Now()
	p, err := startProgram(binary, append([]string{"dev", "--data", data, "--listen", listen, "--dns", dns, "--runtime", runtime}, more...)...)
	if err != nil {
		return nil, err
	}
	for {
		resp, err := http.Get("http://" + listen + "/healthz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return &platform{p, c, time.Since(began)}, nil
			}
		}
		select {
		case err := <-p.ended:
			return nil, fmt.Errorf("neargate dev ended: %w\n%s", err, p.output.String())
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), p.stop(syscall.SIGINT))
		case <-time.After(time.Millisecond):
		}
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// credentials are those for the registry.
func (p *platform) credentials(ctx context.Context) (ociclient.Credentials, error) {
	token, err := p.ECR.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return ociclient.Credentials{}, err
	}
	plain, err := base64.StdEncoding.DecodeString(aws.ToString(token.AuthorizationData[0].AuthorizationToken))
	user, password, _ := strings.Cut(string(plain), ":")
	return ociclient.Credentials{User: user, Password: password}, err
}

// push makes an image of nothing but a binary and pushes it.
func (p *platform) push(ctx context.Context, name, binary string) (ref string, err error) {
	repo, err := p.ECR.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &name})
	if err != nil {
		return "", err
	}
	cred, err := p.credentials(ctx)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(binary)
	if err != nil {
		return "", err
	}
	image, err := ociclient.Build(ociclient.Config{Entrypoint: []string{"/" + name}}, []ociclient.File{ociclient.Executable(name, b)})
	if err != nil {
		return "", err
	}
	ref = *repo.Repository.RepositoryUri + ":v1"
	_, err = new(ociclient.Client).Push(ctx, ref, cred, image)
	return ref, err
}
