package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// Task is a line of `neargate ps`.
type Task struct {
	ID         string    `json:"id"`
	Cluster    string    `json:"cluster"`
	Group      string    `json:"group"`
	Definition string    `json:"taskDefinition"` // family:revision
	Status     string    `json:"status"`
	Desired    string    `json:"desiredStatus"`
	Ports      string    `json:"ports"` // "127.0.0.1:32768->3000/tcp"
	Created    time.Time `json:"createdAt"`
	Reason     string    `json:"reason,omitempty"` // why it stopped
}

// Clusters lists the names of all clusters.
func (c *Client) Clusters(ctx context.Context) ([]string, error) {
	var names []string
	for p := ecs.NewListClustersPaginator(c.ECS, &ecs.ListClustersInput{}); p.HasMorePages(); {
		out, err := p.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, a := range out.ClusterArns {
			names = append(names, a[strings.LastIndexByte(a, '/')+1:])
		}
	}
	return names, nil
}

// Tasks lists the tasks of a cluster; stopped ones too, if asked.
func (c *Client) Tasks(ctx context.Context, cluster string, stopped bool) ([]Task, error) {
	states := []ecstypes.DesiredStatus{ecstypes.DesiredStatusRunning}
	if stopped {
		states = append(states, ecstypes.DesiredStatusStopped)
	}
	var tasks []Task
	for _, s := range states {
		for p := ecs.NewListTasksPaginator(c.ECS, &ecs.ListTasksInput{Cluster: &cluster, DesiredStatus: s}); p.HasMorePages(); {
			out, err := p.NextPage(ctx)
			if err != nil {
				return nil, err
			}
			if len(out.TaskArns) == 0 {
				continue
			}
			d, err := c.ECS.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &cluster, Tasks: out.TaskArns})
			if err != nil {
				return nil, err
			}
			for _, t := range d.Tasks {
				tasks = append(tasks, taskLine(cluster, t))
			}
		}
	}
	return tasks, nil
}

func taskLine(cluster string, t ecstypes.Task) Task {
	l := Task{
		ID: lastPart(aws.ToString(t.TaskArn)), Cluster: cluster, Group: aws.ToString(t.Group), Definition: lastPart(aws.ToString(t.TaskDefinitionArn)),
		Status: aws.ToString(t.LastStatus), Desired: aws.ToString(t.DesiredStatus), Created: aws.ToTime(t.CreatedAt), Reason: aws.ToString(t.StoppedReason),
	}
	var ports []string
	for _, con := range t.Containers {
		for _, b := range con.NetworkBindings {
			host, inside := fmt.Sprint(aws.ToInt32(b.HostPort)), fmt.Sprint(aws.ToInt32(b.ContainerPort))
			if b.ContainerPortRange != nil {
				host, inside = aws.ToString(b.HostPortRange), *b.ContainerPortRange
			}
			ports = append(ports, fmt.Sprintf("%s:%s->%s/%s", aws.ToString(b.BindIP), host, inside, b.Protocol))
		}
	}
	l.Ports = strings.Join(ports, " ")
	return l
}

func lastPart(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

// FindTask turns an id, an unambiguous beginning of one, or an ARN into the full id, looking in all clusters when none is given.
func (c *Client) FindTask(ctx context.Context, cluster, task string) (Task, error) {
	task = lastPart(task)
	clusters := []string{cluster}
	if cluster == "" {
		var err error
		if clusters, err = c.Clusters(ctx); err != nil {
			return Task{}, err
		}
	}
	var found []Task
	for _, cl := range clusters {
		all, err := c.Tasks(ctx, cl, true)
		if err != nil {
			return Task{}, err
		}
		for _, t := range all {
			if strings.HasPrefix(t.ID, task) {
				found = append(found, t)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Task{}, fmt.Errorf("no task %q in %s; neargate ps -a lists them", task, strings.Join(clusters, ", "))
	}
	return Task{}, fmt.Errorf("%d tasks begin with %q; give more of the id", len(found), task)
}

// Run registers a one-container task definition of image and runs it once.
func (c *Client) Run(ctx context.Context, d Deployment) (Task, error) {
	if _, err := c.ECS.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: &d.Cluster}); err != nil {
		return Task{}, err
	}
	def, err := c.register(ctx, d)
	if err != nil {
		return Task{}, err
	}
	out, err := c.ECS.RunTask(ctx, &ecs.RunTaskInput{Cluster: &d.Cluster, TaskDefinition: def.TaskDefinitionArn, LaunchType: ecstypes.LaunchTypeEc2, EnableExecuteCommand: d.Exec})
	if err != nil {
		return Task{}, err
	}
	if len(out.Failures) > 0 {
		f := out.Failures[0]
		return Task{}, fmt.Errorf("not placed: %s %s", aws.ToString(f.Reason), aws.ToString(f.Detail))
	}
	if len(out.Tasks) == 0 {
		return Task{}, errors.New("the platform answered without a task and without a failure")
	}
	return taskLine(d.Cluster, out.Tasks[0]), nil
}

// Ended is how a task came to its end.
type Ended struct {
	ExitCode int    `json:"exitCode"` // of the first essential container
	Reason   string `json:"reason"`
}

// WaitStopped returns once the task is STOPPED.
func (c *Client) WaitStopped(ctx context.Context, t Task) (Ended, error) {
	for {
		out, err := c.ECS.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &t.Cluster, Tasks: []string{t.ID}})
		if err != nil {
			return Ended{}, err
		}
		if len(out.Tasks) == 0 {
			return Ended{}, fmt.Errorf("task %s is gone", t.ID)
		}
		if d := out.Tasks[0]; aws.ToString(d.LastStatus) == "STOPPED" {
			e := Ended{ExitCode: 255, Reason: aws.ToString(d.StoppedReason)}
			for _, con := range d.Containers {
				if con.ExitCode != nil {
					e.ExitCode = int(*con.ExitCode)
					break
				}
			}
			return e, nil
		}
		select {
		case <-ctx.Done():
			return Ended{}, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop asks for the end of a task.
func (c *Client) Stop(ctx context.Context, t Task, reason string) error {
	_, err := c.ECS.StopTask(ctx, &ecs.StopTaskInput{Cluster: &t.Cluster, Task: &t.ID, Reason: &reason})
	return err
}

// StopService scales a service to nothing and deletes it.
func (c *Client) StopService(ctx context.Context, cluster, name string) error {
	_, err := c.ECS.DeleteService(ctx, &ecs.DeleteServiceInput{Cluster: &cluster, Service: &name, Force: aws.Bool(true)})
	return err
}
