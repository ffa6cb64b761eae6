package ecs

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
)

func TestPortRangeIsShown(t *testing.T) {
	st := &controlplane.TaskStatus{Report: &agentapi.TaskStatus{Containers: []*agentapi.ContainerStatus{{
		Name: "web", Ports: []*agentapi.PortBinding{{ContainerPort: 8000, HostPort: 50000, Count: 4, Protocol: "udp", BindIp: "0.0.0.0"}},
	}}}}
	got := containerShape(&controlplane.Task{Id: "t"}, st, types.ContainerDefinition{Name: aws.String("web")}, nil).NetworkBindings
	if want := `[{"bindIP":"0.0.0.0","containerPortRange":"8000-8003","hostPortRange":"50000-50003","protocol":"udp"}]`; controlplane.EncodeShape(got) != want {
		t.Error(cmp.Diff(want, controlplane.EncodeShape(got)))
	}
}
