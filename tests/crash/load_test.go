package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// load is clients that write without a pause, one goroutine for each kind of thing.
type load struct {
	p        *platform
	l        *ledger
	image    string // of the server
	listener string
	subject  string // ARN of what is tagged
	serial   atomic.Int64
	writes   atomic.Int64
	killed   atomic.Bool // from then on errors are to be expected
}

func (w *load) next() string { return strconv.FormatInt(w.serial.Add(1), 10) }

// run writes until ctx ends. An error while the platform lives fails the test.
func (w *load) run(ctx context.Context, seed uint64) {
	var wg sync.WaitGroup
	for i, write := range []func(context.Context, *rand.Rand) error{w.definitions, w.counts, w.services, w.tasks, w.images, w.tags, w.rules} {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for ctx.Err() == nil {
				if err := write(ctx, r); err != nil {
					if !w.killed.Load() && ctx.Err() == nil {
						w.p.t.Errorf("under load: %v", err)
					}
					return
				}
				w.writes.Add(1)
			}
		})
	}
	wg.Wait()
}

func (w *load) definitions(ctx context.Context, r *rand.Rand) error {
	value := strconv.FormatUint(r.Uint64(), 36)
	out, err := w.p.ECS.RegisterTaskDefinition(ctx, definition("load-"+strconv.Itoa(r.IntN(3)), w.image, value))
	if err == nil {
		w.l.set("definition "+*out.TaskDefinition.TaskDefinitionArn, value)
	}
	return err
}

func definition(family, image, value string) *ecs.RegisterTaskDefinitionInput {
	return &ecs.RegisterTaskDefinitionInput{Family: &family, ContainerDefinitions: []ecstypes.ContainerDefinition{{
		Name: aws.String("server"), Image: &image, Memory: aws.Int32(32), Essential: aws.Bool(true), StopTimeout: aws.Int32(2),
		Environment: []ecstypes.KeyValuePair{{Name: aws.String("VALUE"), Value: &value}},
	}}}
}

// counts updates the two services that live throughout.
func (w *load) counts(ctx context.Context, r *rand.Rand) error {
	name, n := "churn-"+strconv.Itoa(r.IntN(2)), int32(r.IntN(3))
	return w.l.change("service "+name, strconv.Itoa(int(n)), func() error {
		_, err := w.p.ECS.UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: aws.String(cluster), Service: &name, DesiredCount: &n})
		pause(ctx, 50*time.Millisecond)
		return err
	})
}

// services creates one and deletes another.
func (w *load) services(ctx context.Context, r *rand.Rand) error {
	name := "new-" + w.next()
	err := w.l.change("service "+name, "1", func() error {
		_, err := w.p.ECS.CreateService(ctx, &ecs.CreateServiceInput{
			Cluster: aws.String(cluster), ServiceName: &name, TaskDefinition: aws.String("load"), DesiredCount: aws.Int32(1),
		})
		return err
	})
	if err != nil {
		return err
	}
	pause(ctx, time.Duration(r.IntN(300))*time.Millisecond)
	return w.l.change("service "+name, "gone", func() error {
		_, err := w.p.ECS.DeleteService(ctx, &ecs.DeleteServiceInput{Cluster: aws.String(cluster), Service: &name, Force: aws.Bool(true)})
		return err
	})
}

// tasks runs one that exits, and one that stays until it is stopped.
func (w *load) tasks(ctx context.Context, r *rand.Rand) error {
	run := func(command ...string) (string, error) {
		out, err := w.p.ECS.RunTask(ctx, &ecs.RunTaskInput{
			Cluster: aws.String(cluster), TaskDefinition: aws.String("load"),
			Overrides: &ecstypes.TaskOverride{ContainerOverrides: []ecstypes.ContainerOverride{{Name: aws.String("server"), Command: command}}},
		})
		if err != nil {
			return "", err
		}
		if len(out.Tasks) != 1 {
			return "", fmt.Errorf("RunTask: %v", out.Failures)
		}
		return *out.Tasks[0].TaskArn, nil
	}
	code := strconv.Itoa(r.IntN(100))
	arn, err := run(code)
	if err != nil {
		return err
	}
	w.l.set("task "+arn, code)
	if arn, err = run(); err != nil {
		return err
	}
	w.l.set("task "+arn, "stays")
	pause(ctx, time.Duration(r.IntN(600))*time.Millisecond)
	return w.l.change("task "+arn, "stopped", func() error {
		_, err := w.p.ECS.StopTask(ctx, &ecs.StopTaskInput{Cluster: aws.String(cluster), Task: &arn})
		return err
	})
}

