package controlplane

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// webAndDB links web to db, so that db starts first although it is defined last.
func webAndDB() types.TaskDefinition {
	return types.TaskDefinition{
		Cpu: aws.String("512"), Memory: aws.String("1024"), NetworkMode: types.NetworkModeBridge,
		Volumes: []types.Volume{
			{Name: aws.String("data"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeShared}},
			{Name: aws.String("memory"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeTask, DriverOpts: map[string]string{"type": "tmpfs"}}},
			{Name: aws.String("conf"), Host: &types.HostVolumeProperties{SourcePath: aws.String("/etc/app")}},
		},
		ContainerDefinitions: []types.ContainerDefinition{
			{
				Name: aws.String("web"), Image: aws.String("localhost:5000/web:1"), Cpu: 128, Memory: aws.Int32(256), MemoryReservation: aws.Int32(128),
				Links: []string{"db:database"}, VolumesFrom: []types.VolumeFrom{{SourceContainer: aws.String("db"), ReadOnly: aws.Bool(true)}},
				Environment:  []types.KeyValuePair{{Name: aws.String("A"), Value: aws.String("1")}, {Name: aws.String("B"), Value: aws.String("2")}},
				PortMappings: []types.PortMapping{{ContainerPort: aws.Int32(3000)}, {ContainerPort: aws.Int32(53), HostPort: aws.Int32(5353), Protocol: types.TransportProtocolUdp}},
				Command:      []string{"serve"},
			},
			{
				Name: aws.String("db"), Image: aws.String("db"), Memory: aws.Int32(512), Essential: aws.Bool(false), StopTimeout: aws.Int32(5),
				MountPoints: []types.MountPoint{{SourceVolume: aws.String("data"), ContainerPath: aws.String("/data")}},
			},
		},
	}
}

