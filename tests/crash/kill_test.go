package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

var (
	rounds = flag.Int("rounds", 20, "how often the platform is killed")
	seed   = flag.Uint64("seed", 0, "of the load and the moments of the kills; 0: a new one")
)

func asError[T error](err error, target *T) bool { return errors.As(err, target) }

// TestKill kills the platform under load again and again. After each restart everything acknowledged is there, containers that ran
// run on as the same processes, services settle at their counts, and the machine holds exactly what live tasks need.
func TestKill(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	n := *rounds
	if testing.Short() {
		n = min(n, 4)
	}
	t.Logf("repeat with -run TestKill -seed %d", *seed)
	r := rand.New(rand.NewPCG(*seed, 99))
	p := newPlatform(t)
	p.start()
	p.deploy("steady", 2)
	w := newLoad(t, p)
	steady := mustIdentities(t, p, "steady", 2)
	tasks, err := p.tasks("steady")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for round := range n {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		w.killed.Store(false)
		chance := r.Uint64() // r is this goroutine's alone
		go func() {
			w.run(ctx, chance)
			close(done)
		}()
		time.Sleep(time.Duration(200+r.IntN(1500)) * time.Millisecond) // a moment of chance is the point
		w.killed.Store(true)
		p.kill()
		cancel()
		<-done
		for _, task := range tasks {
			mustAnswer(t, task, steady)
		}
		if r.IntN(3) == 0 { // again, while it recovers
			p.launch()
			time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
			p.kill()
		}
		p.start()
		checked += w.l.check(t, w.read)
		if now := mustIdentities(t, p, "steady", 2); !slices.Equal(steady, now) {
			t.Fatalf("round %d: containers before:\n%s\nafter:\n%s\n%s", round, strings.Join(steady, "\n"), strings.Join(now, "\n"), p.stopped())
		}
		eventually(t, patience, func() error {
			body, err := p.balanced("steady")
			if err == nil && !slices.ContainsFunc(steady, func(id string) bool { return strings.HasSuffix(id, body) }) {
				err = fmt.Errorf("the load balancer leads to %q", body)
			}
			return err
		})
		eventually(t, 3*patience, p.settled)
		if t.Failed() {
			t.Fatalf("round %d (seed %d)\n%s", round, *seed, p.out)
		}
	}
	t.Logf("%d kills, %d writes, %d facts checked", n, w.writes.Load(), checked)
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, p)
}

func newLoad(t *testing.T, p *platform) *load {
	t.Helper()
	ctx := t.Context()
	w := &load{p: p, l: newLedger()}
	lbs, err := p.ELB.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{Names: []string{"front"}})
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := p.ELB.DescribeListeners(ctx, &elb.DescribeListenersInput{LoadBalancerArn: lbs.LoadBalancers[0].LoadBalancerArn})
	if err != nil {
		t.Fatal(err)
	}
	w.listener = *listeners.Listeners[0].ListenerArn
	repositories, err := p.ECR.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{"server"}})
	if err != nil {
		t.Fatal(err)
	}
	w.image = *repositories.Repositories[0].RepositoryUri + ":v1"
	if _, err := p.ECS.RegisterTaskDefinition(ctx, definition("load", w.image, "")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"churn-0", "churn-1"} {
		out, err := p.ECS.CreateService(ctx, &ecs.CreateServiceInput{
			Cluster: aws.String(cluster), ServiceName: &name, TaskDefinition: aws.String("load"), DesiredCount: aws.Int32(1),
		})
		if err != nil {
			t.Fatal(err)
		}
		w.l.set("service "+name, "1")
		w.subject = *out.Service.ServiceArn
	}
	return w
}

// read is what the platform has now under a key of the ledger.
func (w *load) read(key string) (string, error) {
	ctx, cancel := context.WithTimeout(w.p.t.Context(), patience)
	defer cancel()
	kind, name, _ := strings.Cut(key, " ")
	switch kind {
	case "definition":
		out, err := w.p.ECS.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &name})
		if err != nil {
			return "", err
		}
		return *out.TaskDefinition.ContainerDefinitions[0].Environment[0].Value, nil
	case "service":
		out, err := w.p.ECS.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: aws.String(cluster), Services: []string{name}})
		if err != nil || len(out.Services) == 0 {
			return "", err
		}
		if *out.Services[0].Status != "ACTIVE" {
			return "gone", nil
		}
		return strconv.Itoa(int(out.Services[0].DesiredCount)), nil
	case "task":
		return w.readTask(ctx, key, name)
	case "repository":
		_, err := w.p.ECR.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{name}})
		var none *ecrtypes.RepositoryNotFoundException
		if asError(err, &none) {
			return "", nil
		}
		return "there", err
	case "image":
		repository, tag, _ := strings.Cut(name, ":")
		out, err := w.p.ECR.DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: &repository, ImageIds: []ecrtypes.ImageIdentifier{{ImageTag: &tag}}})
		if err != nil {
			return "", err
		}
		return *out.ImageDetails[0].ImageDigest, nil
	case "tag":
		out, err := w.p.ECS.ListTagsForResource(ctx, &ecs.ListTagsForResourceInput{ResourceArn: &w.subject})
		if err != nil {
			return "", err
		}
		for _, t := range out.Tags {
			if *t.Key == name {
				return *t.Value, nil
			}
		}
		return "", nil
	case "group":
		_, err := w.p.ELB.DescribeTargetGroups(ctx, &elb.DescribeTargetGroupsInput{Names: []string{name}})
		var none *elbtypes.TargetGroupNotFoundException
		if asError(err, &none) {
			return "", nil
		}
		return "there", err
	case "rule":
		rule, err := w.rule(ctx, name)
		if err != nil || rule == nil {
			return "", err
		}
		return aws.ToString(rule.Actions[0].TargetGroupArn), nil
	}
	return "", fmt.Errorf("nobody knows what a %s is", kind)
}