func (w *load) images(ctx context.Context, r *rand.Rand) error {
	repository := "load-" + strconv.Itoa(r.IntN(40))
	if err := w.l.change("repository "+repository, "there", func() error {
		_, err := w.p.ECR.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &repository})
		var exists *ecrtypes.RepositoryAlreadyExistsException
		if asError(err, &exists) {
			return nil
		}
		return err
	}); err != nil {
		return err
	}
	tag := "t" + w.next()
	_, digest, err := w.p.push(ctx, repository, tag, strconv.FormatUint(r.Uint64(), 36))
	if err == nil {
		w.l.set("image "+repository+":"+tag, digest)
	}
	return err
}

func (w *load) tags(ctx context.Context, r *rand.Rand) error {
	key, value := "k"+strconv.Itoa(r.IntN(10)), strconv.FormatUint(r.Uint64(), 36)
	return w.l.change("tag "+key, value, func() error {
		_, err := w.p.ECS.TagResource(ctx, &ecs.TagResourceInput{ResourceArn: &w.subject, Tags: []ecstypes.Tag{{Key: &key, Value: &value}}})
		return err
	})
}

// rules makes a target group and a rule that leads to it, and mostly removes both again. Of those that stay, one goes once there are
// as many as maxRules: a load balancer has at most 100.
func (w *load) rules(ctx context.Context, r *rand.Rand) error {
	if kept := w.l.holding("rule "); len(kept) >= maxRules {
		if err := w.dropRule(ctx, kept[r.IntN(len(kept))]); err != nil {
			return err
		}
	}
	n := w.next()
	name := "load-" + n
	vpcs, err := w.p.EC2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{})
	if err != nil {
		return err
	}
	var group string
	if err := w.l.change("group "+name, "there", func() error {
		out, err := w.p.ELB.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{
			Name: &name, Protocol: elbtypes.ProtocolEnumHttp, Port: aws.Int32(80), VpcId: vpcs.Vpcs[0].VpcId,
		})
		if err == nil {
			group = *out.TargetGroups[0].TargetGroupArn
		}
		return err
	}); err != nil {
		return err
	}
	priority := 1000 + int32(w.serial.Load())
	if err := w.l.change("rule "+name, group, func() error {
		_, err := w.p.ELB.CreateRule(ctx, &elb.CreateRuleInput{
			ListenerArn: &w.listener, Priority: &priority,
			Conditions: []elbtypes.RuleCondition{{Field: aws.String("path-pattern"), Values: []string{"/" + name}}},
			Actions:    []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: &group}},
		})
		return err
	}); err != nil || r.IntN(4) == 0 { // some stay
		return err
	}
	return w.dropRule(ctx, name)
}

const maxRules = 40

// dropRule removes the rule of a name, and its target group.
func (w *load) dropRule(ctx context.Context, name string) error {
	rule, err := w.rule(ctx, name)
	if err != nil {
		return err
	}
	if rule == nil {
		return fmt.Errorf("the rule %s is gone", name)
	}
	if err := w.l.change("rule "+name, "", func() error {
		_, err := w.p.ELB.DeleteRule(ctx, &elb.DeleteRuleInput{RuleArn: rule.RuleArn})
		return err
	}); err != nil {
		return err
	}
	return w.l.change("group "+name, "", func() error {
		_, err := w.p.ELB.DeleteTargetGroup(ctx, &elb.DeleteTargetGroupInput{TargetGroupArn: rule.Actions[0].TargetGroupArn})
		return err
	})
}

// pause spaces out what starts containers, of which a machine takes only so many.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
