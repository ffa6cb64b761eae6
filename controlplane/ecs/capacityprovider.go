package ecs

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// The capacity providers that every account has. Both are the serverless pool; FARGATE_SPOT tasks are not interrupted.
var capacityProviders = []string{"FARGATE", "FARGATE_SPOT"}

// describeCapacityProviders implements ecs:DescribeCapacityProviders.
func (s *Service) describeCapacityProviders(ctx context.Context, in *ecs.DescribeCapacityProvidersInput) (*ecs.DescribeCapacityProvidersOutput, error) {
	if _, err := pageSize(in.MaxResults, 10, 10); err != nil {
		return nil, err
	}
	scope := scopeOf(ctx)
	asked := in.CapacityProviders
	if len(asked) == 0 {
		asked = capacityProviders
	}
	out := &ecs.DescribeCapacityProvidersOutput{CapacityProviders: []types.CapacityProvider{}, Failures: []types.Failure{}}
	for _, ref := range asked {
		name := ref
		if arn.Is(ref) {
			a, err := parseARN(scope, ref, "capacity-provider")
			if err != nil {
				return nil, err
			}
			name = a.Rest()
		}
		providerARN := arn.New("ecs", scope.Region, scope.Account, "capacity-provider/"+name).String()
		if !slices.Contains(capacityProviders, name) {
			out.Failures = append(out.Failures, missing(providerARN))
			continue
		}
		out.CapacityProviders = append(out.CapacityProviders, types.CapacityProvider{
			CapacityProviderArn: aws.String(providerARN), Name: aws.String(name),
			Status: types.CapacityProviderStatusActive, Tags: []types.Tag{},
		})
	}
	return out, nil
}

func setProviders(c *controlplane.Cluster, providers []string, strategy []types.CapacityProviderStrategyItem) error {
	for _, p := range providers {
		if !slices.Contains(capacityProviders, p) {
			return invalid("The specified capacity provider '%s' was not found. Specify a valid name or ARN and try again.", p)
		}
	}
	if err := checkStrategy(strategy, providers); err != nil {
		return err
	}
	c.CapacityProviders = providers
	c.DefaultStrategyJson = controlplane.EncodeShape(strategy)
	return nil
}

// checkStrategy checks a capacity provider strategy against the providers that its cluster has.
func checkStrategy(strategy []types.CapacityProviderStrategyItem, providers []string) error {
	bases, weights := 0, int32(0)
	for _, item := range strategy {
		name := aws.ToString(item.CapacityProvider)
		if !slices.Contains(providers, name) {
			return invalid("The specified capacity provider strategy cannot contain a capacity provider that is not associated with the cluster. "+
				"Associate the capacity provider with the cluster or modify the strategy and try again. (%s)", name)
		}
		if item.Base > 0 {
			bases++
		}
		weights += item.Weight
	}
	if bases > 1 {
		return invalid("Only one capacity provider in a capacity provider strategy can have a base defined.")
	}
	if len(strategy) > 1 && weights == 0 {
		return invalid("At least one capacity provider in the strategy must have a weight greater than 0.")
	}
	return nil
}
