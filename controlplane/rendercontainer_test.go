package controlplane

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// rendered is what an agent is told of one container.
func rendered(t *testing.T, c types.ContainerDefinition, other ...types.ContainerDefinition) *agentapi.ContainerSpec {
	t.Helper()
	c.Name, c.Image = aws.String("web"), aws.String("web")
	d := &TaskDefinition{Family: "app", Revision: 1, DefinitionJson: []byte(EncodeShape(types.TaskDefinition{ContainerDefinitions: append(other, c)}))}
	spec, _, err := RenderTaskSpec(&Task{}, d, nil)
	if err != nil {
		t.Fatal(err)
	}
	return spec.Containers[len(spec.Containers)-1]
}

func TestRenderContainerLife(t *testing.T) {
	db := types.ContainerDefinition{Name: aws.String("db"), Image: aws.String("db")}
	got := rendered(t, types.ContainerDefinition{
		HealthCheck:   &types.HealthCheck{Command: []string{"CMD", "true"}, StartPeriod: aws.Int32(7)},
		DependsOn:     []types.ContainerDependency{{ContainerName: aws.String("db"), Condition: types.ContainerConditionHealthy}},
		Links:         []string{"db"},
		RestartPolicy: &types.ContainerRestartPolicy{Enabled: aws.Bool(true), IgnoredExitCodes: []int32{0}},
	}, db)
	want := &agentapi.ContainerSpec{
		HealthCheck: &agentapi.ContainerCheck{Command: []string{"CMD", "true"}, IntervalSeconds: 30, TimeoutSeconds: 5, Retries: 3, StartPeriodSeconds: 7},
		DependsOn:   []*agentapi.Dependency{{Container: "db", Condition: "HEALTHY"}}, // the link's START is less
		Restart:     &agentapi.RestartPolicy{IgnoredExitCodes: []int32{0}, AttemptPeriodSeconds: 300},
	}
	if diff := cmp.Diff(want, &agentapi.ContainerSpec{HealthCheck: got.HealthCheck, DependsOn: got.DependsOn, Restart: got.Restart}, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	off := rendered(t, types.ContainerDefinition{
		HealthCheck: &types.HealthCheck{Command: []string{"NONE"}}, RestartPolicy: &types.ContainerRestartPolicy{Enabled: aws.Bool(false)},
	})
	if off.HealthCheck != nil || off.Restart != nil {
		t.Errorf("got %v", off)
	}
}

func TestRenderLinuxParameters(t *testing.T) {
	got := rendered(t, types.ContainerDefinition{
		LinuxParameters: &types.LinuxParameters{
			Capabilities: &types.KernelCapabilities{Add: []string{"NET_ADMIN"}, Drop: []string{"ALL"}},
			Devices: []types.Device{
				{HostPath: aws.String("/dev/fuse")},
				{HostPath: aws.String("/dev/kvm"), ContainerPath: aws.String("/dev/vm"), Permissions: []types.DeviceCgroupPermission{"write", "read"}},
			},
			InitProcessEnabled: aws.Bool(true), SharedMemorySize: aws.Int32(128), MaxSwap: aws.Int32(0), Swappiness: aws.Int32(0),
			Tmpfs: []types.Tmpfs{{ContainerPath: aws.String("/run"), Size: 16, MountOptions: []string{"exec"}}},
		},
		Ulimits:               []types.Ulimit{{Name: types.UlimitNameCore, SoftLimit: 0, HardLimit: -1}},
		SystemControls:        []types.SystemControl{{Namespace: aws.String("net.core.somaxconn"), Value: aws.String("64")}},
		DockerSecurityOptions: []string{"no-new-privileges"},
		Interactive:           aws.Bool(true), PseudoTerminal: aws.Bool(true), DisableNetworking: aws.Bool(true),
		DnsServers: []string{"10.0.0.2"}, DnsSearchDomains: []string{"local"},
	})
	want := &agentapi.ContainerSpec{
		Name: "web", Image: "web", Essential: true, Environment: map[string]string{},
		AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"ALL"},
		Devices:     []*agentapi.Device{{HostPath: "/dev/fuse", Access: "rwm"}, {HostPath: "/dev/kvm", ContainerPath: "/dev/vm", Access: "rw"}},
		InitProcess: true, SharedMemoryMib: 128, MaxSwapMib: new(uint32(0)), Swappiness: new(uint32(0)),
		Tmpfs:   []*agentapi.Tmpfs{{ContainerPath: "/run", SizeMib: 16, Options: []string{"exec"}}},
		Ulimits: []*agentapi.Ulimit{{Name: "core", Soft: 0, Hard: -1}}, Sysctls: map[string]string{"net.core.somaxconn": "64"},
		NoNewPrivileges: true, Interactive: true, PseudoTerminal: true, DisableNetworking: true,
		DnsServers: []string{"10.0.0.2"}, DnsSearch: []string{"local"},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestRenderPortRange(t *testing.T) {
	got := rendered(t, types.ContainerDefinition{PortMappings: []types.PortMapping{{ContainerPortRange: aws.String("8000-8003")}}})
	want := []*agentapi.PortMapping{{ContainerPort: 8000, Count: 4, Protocol: "tcp"}}
	if diff := cmp.Diff(want, got.Ports, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
