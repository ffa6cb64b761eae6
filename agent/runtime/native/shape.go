//go:build linux && cgo

package native

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/agent/logs"
	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// shape is what tasks have in common of which one can take over a sandbox that was made for any of them: images, by digest, confinement,
// limits, network mode. It has nothing of one task: no name, role, environment, argument, port or log.
type shape struct {
	key  string
	task runtime.Task // with nothing but the shape
	rec  taskRecord
}

// shapeOf is nil where no sandbox is made ahead: the task has something that is to be had once, that is secret or that others see.
func shapeOf(rec taskRecord, in runtime.Task) *shape {
	spec := proto.CloneOf(in.Spec)
	switch spec.NetworkMode {
	case "", "bridge", "awsvpc":
	default:
		return nil
	}
	if spec.PidMode != "" || spec.IpcMode != "" && spec.IpcMode != "none" || spec.EphemeralStorageMib > 0 {
		return nil
	}
	for _, v := range spec.Volumes {
		if v.HostPath != "" || v.Scope == "shared" || len(v.DriverOptions) > 0 {
			return nil
		}
	}
	for _, c := range spec.Containers {
		if c.FireLens != nil || c.SecretFiles != "" || c.InitProcess || c.Interactive || c.PseudoTerminal || c.Privileged || len(c.Devices) > 0 {
			return nil
		}
		c.Image, c.RegistryUser, c.RegistryRefusal = "", "", ""
		c.EntryPoint, c.Command, c.CommandSet = []string{"-"}, nil, true // what runs is told by the task
		c.Environment, c.Labels, c.Ports = nil, nil, nil
		c.Log = &agentapi.LogConfiguration{Driver: logs.DriverNone}
		c.Essential, c.DependsOn, c.HealthCheck, c.Restart = false, nil, nil, nil
		c.StartTimeoutSeconds, c.StopTimeoutSeconds, c.StopSignal = 0, 0, ""
	}
	spec.Account, spec.Region, spec.Cluster, spec.Family, spec.Revision, spec.Service = "", "", "", "", 0, ""
	spec.LaunchType, spec.TaskRole, spec.HasSecrets, spec.DefaultSecurityGroup = "", "", false, false
	s := &shape{task: runtime.Task{Spec: spec, DNSServers: in.DNSServers, DNSSearch: in.DNSSearch, ExtraHosts: in.ExtraHosts}}
	images := map[string]imageRecord{}
	for name, r := range rec.Images {
		r.Reference = ""
		images[name] = r
	}
	s.rec = taskRecord{Images: images}
	hash := sha256.New()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err != nil {
		return nil
	}
	hash.Write(b)
	if err := json.NewEncoder(hash).Encode([]any{in.DNSServers, in.DNSSearch, in.ExtraHosts, images}); err != nil {
		return nil
	}
	s.key = fmt.Sprintf("%x", hash.Sum(nil))
	return s
}
