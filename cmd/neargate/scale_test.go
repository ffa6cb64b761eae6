package main

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/bench/fleet"
)

// TestTwoHundredHosts is `bench scale` small: hosts with certificates and connections of their own run two services, one of which is replaced
// as a whole, and a third of the hosts is lost with its zone. Nothing more is started than is wanted, and no session is lost on the way.
func TestTwoHundredHosts(t *testing.T) {
	const hosts, perService = 200, 400
	s := &servers{t: t, peers: freeAddresses(t, 1)}
	one := &oneServer{dir: t.TempDir(), listen: anyPort, peers: s.peers[0]}
	s.start(one, token)
	s.ready(one)
	cluster := "apart"
	if _, err := one.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	f, err := fleet.Begin(t.Context(), fleet.Config{
		Servers: s.peers, Token: token, Dir: t.TempDir(), Hosts: hosts, Zones: []string{"a", "b", "c"}, Cluster: cluster, CPU: 1024, Memory: 1024,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	one.service(t, "stays", perService)
	one.service(t, "changes", perService)
	for _, name := range []string{"stays", "changes"} { // what balancing over zones would start comes on top of what is wanted
		if _, err := one.ECS.UpdateService(t.Context(), &ecs.UpdateServiceInput{
			Cluster: &cluster, Service: &name, AvailabilityZoneRebalancing: ecstypes.AvailabilityZoneRebalancingDisabled,
		}); err != nil {
			t.Fatal(err)
		}
	}
	steady := func(when string, started int) {
		t.Helper()
		eventually(t, func() error {
			out, err := one.ECS.DescribeServices(t.Context(), &ecs.DescribeServicesInput{Cluster: &cluster, Services: []string{"stays", "changes"}})
			if err != nil {
				return err
			}
			for _, is := range out.Services {
				if len(is.Deployments) != 1 || is.RunningCount != perService || is.PendingCount != 0 || is.Deployments[0].RolloutState != ecstypes.DeploymentRolloutStateCompleted {
					return fmt.Errorf("%s: service %s has %d tasks running, %d pending, %d deployments", when, *is.ServiceName, is.RunningCount, is.PendingCount, len(is.Deployments))
				}
			}
			if f.Running() != 2*perService {
				return fmt.Errorf("%s: %d tasks run", when, f.Running())
			}
			return nil
		})
		if got := f.Started(); got != started {
			t.Errorf("%s: %d tasks were started, not %d", when, got, started)
		}
	}
	steady("at first", 2*perService)

	if _, err := one.ECS.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{
		Family: new("changes"), NetworkMode: ecstypes.NetworkModeBridge,
		ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("web"), Image: new("registry.test/web:2"), Cpu: 16, Memory: new(int32(16))}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := one.ECS.UpdateService(t.Context(), &ecs.UpdateServiceInput{Cluster: &cluster, Service: new("changes"), TaskDefinition: new("changes")}); err != nil {
		t.Fatal(err)
	}
	steady("after the update", 3*perService)
	if f.Sessions() != hosts {
		t.Errorf("%d sessions of %d hosts", f.Sessions(), hosts)
	}

	before := f.Running()
	f.Lose("a")
	lost := before - f.Running()
	if lost < 2*perService/3-hosts/3 {
		t.Errorf("a third of the hosts had %d tasks", lost)
	}
	steady("after the zone was lost", 3*perService+lost)
}
