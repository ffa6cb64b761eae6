package ecs

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
)

// checkProxy holds a task's proxy to "ProxyConfiguration" in the ECS API reference.
func checkProxy(def *types.TaskDefinition) error {
	p := def.ProxyConfiguration
	if p == nil {
		return nil
	}
	name := aws.ToString(p.ContainerName)
	switch {
	case p.Type != "" && p.Type != types.ProxyConfigurationTypeAppmesh:
		return client("Invalid 'proxyConfiguration' setting. The type must be APPMESH, not '%s'.", p.Type)
	case def.NetworkMode != types.NetworkModeAwsvpc:
		return client("Proxy configurations are only supported when networkMode=awsvpc.")
	case !slices.ContainsFunc(def.ContainerDefinitions, func(c types.ContainerDefinition) bool { return aws.ToString(c.Name) == name }):
		return client("Invalid 'proxyConfiguration' setting. There is no container '%s'.", name)
	}
	if _, err := controlplane.ParseProxy(p); err != nil {
		return client("Invalid 'proxyConfiguration' setting. The property %v.", err)
	}
	p = new(*p)
	p.Type = types.ProxyConfigurationTypeAppmesh
	def.ProxyConfiguration = p
	return nil
}
