package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// TestInstanceOfEC2: an agent on an instance of EC2 says what that is, tasks can ask for it, and the zone is the instance's.
func TestInstanceOfEC2(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, map[string]string{
			"/latest/api/token": "token", "/latest/meta-data/instance-id": "i-0123456789abcdef0", "/latest/meta-data/instance-type": "m7i.large",
			"/latest/meta-data/ami-id": "ami-0123", "/latest/meta-data/placement/availability-zone": "us-east-1c",
		}[r.URL.Path])
	}))
	defer service.Close()
	s := startServers(t, 1)
	cluster := "apart"
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	agent := startCommand(t, func(self string, args ...string) *exec.Cmd {
		return exec.Command("env", append([]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + service.URL, "AWS_EC2_METADATA_DISABLED=", self}, args...)...)
	}, "agent", "--data", t.TempDir(), "--servers", strings.Join(s.peers, ","), "--cluster", cluster, "--runtime", "fake", "--join-token", token)
	agent.says(`agent (\S+) is connected`)
	eventually(t, func() error {
		list, err := s.all[0].ECS.ListContainerInstances(t.Context(), &ecs.ListContainerInstancesInput{Cluster: &cluster, Filter: new("attribute:ecs.instance-type == m7i.large and attribute:ecs.ami-id == ami-0123")})
		if err != nil || len(list.ContainerInstanceArns) != 1 {
			return fmt.Errorf("the filter finds %v, %v", list, err)
		}
		out, err := s.all[0].ECS.DescribeContainerInstances(t.Context(), &ecs.DescribeContainerInstancesInput{Cluster: &cluster, ContainerInstances: list.ContainerInstanceArns})
		if err != nil {
			return err
		}
		i := out.ContainerInstances[0]
		zone := ""
		for _, a := range i.Attributes {
			if *a.Name == "ecs.availability-zone" {
				zone = *a.Value
			}
		}
		if i.Ec2InstanceId == nil || *i.Ec2InstanceId != "i-0123456789abcdef0" || zone != "us-east-1c" || i.Status == nil || *i.Status != string(ecstypes.ContainerInstanceStatusActive) {
			return fmt.Errorf("the instance is %+v in %q", i, zone)
		}
		return nil
	})
}