func TestRenderTaskSpec(t *testing.T) {
	def := webAndDB()
	d := &TaskDefinition{Family: "app", Revision: 3, DefinitionJson: []byte(EncodeShape(def))}
	over := types.TaskOverride{Memory: aws.String("2 GB"), ContainerOverrides: []types.ContainerOverride{{
		Name: aws.String("web"), Command: []string{"migrate"}, Memory: aws.Int32(300),
		Environment: []types.KeyValuePair{{Name: aws.String("B"), Value: aws.String("3")}},
	}}}
	task := &Task{Account: here.Account, Region: here.Region, Cluster: "c", Id: "t", Service: "s", LaunchType: "EC2", OverridesJson: EncodeShape(over)}
	got, _, err := RenderTaskSpec(task, d, map[string]string{"web": "sha256:abc"})
	if err != nil {
		t.Fatal(err)
	}
	want := &agentapi.TaskSpec{
		Account: here.Account, Region: here.Region, Cluster: "c", Family: "app", Revision: 3, Service: "s", LaunchType: "EC2",
		CpuUnits: 512, MemoryMib: 2048, NetworkMode: "bridge",
		Volumes: []*agentapi.VolumeSpec{{Name: "data", Scope: "shared"}, {Name: "memory", Scope: "task", DriverOptions: map[string]string{"type": "tmpfs"}}, {Name: "conf", HostPath: "/etc/app", Scope: "task"}},
		Containers: []*agentapi.ContainerSpec{
			{
				Name: "db", Image: "db", MemoryMib: 512, StopTimeoutSeconds: 5, Environment: map[string]string{},
				Mounts: []*agentapi.MountPoint{{Volume: "data", ContainerPath: "/data"}},
			},
			{
				Name: "web", Image: "localhost:5000/web@sha256:abc", Essential: true, CpuUnits: 128, MemoryMib: 300, MemoryReservationMib: 128,
				Command: []string{"migrate"}, Environment: map[string]string{"A": "1", "B": "3"}, ExtraHosts: []string{"database:127.0.0.1"},
				DependsOn: []*agentapi.Dependency{{Container: "db", Condition: "START"}},
				Ports:     []*agentapi.PortMapping{{ContainerPort: 3000, Protocol: "tcp"}, {ContainerPort: 53, HostPort: 5353, Protocol: "udp"}},
				Mounts:    []*agentapi.MountPoint{{Volume: "data", ContainerPath: "/data", ReadOnly: true}},
			},
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestStartOrderRefusesCycles(t *testing.T) {
	c := func(name, needs string) types.ContainerDefinition {
		return types.ContainerDefinition{Name: &name, DependsOn: []types.ContainerDependency{{ContainerName: &needs}}}
	}
	if _, err := StartOrder([]types.ContainerDefinition{c("a", "b"), c("b", "a")}); err == nil {
		t.Error("a cycle has an order")
	}
	if _, err := StartOrder([]types.ContainerDefinition{c("a", "b")}); err == nil {
		t.Error("what does not exist can be waited for")
	}
}

func TestDemandOf(t *testing.T) {
	small := webAndDB()
	small.Cpu, small.Memory = nil, nil
	host := webAndDB()
	host.NetworkMode = types.NetworkModeHost
	vpc := webAndDB()
	vpc.NetworkMode = types.NetworkModeAwsvpc
	arm := webAndDB()
	arm.RuntimePlatform = &types.RuntimePlatform{CpuArchitecture: types.CPUArchitectureArm64, OperatingSystemFamily: types.OSFamilyLinux}
	udp := []*HostPort{{Port: 5353, Protocol: "udp"}}
	for _, c := range []struct {
		name string
		def  types.TaskDefinition
		over types.TaskOverride
		want *Demand
	}{
		{"task size", webAndDB(), types.TaskOverride{}, &Demand{CpuUnits: 512, MemoryMib: 1024, HostPorts: udp}},
		{"task size overridden", webAndDB(), types.TaskOverride{Cpu: aws.String("1 vCPU"), Memory: aws.String(".5GB")}, &Demand{CpuUnits: 1024, MemoryMib: 512, HostPorts: udp}},
		{"sum of containers", small, types.TaskOverride{}, &Demand{CpuUnits: 128, MemoryMib: 128 + 512, HostPorts: udp}},
		{"containers overridden", small, types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Name: aws.String("db"), Cpu: aws.Int32(64), Memory: aws.Int32(100)}}},
			&Demand{CpuUnits: 192, MemoryMib: 228, HostPorts: udp}},
		{"host network", host, types.TaskOverride{}, &Demand{CpuUnits: 512, MemoryMib: 1024, HostPorts: []*HostPort{{Port: 3000, Protocol: "tcp"}, {Port: 53, Protocol: "udp"}}}},
		{"own address", vpc, types.TaskOverride{}, &Demand{CpuUnits: 512, MemoryMib: 1024}},
		{"platform", arm, types.TaskOverride{}, &Demand{CpuUnits: 512, MemoryMib: 1024, HostPorts: udp, Attributes: []string{"ecs.cpu-architecture=arm64", "ecs.os-type=linux"}}},
	} {
		got, err := DemandOf(c.def, c.over)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.want, got, protocmp.Transform(), protocmp.IgnoreFields(&Demand{}, "agent_attributes")); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestTaskSize(t *testing.T) {
	for _, c := range []struct {
		cpu, memory       string
		wantCPU, wantSize uint32
		bad               bool
	}{
		{cpu: "256", memory: "512", wantCPU: 256, wantSize: 512},
		{cpu: "1 vCPU", memory: "0.5 GB", wantCPU: 1024, wantSize: 512},
		{cpu: ".25vcpu", memory: "30GB", wantCPU: 256, wantSize: 30720},
		{},
		{cpu: "much", bad: true},
		{memory: "1 TB", bad: true},
		{cpu: "-1", bad: true},
		{cpu: "NaN vCPU", bad: true},
	} {
		cpu, memory, err := TaskSize(aws.String(c.cpu), aws.String(c.memory))
		if (err != nil) != c.bad || cpu != c.wantCPU || memory != c.wantSize {
			t.Errorf("%q, %q: got %d, %d, %v", c.cpu, c.memory, cpu, memory, err)
		}
	}
}
