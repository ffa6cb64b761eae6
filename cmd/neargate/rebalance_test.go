package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
)

// TestServiceFollowsZones: a service whose hosts are all in one zone spreads when another zone gets some.
func TestServiceFollowsZones(t *testing.T) {
	s := startServers(t, 1)
	one, cluster := s.all[0], "apart"
	if _, err := one.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	agent := func(zone string) {
		t.Helper()
		p := start(t, "agent", "-v", "--data", t.TempDir(), "--servers", strings.Join(s.peers, ","), "--cluster", cluster, "--runtime", "fake", "--join-token", token, "--availability-zone", zone)
		p.says(`agent (\S+) is connected`)
	}
	agent("us-east-1a")
	one.service(t, "web", 4)
	before := (&site{t: t, Client: one.Client}).running(4)
	agent("us-east-1b")
	eventually(t, func() error {
		list, err := one.ECS.ListTasks(t.Context(), &ecs.ListTasksInput{Cluster: &cluster})
		if err != nil {
			return err
		}
		out, err := one.ECS.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Cluster: &cluster, Tasks: list.TaskArns})
		if err != nil {
			return err
		}
		zones := map[string]int{}
		for _, task := range out.Tasks {
			if *task.DesiredStatus == "RUNNING" && task.AvailabilityZone != nil {
				zones[*task.AvailabilityZone]++
			}
		}
		if len(out.Tasks) != 4 || zones["us-east-1a"] != 2 || zones["us-east-1b"] != 2 {
			return fmt.Errorf("%d tasks, in %v", len(out.Tasks), zones)
		}
		return nil
	})
	after := (&site{t: t, Client: one.Client}).running(4)
	kept := 0
	for _, task := range after {
		for _, was := range before {
			if task == was {
				kept++
			}
		}
	}
	if kept != 2 {
		t.Errorf("%d of the tasks have stayed: %v, then %v", kept, before, after)
	}
	d, err := one.ECS.DescribeServices(t.Context(), &ecs.DescribeServicesInput{Cluster: &cluster, Services: []string{"web"}})
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range d.Services[0].Events {
		said = append(said, *e.Message)
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{
		"(service web) is not AZ balanced with 4 tasks in us-east-1a, 0 tasks in us-east-1b. AZ Rebalancing in progress.",
		"(service web) has started 2 tasks in us-east-1b to AZ Rebalance: ", " running tasks in us-east-1a due to AZ rebalancing: ",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not said:\n%s", want, all)
		}
	}
}