// readTask says of a task what its ledger says, if it is so: which of its states it is in now is not its client's doing.
func (w *load) readTask(ctx context.Context, key, arn string) (string, error) {
	out, err := w.p.ECS.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: aws.String(cluster), Tasks: []string{arn}})
	if err != nil {
		return "", err
	}
	if len(out.Tasks) == 0 {
		return "", nil
	}
	task, want := out.Tasks[0], w.l.acknowledged(key)
	switch {
	case *task.DesiredStatus == "RUNNING":
		if want == "stopped" {
			return "stays", nil
		}
		return want, nil
	case task.StopCode == ecstypes.TaskStopCodeUserInitiated:
		return "stopped", nil
	case want != "stays" && want != "stopped":
		if c := task.Containers[0]; *task.LastStatus != "STOPPED" || aws.ToInt32(c.ExitCode) == atoi(want) {
			return want, nil
		}
	}
	return fmt.Sprintf("%s: %s %s", *task.LastStatus, task.StopCode, aws.ToString(task.StoppedReason)), nil
}

func atoi(s string) int32 {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return int32(n)
}

// rule is the one whose path is the name, or nil.
func (w *load) rule(ctx context.Context, name string) (*elbtypes.Rule, error) {
	pages := elb.NewDescribeRulesPaginator(w.p.ELB, &elb.DescribeRulesInput{ListenerArn: &w.listener})
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range out.Rules {
			if len(r.Conditions) > 0 && slices.Equal(r.Conditions[0].Values, []string{"/" + name}) {
				return &r, nil
			}
		}
	}
	return nil, nil
}

// settled says what is not yet as it will be: counts of services, and on the machine exactly what live tasks need.
func (p *platform) settled() error {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	services := ecs.NewListServicesPaginator(p.ECS, &ecs.ListServicesInput{Cluster: aws.String(cluster), MaxResults: aws.Int32(10)})
	for services.HasMorePages() {
		page, err := services.NextPage(ctx)
		if err != nil {
			return err
		}
		if len(page.ServiceArns) == 0 {
			break
		}
		out, err := p.ECS.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: aws.String(cluster), Services: page.ServiceArns})
		if err != nil {
			return err
		}
		for _, s := range out.Services {
			if s.RunningCount != s.DesiredCount || s.PendingCount != 0 {
				return fmt.Errorf("service %s: %d running, %d pending, %d desired", *s.ServiceName, s.RunningCount, s.PendingCount, s.DesiredCount)
			}
		}
	}
	live, ports := []string{}, 0
	tasks := ecs.NewListTasksPaginator(p.ECS, &ecs.ListTasksInput{Cluster: aws.String(cluster)})
	for tasks.HasMorePages() {
		page, err := tasks.NextPage(ctx)
		if err != nil {
			return err
		}
		if len(page.TaskArns) == 0 {
			break
		}
		out, err := p.ECS.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: aws.String(cluster), Tasks: page.TaskArns})
		if err != nil {
			return err
		}
		for _, t := range out.Tasks {
			if *t.LastStatus != "RUNNING" {
				return fmt.Errorf("task %s is %s and should be %s", *t.TaskArn, *t.LastStatus, *t.DesiredStatus)
			}
			live = append(live, (*t.TaskArn)[strings.LastIndexByte(*t.TaskArn, '/')+1:])
			ports += len(t.Containers[0].NetworkBindings)
		}
	}
	slices.Sort(live)
	return look(p.t, p.dir).holds(live, ports)
}

// holds says what the machine has more or less than these running tasks of one container each need.
func (h host) holds(tasks []string, ports int) error {
	for what, have := range map[string][]string{
		"shims": slices.Sorted(maps.Keys(h.shims)), "containers": slices.Sorted(maps.Keys(h.containers)), "folders": h.folders, "cgroups": h.cgroups,
	} {
		if !slices.Equal(have, tasks) {
			return fmt.Errorf("%s are of tasks %v; running are %v", what, have, tasks)
		}
	}
	for _, task := range tasks {
		if len(h.shims[task]) != 1 || len(h.containers[task]) != 1 {
			return fmt.Errorf("task %s has shims %v and processes %v", task, h.shims[task], h.containers[task])
		}
	}
	if h.links != len(tasks) || h.forwards != ports || len(h.mounts) > 0 {
		return fmt.Errorf("%d links and %d forwarded ports for %d tasks with %d ports; mounts %v", h.links, h.forwards, len(tasks), ports, h.mounts)
	}
	return nil
}
