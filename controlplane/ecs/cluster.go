package ecs

import (
	"context"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// createCluster implements ecs:CreateCluster. Creating one that is there already answers with it.
func (s *Service) createCluster(ctx context.Context, in *ecs.CreateClusterInput) (*ecs.CreateClusterOutput, error) {
	name := aws.ToString(in.ClusterName)
	if name == "" {
		name = "default"
	}
	if !validName.MatchString(name) {
		return nil, invalid("Cluster name contains invalid characters.")
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	if err := s.checkExecLogging(in.Configuration); err != nil {
		return nil, err
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	var made *controlplane.Cluster
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		c, exists := controlplane.Clusters.Get(tx, scope.Key(name))
		if !exists || c.Status != active {
			c = &controlplane.Cluster{
				Account: scope.Account, Region: scope.Region, Name: name, Status: active,
				SettingsJson: controlplane.EncodeShape(in.Settings), ConfigurationJson: controlplane.EncodeShape(in.Configuration),
				Created: timestamppb.New(api.CallFrom(ctx).Time),
			}
			if in.ServiceConnectDefaults != nil {
				c.ServiceConnectNamespace = aws.ToString(in.ServiceConnectDefaults.Namespace)
			}
			if err := setProviders(c, in.CapacityProviders, in.DefaultCapacityProviderStrategy); err != nil {
				return err
			}
			controlplane.Clusters.Put(tx, c)
			controlplane.PutTags(tx, scope, c.ARN(), tags)
		}
		made = c
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.CreateClusterOutput{Cluster: s.shownCluster(made)}, nil
}

// shownCluster renders a cluster once its change is committed: rendering reads all its tasks, which must not become guards.
func (s *Service) shownCluster(c *controlplane.Cluster) *types.Cluster {
	return clusterShape(s.Store.View(), c, everything)
}

// describeClusters implements ecs:DescribeClusters.
func (s *Service) describeClusters(ctx context.Context, in *ecs.DescribeClustersInput) (*ecs.DescribeClustersOutput, error) {
	refs := in.Clusters
	if len(refs) == 0 {
		refs = []string{"default"}
	}
	if len(refs) > 100 {
		return nil, invalid("Clusters cannot have more than 100 elements.")
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	out := &ecs.DescribeClustersOutput{Clusters: []types.Cluster{}, Failures: []types.Failure{}}
	for _, ref := range refs {
		name, err := clusterName(scope, &ref)
		if err != nil {
			return nil, err
		}
		if c, ok := controlplane.Clusters.Get(v, scope.Key(name)); ok {
			out.Clusters = append(out.Clusters, *clusterShape(v, c, in.Include))
			continue
		}
		if !arn.Is(ref) {
			ref = scope.ClusterARN(name)
		}
		out.Failures = append(out.Failures, missing(ref))
	}
	return out, nil
}

// listClusters implements ecs:ListClusters.
func (s *Service) listClusters(ctx context.Context, in *ecs.ListClustersInput) (*ecs.ListClustersOutput, error) {
	size, err := pageSize(in.MaxResults, 100, 100)
	if err != nil {
		return nil, err
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := api.Page(ctx, s.Pages, in, size,
		func(after state.Key) iter.Seq[*controlplane.Cluster] {
			return filter(controlplane.Clusters.ScanFrom(v, scope.Key(), after),
				func(c *controlplane.Cluster) bool { return c.Status == active })
		}, controlplane.Clusters.Key)
	if err != nil {
		return nil, err
	}
	return &ecs.ListClustersOutput{ClusterArns: arns(page), NextToken: next}, nil
}

// deleteCluster implements ecs:DeleteCluster. The record stays INACTIVE, as ECS keeps it discoverable.
func (s *Service) deleteCluster(ctx context.Context, in *ecs.DeleteClusterInput) (*ecs.DeleteClusterOutput, error) {
	var deleted *controlplane.Cluster
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		c, err := cluster(tx, scope, in.Cluster)
		if err != nil {
			return err
		}
		for svc := range controlplane.Services.Scan(tx, scope.Key(c.Name)) {
			if svc.Status != inactive {
				return awserr.New("ClusterContainsServicesException", "The Cluster cannot be deleted while Services are active.")
			}
		}
		for range controlplane.LiveTasks.Scan(tx, scope.Key(c.Name)) {
			return awserr.New("ClusterContainsTasksException", "The Cluster cannot be deleted while Tasks are active.")
		}
		for ci := range controlplane.ContainerInstances.Scan(tx, scope.Key(c.Name)) {
			// A node that belongs to every cluster is in this one without anybody's doing: it leaves with the cluster.
			if n, ok := controlplane.Nodes.Get(tx, state.K(ci.Node)); ci.Status != inactive && !(ok && n.EveryCluster) {
				return awserr.New("ClusterContainsContainerInstancesException",
					"The Cluster cannot be deleted while Container Instances are active or draining.")
			}
			controlplane.ContainerInstances.Delete(tx, controlplane.ContainerInstances.Key(ci))
		}
		c = proto.CloneOf(c)
		c.Status = inactive
		controlplane.Clusters.Put(tx, c)
		controlplane.PutTags(tx, scope, c.ARN(), nil)
		deleted = c
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeleteClusterOutput{Cluster: s.shownCluster(deleted)}, nil
}

// updateCluster implements ecs:UpdateCluster.
func (s *Service) updateCluster(ctx context.Context, in *ecs.UpdateClusterInput) (*ecs.UpdateClusterOutput, error) {
	if err := refuse(in); err != nil {
		return nil, err
	}
	if err := s.checkExecLogging(in.Configuration); err != nil {
		return nil, err
	}
	c, err := s.changeCluster(ctx, in.Cluster, func(c *controlplane.Cluster) error {
		if in.Settings != nil {
			c.SettingsJson = controlplane.EncodeShape(in.Settings)
		}
		if in.Configuration != nil {
			c.ConfigurationJson = controlplane.EncodeShape(in.Configuration)
		}
		if in.ServiceConnectDefaults != nil {
			c.ServiceConnectNamespace = aws.ToString(in.ServiceConnectDefaults.Namespace)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.UpdateClusterOutput{Cluster: c}, nil
}

// updateClusterSettings implements ecs:UpdateClusterSettings.
func (s *Service) updateClusterSettings(ctx context.Context, in *ecs.UpdateClusterSettingsInput) (*ecs.UpdateClusterSettingsOutput, error) {
	c, err := s.changeCluster(ctx, in.Cluster, func(c *controlplane.Cluster) error {
		c.SettingsJson = controlplane.EncodeShape(in.Settings)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.UpdateClusterSettingsOutput{Cluster: c}, nil
}

// putClusterCapacityProviders implements ecs:PutClusterCapacityProviders.
func (s *Service) putClusterCapacityProviders(ctx context.Context, in *ecs.PutClusterCapacityProvidersInput) (*ecs.PutClusterCapacityProvidersOutput, error) {
	c, err := s.changeCluster(ctx, in.Cluster, func(c *controlplane.Cluster) error {
		return setProviders(c, in.CapacityProviders, in.DefaultCapacityProviderStrategy)
	})
	if err != nil {
		return nil, err
	}
	return &ecs.PutClusterCapacityProvidersOutput{Cluster: c}, nil
}

func (s *Service) changeCluster(ctx context.Context, ref *string, change func(*controlplane.Cluster) error) (*types.Cluster, error) {
	var changed *controlplane.Cluster
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		c, err := cluster(tx, scope, ref)
		if err != nil {
			return err
		}
		c = proto.CloneOf(c)
		if err := change(c); err != nil {
			return err
		}
		controlplane.Clusters.Put(tx, c)
		changed = c
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.shownCluster(changed), nil
}

// everything is what create, update and delete show.
var everything = []types.ClusterField{types.ClusterFieldSettings, types.ClusterFieldConfigurations, types.ClusterFieldTags}

func clusterShape(r state.Reader, c *controlplane.Cluster, include []types.ClusterField) *types.Cluster {
	counts := countCluster(r, c)
	out := &types.Cluster{
		ClusterArn: aws.String(c.ARN()), ClusterName: aws.String(c.Name), Status: aws.String(c.Status),
		RegisteredContainerInstancesCount: counts.instances,
		RunningTasksCount:                 counts.running[""], PendingTasksCount: counts.pending[""],
		ActiveServicesCount: counts.activeServices[""],
		CapacityProviders:   append([]string{}, c.CapacityProviders...), Settings: []types.ClusterSetting{},
		DefaultCapacityProviderStrategy: append([]types.CapacityProviderStrategyItem{}, decode[[]types.CapacityProviderStrategyItem](c.DefaultStrategyJson)...),
		Statistics:                      []types.KeyValuePair{}, Tags: []types.Tag{},
	}
	if c.ServiceConnectNamespace != "" {
		out.ServiceConnectDefaults = &types.ClusterServiceConnectDefaults{Namespace: aws.String(c.ServiceConnectNamespace)}
	}
	for _, field := range include {
		switch field {
		case types.ClusterFieldSettings:
			out.Settings = append(out.Settings, decode[[]types.ClusterSetting](c.SettingsJson)...)
			if len(out.Settings) == 0 {
				out.Settings = []types.ClusterSetting{{Name: types.ClusterSettingNameContainerInsights, Value: aws.String("disabled")}}
			}
		case types.ClusterFieldConfigurations:
			out.Configuration = decode[*types.ClusterConfiguration](c.ConfigurationJson)
		case types.ClusterFieldTags:
			out.Tags = tagList(controlplane.TagsOf(r, c.Scope(), c.ARN()))
		case types.ClusterFieldStatistics:
			out.Statistics = counts.statistics()
		}
	}
	return out
}

// clusterCounts are by launch type; "" is the sum.
type clusterCounts struct {
	instances                                          int32
	running, pending, activeServices, drainingServices map[types.LaunchType]int32
}

func countCluster(r state.Reader, c *controlplane.Cluster) clusterCounts {
	n := clusterCounts{
		running: map[types.LaunchType]int32{}, pending: map[types.LaunchType]int32{},
		activeServices: map[types.LaunchType]int32{}, drainingServices: map[types.LaunchType]int32{},
	}
	key := c.Scope().Key(c.Name)
	for ci := range controlplane.ContainerInstances.Scan(r, key) {
		if ci.Status == active || ci.Status == draining {
			n.instances++
		}
	}
	add := func(m map[types.LaunchType]int32, launch string) {
		m[""]++
		m[types.LaunchType(launch)]++
	}
	for st := range controlplane.LiveTasks.Scan(r, key) {
		t, ok := controlplane.Tasks.Get(r, controlplane.TaskStatuses.Key(st))
		if !ok {
			continue
		}
		switch {
		case st.Observed == agentapi.TaskState_RUNNING:
			add(n.running, t.LaunchType)
		case st.Observed < agentapi.TaskState_RUNNING:
			add(n.pending, t.LaunchType)
		}
	}
	for svc := range controlplane.Services.Scan(r, key) {
		launch := svc.LaunchType
		if launch == "" && len(svc.CapacityProviderStrategyJson) > 0 {
			launch = string(types.LaunchTypeFargate)
		}
		switch svc.Status {
		case active:
			add(n.activeServices, launch)
		case draining:
			add(n.drainingServices, launch)
		}
	}
	return n
}

func (n clusterCounts) statistics() []types.KeyValuePair {
	list := []types.KeyValuePair{}
	add := func(name string, count int32) {
		list = append(list, types.KeyValuePair{Name: aws.String(name), Value: aws.String(strconv.Itoa(int(count)))})
	}
	for _, l := range []struct {
		launch types.LaunchType
		word   string
	}{{types.LaunchTypeEc2, "EC2"}, {types.LaunchTypeFargate, "Fargate"}, {types.LaunchTypeExternal, "External"}} {
		add("running"+l.word+"TasksCount", n.running[l.launch])
		add("pending"+l.word+"TasksCount", n.pending[l.launch])
		add("active"+l.word+"ServiceCount", n.activeServices[l.launch])
		add("draining"+l.word+"ServiceCount", n.drainingServices[l.launch])
	}
	slices.SortFunc(list, func(a, b types.KeyValuePair) int { return strings.Compare(*a.Name, *b.Name) })
	return list
}
