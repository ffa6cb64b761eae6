package ecs

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// Operations is the family's table, in alphabetical order.
func (s *Service) Operations() []api.Operation {
	return []api.Operation{
		api.Write(s.createCluster, api.Route("POST /clusters")),
		api.Write(s.createService, api.Route("POST /clusters/{cluster}/services"), api.Resource(func(c *api.Call, in *ecs.CreateServiceInput) string {
			return named(c, "service", in.Cluster, in.ServiceName)
		})),
		api.Write(s.deleteAccountSetting),
		api.Write(s.deleteAttributes, api.Resource(func(c *api.Call, in *ecs.DeleteAttributesInput) string {
			return attributesARN(c, in.Cluster, in.Attributes)
		})),
		api.Write(s.deleteCluster, api.Route("DELETE /clusters/{cluster}"), api.Resource(func(c *api.Call, in *ecs.DeleteClusterInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Write(s.deleteService, api.Route("DELETE /clusters/{cluster}/services/{service}"), api.Resource(func(c *api.Call, in *ecs.DeleteServiceInput) string {
			return named(c, "service", in.Cluster, in.Service)
		})),
		api.Write(s.deleteTaskDefinitions),
		api.Write(s.deregisterTaskDefinition, api.Route("DELETE /task-definitions/{taskDefinition}")),
		api.Read(s.describeCapacityProviders, api.Route("GET /capacity-providers")),
		api.Read(s.describeClusters),
		api.Read(s.describeContainerInstances),
		api.Read(s.describeServices),
		api.Read(s.describeTaskDefinition, api.Route("GET /task-definitions/{taskDefinition}")),
		api.Read(s.describeTasks),
		api.Read(s.getTaskProtection, api.Resource(func(c *api.Call, in *ecs.GetTaskProtectionInput) string { return clusterARN(c, in.Cluster) })),
		api.Read(s.listAccountSettings, api.Route("GET /account-settings")),
		api.Read(s.listAttributes, api.Route("GET /clusters/{cluster}/attributes"), api.Resource(func(c *api.Call, in *ecs.ListAttributesInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Read(s.listClusters, api.Route("GET /clusters")),
		api.Read(s.listContainerInstances, api.Route("GET /clusters/{cluster}/container-instances"), api.Resource(func(c *api.Call, in *ecs.ListContainerInstancesInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Read(s.listServices, api.Route("GET /clusters/{cluster}/services")),
		api.Read(s.listTagsForResource),
		api.Read(s.listTaskDefinitionFamilies, api.Route("GET /task-definition-families")),
		api.Read(s.listTaskDefinitions, api.Route("GET /task-definitions")),
		api.Read(s.listTasks, api.Route("GET /clusters/{cluster}/tasks")),
		api.Write(s.putAccountSetting),
		api.Write(s.putAccountSettingDefault),
		api.Write(s.putAttributes, api.Resource(func(c *api.Call, in *ecs.PutAttributesInput) string {
			return attributesARN(c, in.Cluster, in.Attributes)
		})),
		api.Write(s.putClusterCapacityProviders, api.Route("PUT /clusters/{cluster}/capacity-providers"), api.Resource(func(c *api.Call, in *ecs.PutClusterCapacityProvidersInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Write(s.registerTaskDefinition, api.Route("POST /task-definitions")),
		api.Write(s.runTask, api.Route("POST /clusters/{cluster}/tasks"), api.Resource(func(c *api.Call, in *ecs.RunTaskInput) string {
			return definitionARN(c, in.TaskDefinition)
		})),
		api.Write(s.startTask, api.Resource(func(c *api.Call, in *ecs.StartTaskInput) string {
			return definitionARN(c, in.TaskDefinition)
		})),
		api.Write(s.stopTask, api.Route("DELETE /clusters/{cluster}/tasks/{task}"), api.Resource(func(c *api.Call, in *ecs.StopTaskInput) string {
			return named(c, "task", in.Cluster, in.Task)
		})),
		api.Write(s.tagResource, api.Resource(func(_ *api.Call, in *ecs.TagResourceInput) string { return aws.ToString(in.ResourceArn) })),
		api.Write(s.untagResource, api.Resource(func(_ *api.Call, in *ecs.UntagResourceInput) string { return aws.ToString(in.ResourceArn) })),
		api.Write(s.updateCluster, api.Route("PATCH /clusters/{cluster}"), api.Resource(func(c *api.Call, in *ecs.UpdateClusterInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Write(s.updateClusterSettings, api.Resource(func(c *api.Call, in *ecs.UpdateClusterSettingsInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Write(s.updateContainerInstancesState),
		api.Write(s.updateService, api.Route("PATCH /clusters/{cluster}/services/{service}"), api.Resource(func(c *api.Call, in *ecs.UpdateServiceInput) string {
			return named(c, "service", in.Cluster, in.Service)
		})),
		api.Write(s.updateTaskProtection, api.Resource(func(c *api.Call, in *ecs.UpdateTaskProtectionInput) string { return clusterARN(c, in.Cluster) })),
	}
}

// The names that policies are held against. A reference that names nothing valid is refused by the handler; until then it is
// rendered as it is.

func clusterARN(c *api.Call, ref *string) string {
	scope := controlplane.Scope{Account: c.Account, Region: c.Region}
	name, err := clusterName(scope, ref)
	if err != nil {
		return aws.ToString(ref)
	}
	return scope.ClusterARN(name)
}

// attributesARN is the instance that the attributes are of; the cluster when there is none.
func attributesARN(c *api.Call, cluster *string, attributes []types.Attribute) string {
	if len(attributes) == 0 {
		return clusterARN(c, cluster)
	}
	return named(c, "container-instance", cluster, attributes[0].TargetId)
}

func named(c *api.Call, kind string, cluster, ref *string) string {
	scope := controlplane.Scope{Account: c.Account, Region: c.Region}
	of, err := clusterName(scope, cluster)
	if err != nil {
		return aws.ToString(cluster)
	}
	name, err := member(scope, kind, of, aws.ToString(ref))
	if err != nil {
		return aws.ToString(ref)
	}
	return arn.New("ecs", c.Region, c.Account, kind+"/"+of+"/"+name).String()
}

func definitionARN(c *api.Call, ref *string) string {
	name := aws.ToString(ref)
	if arn.Is(name) {
		return name
	}
	return controlplane.Scope{Account: c.Account, Region: c.Region}.TaskDefinitionARN(name)
}
