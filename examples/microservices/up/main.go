// Command up brings the microservices example up on a running platform through its public API: what deploy.sh does with
// docker and the AWS CLI, for machines that have neither. It waits for the platform, so it may be started beside it.
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/client"
	"github.com/seed-2f228079/neargate/internal/ociclient"
)

const cluster = "microservices"

var paths = map[string][]string{
	"users":   {"/api/users", "/api/users/*"},
	"threads": {"/api/threads", "/api/threads/*"},
	"posts":   {"/api/posts", "/api/posts/*"},
}

func main() {
	images := flag.String("images", "examples/microservices/bin", "folder with the three services' binaries")
	version := flag.String("version", "v1", "image tag; another one makes a rolling update")
	count := flag.Int("count", 2, "tasks of each service")
	wait := flag.Duration("wait", 30*time.Second, "how long to wait for the platform")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := up(ctx, *images, *version, int32(*count), *wait); err != nil {
		if !errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "example: "+err.Error())
		}
		os.Exit(1)
	}
}

func up(ctx context.Context, images, version string, count int32, wait time.Duration) error {
	c, err := client.New(client.Config{}.FromEnvironment())
	if err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := c.WaitReady(ready); err != nil {
		return err
	}
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Printf("example %5.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	urls := make(map[string]*string)
	g, gctx := errgroup.WithContext(ctx)
	for name := range paths {
		url := new(string)
		urls[name] = url
		g.Go(func() error {
			image, err := push(gctx, c, images, name, version)
			if err != nil {
				return fmt.Errorf("push %s: %w", name, err)
			}
			say("%s: pushed %s", name, image)
			*url, err = c.Deploy(gctx, client.Deployment{
				Name: name, Image: image, Cluster: cluster, Port: 3000, Count: count, CPU: 256, Memory: 256, StopTimeout: 5,
				Environment: map[string]string{"VERSION": version}, LoadBalancer: cluster, Paths: paths[name], HealthPath: "/healthz",
			}, say)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	base, _, _ := strings.Cut(*urls["users"], "/api/")
	fmt.Printf(`
The example is up. Try, in another terminal:

  curl %[1]s/api/users
  curl %[1]s/api/threads
  curl %[1]s/api/posts/in-thread/1
  curl -N %[1]s/api/posts/stream
  bin/neargate ps
  eval "$(bin/neargate env)" && aws ecs describe-services --cluster %[2]s --services users

Ctrl-C stops everything; the next start brings it back.
`, base, cluster)
	return nil
}

// push makes a repository and an image of nothing but the service's binary, and pushes it.
func push(ctx context.Context, c *client.Client, images, name, version string) (string, error) {
	repo, err := repository(ctx, c, name)
	if err != nil {
		return "", err
	}
	token, err := c.ECR.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return "", err
	}
	plain, err := base64.StdEncoding.DecodeString(aws.ToString(token.AuthorizationData[0].AuthorizationToken))
	if err != nil {
		return "", fmt.Errorf("authorization token: %w", err)
	}
	user, password, _ := strings.Cut(string(plain), ":")
	binary, err := os.ReadFile(filepath.Join(images, name))
	if err != nil {
		return "", fmt.Errorf("%w (make example builds it)", err)
	}
	image, err := ociclient.Build(ociclient.Config{Entrypoint: []string{"/service"}, ExposedPorts: []string{"3000/tcp"}},
		[]ociclient.File{ociclient.Executable("service", binary)})
	if err != nil {
		return "", err
	}
	ref := repo + ":" + version
	_, err = new(ociclient.Client).Push(ctx, ref, ociclient.Credentials{User: user, Password: password}, image)
	return ref, err
}

func repository(ctx context.Context, c *client.Client, name string) (uri string, err error) {
	made, err := c.ECR.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &name})
	if err == nil {
		return *made.Repository.RepositoryUri, nil
	}
	var exists *ecrtypes.RepositoryAlreadyExistsException
	if !errors.As(err, &exists) {
		return "", err
	}
	have, err := c.ECR.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{name}})
	if err != nil {
		return "", err
	}
	return *have.Repositories[0].RepositoryUri, nil
}
