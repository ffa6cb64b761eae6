package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

// TestEveryServerResolvesSecrets: an agent asks the server that it has its session with, which follows as a rule; what one server wrote, the
// others open.
func TestEveryServerResolvesSecrets(t *testing.T) {
	s := startServers(t, 3)
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("apart")}); err != nil {
		t.Fatal(err)
	}
	for _, peer := range s.peers {
		p := start(t, "agent", "-v", "--data", t.TempDir(), "--servers", peer, "--cluster", "apart", "--runtime", "fake", "--join-token", token)
		p.says(`agent (\S+) is connected`)
	}
	cfg := func(one *oneServer) aws.Config {
		return aws.Config{Region: "us-east-1", BaseEndpoint: &one.url, HTTPClient: sdkhttp.New(nil), Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		})}
	}
	roles := iam.NewFromConfig(cfg(s.all[0]))
	role, err := roles.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: new("reader"),
		AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := roles.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: new("reader"), PolicyName: new("may"),
		PolicyDocument: new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"secretsmanager:GetSecretValue","Resource":"*"}}`)}); err != nil {
		t.Fatal(err)
	}
	secret, err := secretsmanager.NewFromConfig(cfg(s.all[1])).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: new("s"), SecretString: new("canary")})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range s.all {
		if got, err := secretsmanager.NewFromConfig(cfg(one)).GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: new("s")}); err != nil || *got.SecretString != "canary" {
			t.Errorf("%s: %v", one.url, err)
		}
	}
	one := s.all[2]
	if _, err := one.ECS.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: new("web"), ExecutionRoleArn: role.Role.Arn,
		ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("web"), Image: new("registry.test/web:1"), Cpu: 16, Memory: new(int32(16)),
			Secrets: []ecstypes.Secret{{Name: new("S"), ValueFrom: secret.ARN}}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := one.ECS.CreateService(t.Context(), &ecs.CreateServiceInput{Cluster: new("apart"), ServiceName: new("web"), TaskDefinition: new("web"),
		SchedulingStrategy: ecstypes.SchedulingStrategyDaemon}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		out, err := one.ECS.DescribeServices(t.Context(), &ecs.DescribeServicesInput{Cluster: new("apart"), Services: []string{"web"}})
		if err == nil && out.Services[0].RunningCount != 3 {
			err = fmt.Errorf("%d tasks run, want one of each server's agent", out.Services[0].RunningCount)
		}
		return err
	})
}
