package ecs

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/seed-2f228079/neargate/api"
)

// Operations is the family's table, in alphabetical order.
func (s *Service) Operations() []api.Operation {
	table := []api.Operation{
		api.Write(s.createCluster, api.Route("POST /clusters"), api.Resource(func(c *api.Call, in *ecs.CreateClusterInput) string {
			return clusterARN(c, in.ClusterName)
		})),
		api.Write(s.createService, api.Route("POST /clusters/{cluster}/services"), api.Resource(func(c *api.Call, in *ecs.CreateServiceInput) string {
			return named(c, "service", in.Cluster, in.ServiceName)
		})),
		api.Write(s.deleteAccountSetting),
		api.Write(s.deleteAttributes, api.Resources(func(c *api.Call, in *ecs.DeleteAttributesInput) []string {
			return attributesARNs(c, in.Cluster, in.Attributes)
		})),
		api.Write(s.deleteCluster, api.Route("DELETE /clusters/{cluster}"), api.Resource(func(c *api.Call, in *ecs.DeleteClusterInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Write(s.deleteService, api.Route("DELETE /clusters/{cluster}/services/{service}"), api.Resource(func(c *api.Call, in *ecs.DeleteServiceInput) string {
			return named(c, "service", in.Cluster, in.Service)
		})),
		api.Write(s.deleteTaskDefinitions, api.Resources(func(c *api.Call, in *ecs.DeleteTaskDefinitionsInput) []string {
			return each(in.TaskDefinitions, func(ref *string) string { return s.definitionARN(c, ref) })
		})),
		api.Write(s.deregisterContainerInstance, api.Route("DELETE /clusters/{cluster}/container-instances/{containerInstance}"),
			api.Resource(func(c *api.Call, in *ecs.DeregisterContainerInstanceInput) string {
				return named(c, "container-instance", in.Cluster, in.ContainerInstance)
			})),
		api.Write(s.deregisterTaskDefinition, api.Route("DELETE /task-definitions/{taskDefinition}")),
		api.Read(s.describeCapacityProviders, api.Route("GET /capacity-providers"), api.Resources(func(c *api.Call, in *ecs.DescribeCapacityProvidersInput) []string {
			return each(in.CapacityProviders, func(ref *string) string { return capacityProviderARN(c, ref) })
		})),
		api.Read(s.describeClusters, api.Resources(func(c *api.Call, in *ecs.DescribeClustersInput) []string {
			if len(in.Clusters) == 0 {
				return []string{clusterARN(c, nil)}
			}
			return each(in.Clusters, func(ref *string) string { return clusterARN(c, ref) })
		})),
		api.Read(s.describeContainerInstances, api.Resources(func(c *api.Call, in *ecs.DescribeContainerInstancesInput) []string {
			return each(in.ContainerInstances, func(ref *string) string { return named(c, "container-instance", in.Cluster, ref) })
		})),
		api.Read(s.describeServiceDeployments, api.Resources(func(_ *api.Call, in *ecs.DescribeServiceDeploymentsInput) []string { return in.ServiceDeploymentArns })),
		api.Read(s.describeServiceRevisions, api.Resources(func(_ *api.Call, in *ecs.DescribeServiceRevisionsInput) []string { return in.ServiceRevisionArns })),
		api.Read(s.describeServices, api.Resources(func(c *api.Call, in *ecs.DescribeServicesInput) []string {
			return each(in.Services, func(ref *string) string { return named(c, "service", in.Cluster, ref) })
		})),
		api.Read(s.describeTaskDefinition, api.Route("GET /task-definitions/{taskDefinition}")),
		api.Read(s.describeTasks, api.Resources(func(c *api.Call, in *ecs.DescribeTasksInput) []string {
			return each(in.Tasks, func(ref *string) string { return named(c, "task", in.Cluster, ref) })
		})),
		api.Read(s.discoverPollEndpoint),
		api.Read(s.executeCommand, api.Route("POST /clusters/{cluster}/tasks/{task}/commands"), api.Resource(func(c *api.Call, in *ecs.ExecuteCommandInput) string {
			return named(c, "task", in.Cluster, in.Task)
		})),
		api.Read(s.getTaskProtection, api.Resources(func(c *api.Call, in *ecs.GetTaskProtectionInput) []string {
			return each(in.Tasks, func(ref *string) string { return named(c, "task", in.Cluster, ref) })
		})),
		api.Read(s.listAccountSettings, api.Route("GET /account-settings")),
		api.Read(s.listAttributes, api.Route("GET /clusters/{cluster}/attributes"), api.Resource(func(c *api.Call, in *ecs.ListAttributesInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Read(s.listClusters, api.Route("GET /clusters")),
		api.Read(s.listContainerInstances, api.Route("GET /clusters/{cluster}/container-instances"), api.Resource(func(c *api.Call, in *ecs.ListContainerInstancesInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Read(s.listServiceDeployments, api.Route("GET /clusters/{cluster}/services/{service}/deployments"), api.Resource(func(c *api.Call, in *ecs.ListServiceDeploymentsInput) string {
			return named(c, "service", in.Cluster, in.Service)
		})),
		api.Read(s.listServices, api.Route("GET /clusters/{cluster}/services")),
		api.Read(s.listServicesByNamespace),
		api.Read(s.listTagsForResource, api.Resource(func(_ *api.Call, in *ecs.ListTagsForResourceInput) string { return aws.ToString(in.ResourceArn) })),
		api.Read(s.listTaskDefinitionFamilies, api.Route("GET /task-definition-families")),
		api.Read(s.listTaskDefinitions, api.Route("GET /task-definitions")),
		api.Read(s.listTasks, api.Route("GET /clusters/{cluster}/tasks"), api.Resources(func(c *api.Call, in *ecs.ListTasksInput) []string {
			if in.ContainerInstance == nil { // then it can only be scoped by ecs:cluster
				return nil
			}
			return []string{named(c, "container-instance", in.Cluster, in.ContainerInstance)}
		})),
		api.Write(s.putAccountSetting),
		api.Write(s.putAccountSettingDefault),
		api.Write(s.putAttributes, api.Resources(func(c *api.Call, in *ecs.PutAttributesInput) []string {
			return attributesARNs(c, in.Cluster, in.Attributes)
		})),
		api.Write(s.putClusterCapacityProviders, api.Route("PUT /clusters/{cluster}/capacity-providers"), api.Resource(func(c *api.Call, in *ecs.PutClusterCapacityProvidersInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Write(s.registerContainerInstance, api.Resource(func(c *api.Call, in *ecs.RegisterContainerInstanceInput) string {
			return clusterARN(c, in.Cluster)
		}), api.Tagged(func(c *api.Call, in *ecs.RegisterContainerInstanceInput) string {
			return named(c, "container-instance", in.Cluster, aws.String("*"))
		})),
		api.Write(s.registerTaskDefinition, api.Route("POST /task-definitions"), api.Tagged(func(c *api.Call, in *ecs.RegisterTaskDefinitionInput) string {
			return callScope(c).TaskDefinitionARN(aws.ToString(in.Family) + ":*")
		})),
		api.Write(s.runTask, api.Route("POST /clusters/{cluster}/tasks"), api.Resource(func(c *api.Call, in *ecs.RunTaskInput) string {
			return s.definitionARN(c, in.TaskDefinition)
		}), api.Tagged(func(c *api.Call, in *ecs.RunTaskInput) string { return named(c, "task", in.Cluster, aws.String("*")) })),
		api.Write(s.startTask, api.Resource(func(c *api.Call, in *ecs.StartTaskInput) string {
			return s.definitionARN(c, in.TaskDefinition)
		}), api.Tagged(func(c *api.Call, in *ecs.StartTaskInput) string { return named(c, "task", in.Cluster, aws.String("*")) })),
		api.Write(s.stopServiceDeployment, api.Resource(func(_ *api.Call, in *ecs.StopServiceDeploymentInput) string {
			return aws.ToString(in.ServiceDeploymentArn)
		})),
		api.Write(s.stopTask, api.Route("DELETE /clusters/{cluster}/tasks/{task}"), api.Resource(func(c *api.Call, in *ecs.StopTaskInput) string {
			return named(c, "task", in.Cluster, in.Task)
		})),
		api.Read(s.submitAttachmentStateChanges),
		api.Write(s.submitContainerStateChange),
		api.Write(s.submitTaskStateChange),
		api.Write(s.tagResource, api.Resource(func(_ *api.Call, in *ecs.TagResourceInput) string { return aws.ToString(in.ResourceArn) })),
		api.Write(s.untagResource, api.Resource(func(_ *api.Call, in *ecs.UntagResourceInput) string { return aws.ToString(in.ResourceArn) })),
		api.Write(s.updateCluster, api.Route("PATCH /clusters/{cluster}"), api.Resource(func(c *api.Call, in *ecs.UpdateClusterInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Write(s.updateClusterSettings, api.Resource(func(c *api.Call, in *ecs.UpdateClusterSettingsInput) string {
			return clusterARN(c, in.Cluster)
		})),
		api.Read(s.updateContainerAgent, api.Resource(func(c *api.Call, in *ecs.UpdateContainerAgentInput) string {
			return named(c, "container-instance", in.Cluster, in.ContainerInstance)
		})),
		api.Write(s.updateContainerInstancesState, api.Resources(func(c *api.Call, in *ecs.UpdateContainerInstancesStateInput) []string {
			return each(in.ContainerInstances, func(ref *string) string { return named(c, "container-instance", in.Cluster, ref) })
		})),
		api.Write(s.updateService, api.Route("PATCH /clusters/{cluster}/services/{service}"), api.Resource(func(c *api.Call, in *ecs.UpdateServiceInput) string {
			return named(c, "service", in.Cluster, in.Service)
		})),
		api.Write(s.updateTaskProtection, api.Resources(func(c *api.Call, in *ecs.UpdateTaskProtectionInput) []string {
			return each(in.Tasks, func(ref *string) string { return named(c, "task", in.Cluster, ref) })
		})),
	}
	for i := range table {
		s.conditionKeys(&table[i])
	}
	return table
}
