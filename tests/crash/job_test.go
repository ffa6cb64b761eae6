package crash

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"github.com/seed-2f228079/neargate/client"
	"github.com/seed-2f228079/neargate/internal/ociclient"
)

const cluster = "crash"

// push makes a repository and an image in it that holds the server and, so that every image differs, a note.
func (p *platform) push(ctx context.Context, repository, tag, note string) (ref, digest string, err error) {
	made, err := p.ECR.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &repository})
	var uri string
	if err == nil {
		uri = *made.Repository.RepositoryUri
	} else if have, e := p.ECR.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{repository}}); e == nil {
		uri = *have.Repositories[0].RepositoryUri
	} else {
		return "", "", err
	}
	token, err := p.ECR.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return "", "", err
	}
	plain, err := base64.StdEncoding.DecodeString(*token.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		return "", "", err
	}
	user, password, _ := strings.Cut(string(plain), ":")
	layers := [][]ociclient.File{{ociclient.Text("note", note)}}
	if note == "" {
		binary, err := os.ReadFile(server)
		if err != nil {
			return "", "", err
		}
		layers = [][]ociclient.File{{ociclient.Executable("server", binary)}}
	}
	image, err := ociclient.Build(ociclient.Config{Entrypoint: []string{"/server"}}, layers...)
	if err != nil {
		return "", "", err
	}
	ref = uri + ":" + tag
	digest, err = new(ociclient.Client).Push(ctx, ref, ociclient.Credentials{User: user, Password: password}, image)
	return ref, digest, err
}

// deploy brings a service of the server up behind a load balancer.
func (p *platform) deploy(service string, count int32) (url string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*patience)
	defer cancel()
	image, _, err := p.push(ctx, "server", "v1", "")
	if err != nil {
		p.t.Fatalf("push: %v", err)
	}
	url, err = p.Deploy(ctx, client.Deployment{
		Name: service, Image: image, Cluster: cluster, Port: 3000, Count: count, CPU: 32, Memory: 32, StopTimeout: 2,
		LoadBalancer: "front", Paths: []string{"/" + service, "/" + service + "/*"}, HealthPath: "/",
	}, func(format string, args ...any) { p.t.Logf(format, args...) })
	if err != nil {
		p.t.Fatalf("deploy %s: %v", service, err)
	}
	return url
}

// tasks are the service's running tasks.
func (p *platform) tasks(service string) ([]ecstypes.Task, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	list, err := p.ECS.ListTasks(ctx, &ecs.ListTasksInput{Cluster: aws.String(cluster), ServiceName: &service})
	if err != nil || len(list.TaskArns) == 0 {
		return nil, err
	}
	out, err := p.ECS.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: aws.String(cluster), Tasks: list.TaskArns})
	if err != nil {
		return nil, err
	}
	return out.Tasks, nil
}

// identity is what must not change of a task whose container was adopted: the container's runtime id and what the program in it
// says of itself, asked at its host port.
func identity(t ecstypes.Task) (string, error) {
	if len(t.Containers) != 1 || len(t.Containers[0].NetworkBindings) != 1 {
		return "", fmt.Errorf("task %s is %s without a host port", *t.TaskArn, *t.LastStatus)
	}
	body, err := get(fmt.Sprintf("http://127.0.0.1:%d/", *t.Containers[0].NetworkBindings[0].HostPort), "")
	if err != nil {
		return "", err
	}
	return aws.ToString(t.Containers[0].RuntimeId) + " " + body, nil
}

// identities are those of count running tasks of the service, sorted.
func (p *platform) identities(service string, count int) ([]string, error) {
	tasks, err := p.tasks(service)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, t := range tasks {
		if *t.LastStatus != "RUNNING" {
			return nil, fmt.Errorf("task %s is %s", *t.TaskArn, *t.LastStatus)
		}
		id, err := identity(t)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	if len(out) != count {
		return nil, fmt.Errorf("service %s has %d running tasks, not %d", service, len(out), count)
	}
	slices.Sort(out)
	return out, nil
}

var web = &http.Client{Timeout: patience / 3, Transport: &http.Transport{DisableKeepAlives: true}}

// get is one request on a connection of its own. With a host, the request is for that name.
func get(url, host string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Host = host
	resp, err := web.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s %s", url, resp.Status, b)
	}
	return string(b), err
}

// balanced asks the load balancer, by its name at the platform's own port, for the service.
func (p *platform) balanced(service string) (string, error) {
	out, err := p.ELB.DescribeLoadBalancers(p.t.Context(), &elb.DescribeLoadBalancersInput{Names: []string{"front"}})
	if err != nil {
		return "", err
	}
	return get("http://"+p.listen+"/"+service, *out.LoadBalancers[0].DNSName)
}

// desired is the service's count.
func (p *platform) desired(service string) (int32, error) {
	out, err := p.ECS.DescribeServices(p.t.Context(), &ecs.DescribeServicesInput{Cluster: aws.String(cluster), Services: []string{service}})
	if err != nil {
		return 0, err
	}
	if len(out.Services) != 1 || *out.Services[0].Status != "ACTIVE" {
		return 0, fmt.Errorf("service %s is gone", service)
	}
	return out.Services[0].DesiredCount, nil
}

func mustIdentities(t *testing.T, p *platform, service string, count int) (ids []string) {
	t.Helper()
	eventually(t, patience, func() (err error) {
		ids, err = p.identities(service, count)
		return err
	})
	return ids
}

// mustAnswer wants one of these to answer at the task's host port while there is no platform.
func mustAnswer(t *testing.T, task ecstypes.Task, ids []string) {
	t.Helper()
	eventually(t, patience, func() error {
		id, err := identity(task)
		if err == nil && !slices.Contains(ids, id) {
			t.Fatalf("without the platform, a task's host port is answered by %q", id)
		}
		return err
	})
}

// stopped tells why tasks have stopped, for messages.
func (p *platform) stopped() string {
	list, err := p.ECS.ListTasks(p.t.Context(), &ecs.ListTasksInput{Cluster: aws.String(cluster), DesiredStatus: ecstypes.DesiredStatusStopped})
	if err != nil || len(list.TaskArns) == 0 {
		return fmt.Sprintf("stopped tasks: %v", err)
	}
	out, err := p.ECS.DescribeTasks(p.t.Context(), &ecs.DescribeTasksInput{Cluster: aws.String(cluster), Tasks: list.TaskArns})
	if err != nil {
		return err.Error()
	}
	s := "stopped tasks:\n"
	for _, t := range out.Tasks {
		s += fmt.Sprintf("%s %s %s: %s\n", *t.TaskArn, *t.LastStatus, t.StopCode, aws.ToString(t.StoppedReason))
		for _, c := range t.Containers {
			s += fmt.Sprintf("  container %s %s %v %s\n", *c.Name, *c.LastStatus, aws.ToInt32(c.ExitCode), aws.ToString(c.Reason))
		}
	}
	return s
}
