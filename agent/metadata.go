package agent

import (
	"maps"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/agent/metadata"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// MetadataURIs are the beginnings of the URIs at which tasks ask about themselves, without a slash at the end; empty: there is none.
type MetadataURIs struct {
	Bridged string // LinkLocalURI, or where that cannot be had at the tasks' gateway
	Host    string // for network mode host, whose tasks have no address of their own: "http://127.0.0.1:51679"
}

// LinkLocalURI is where SDKs look for the credentials of containers without being told the host.
const LinkLocalURI = "http://169.254.170.2"

// of is what a task of a network mode is told.
func (u MetadataURIs) of(networkMode string) string {
	switch networkMode {
	case "host":
		return u.Host
	case "none":
		return ""
	}
	return u.Bridged
}

// Endpoint is the address behind the URIs that a task of a network mode is told; invalid: there is none.
func (u MetadataURIs) Endpoint(networkMode string) netip.AddrPort {
	host, found := strings.CutPrefix(u.of(networkMode), "http://")
	if at, err := netip.ParseAddrPort(host); err == nil {
		return at
	}
	if a, err := netip.ParseAddr(host); found && err == nil {
		return netip.AddrPortFrom(a, 80)
	}
	return netip.AddrPort{}
}

// withEnvironment is the spec with what ECS adds to every container's environment, and with AWS_ENDPOINT_URL. That and the region give way
// to the task definition's own.
func (u MetadataURIs) withEnvironment(taskID, secretID string, spec *agentapi.TaskSpec) *agentapi.TaskSpec {
	spec = proto.CloneOf(spec)
	base := u.of(spec.NetworkMode)
	for _, c := range spec.Containers {
		env := map[string]string{"AWS_REGION": spec.Region, "AWS_DEFAULT_REGION": spec.Region}
		if base != "" {
			env["AWS_ENDPOINT_URL"] = base
		}
		maps.Copy(env, c.Environment)
		env["AWS_EXECUTION_ENV"] = "AWS_ECS_EC2"
		if spec.LaunchType == "FARGATE" {
			env["AWS_EXECUTION_ENV"] = "AWS_ECS_FARGATE"
		}
		if base != "" {
			id := metadata.EndpointID(taskID, c.Name)
			env["ECS_CONTAINER_METADATA_URI"], env["ECS_CONTAINER_METADATA_URI_V4"], env["ECS_AGENT_URI"] = base+"/v3/"+id, base+"/v4/"+id, base+"/api/"+secretID
		}
		switch path := "/v2/credentials/" + secretID; {
		case base == "" || spec.TaskRole == "":
		case base == LinkLocalURI:
			env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = path
		default: // SDKs take it from a loopback address too
			env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = base + path
		}
		c.Environment = env
	}
	return spec
}

// HasTask says whether an address is that of a task of this host; on loopback are those with network mode host.
func (a *Agent) HasTask(from netip.Addr) bool { return from.IsLoopback() || a.owners.task(from) != "" }

// Metadata finds a task of this host by its id, for who asks from an address: the task itself, or, on loopback, one with network mode host.
func (a *Agent) Metadata(id string, from netip.Addr) (metadata.Task, bool) {
	w := a.worker(id)
	if w == nil {
		return metadata.Task{}, false
	}
	as, _ := w.current()
	allowed := a.owners.task(from) == id
	if from.IsLoopback() {
		allowed = as.Spec.GetNetworkMode() == "host"
	}
	return metadata.Task{Assignment: as, Status: w.snapshot()}, allowed
}
