package servicediscovery

import (
	"context"
	"iter"
	"maps"
	"net/netip"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
	"github.com/seed-2f228079/neargate/mesh"
)

// The attributes of an instance that mean something to Cloud Map.
const (
	attrIPv4   = "AWS_INSTANCE_IPV4"
	attrIPv6   = "AWS_INSTANCE_IPV6"
	attrPort   = "AWS_INSTANCE_PORT"
	attrCNAME  = "AWS_INSTANCE_CNAME"
	attrHealth = "AWS_INIT_HEALTH_STATUS"
	attrAlias  = "AWS_ALIAS_DNS_NAME"
	attrEC2    = "AWS_EC2_INSTANCE_ID"
)

func (s *Service) endpoint(instance, ip string, port uint32) *mesh.Endpoint {
	return &mesh.Endpoint{Account: s.Account, Region: s.Region, Group: s.ARN(), Id: instance, Target: instance, Address: ip, Port: port, Weight: 1,
		State: agent.EndpointState_ENDPOINT_HEALTHY, Discovery: true, Attributes: map[string]string{}}
}

// touch notes that an instance on the node came or went.
func touch(tx *state.Tx, s *Service, node string) {
	Rosters.Put(tx, &Roster{Account: s.Account, Region: s.Region, Service: s.Id, Node: node})
}

// rosterRevision rises whenever an instance of the service comes or goes.
func rosterRevision(v *state.View, s *Service) int64 {
	last := state.Revision(0)
	for r := range Rosters.Scan(v, state.K(s.Account, s.Region, s.Id)) {
		_, rev, _ := Rosters.GetRevision(v, Rosters.Key(r))
		last = max(last, rev)
	}
	return int64(last)
}

// checkAttributes checks those that a service's records are made of.
func checkAttributes(s *Service, a map[string]string) (port uint32, err error) {
	switch {
	case a[attrAlias] != "":
		return 0, notYet("An alias of a load balancer (%s) is", attrAlias)
	case a[attrEC2] != "":
		return 0, notYet("Registering an EC2 instance (%s) is", attrEC2)
	}
	if ip, err := netip.ParseAddr(a[attrIPv4]); a[attrIPv4] != "" && (err != nil || !ip.Is4()) {
		return 0, invalid("%s '%s' is not a valid IPv4 address", attrIPv4, a[attrIPv4])
	}
	if ip, err := netip.ParseAddr(a[attrIPv6]); a[attrIPv6] != "" && (err != nil || !ip.Is6() || ip.Is4In6() || ip.Zone() != "") {
		return 0, invalid("%s '%s' is not a valid IPv6 address", attrIPv6, a[attrIPv6])
	}
	if a[attrCNAME] != "" && !validDomain(strings.TrimSuffix(a[attrCNAME], ".")) {
		return 0, invalid("%s '%s' is not a valid domain name", attrCNAME, a[attrCNAME])
	}
	if a[attrPort] != "" {
		n, err := strconv.ParseUint(a[attrPort], 10, 16)
		if err != nil {
			return 0, invalid("%s '%s' is not a valid port", attrPort, a[attrPort])
		}
		port = uint32(n)
	}
	if h := a[attrHealth]; h != "" {
		if !s.CustomHealth {
			return 0, invalid("%s needs a service with HealthCheckCustomConfig", attrHealth)
		}
		if h != "HEALTHY" && h != "UNHEALTHY" {
			return 0, invalid("%s '%s' is neither HEALTHY nor UNHEALTHY", attrHealth, h)
		}
	}
	need := func(kind, attribute string, ok bool) error {
		if s.has(kind) && !ok {
			return invalid("A service with %s records needs the attribute %s", kind, attribute)
		}
		return nil
	}
	for _, err := range []error{
		need("A", attrIPv4, a[attrIPv4] != ""), need("AAAA", attrIPv6, a[attrIPv6] != ""), need("CNAME", attrCNAME, a[attrCNAME] != ""),
		need("SRV", attrPort, a[attrPort] != ""), need("SRV", attrIPv4+" or "+attrIPv6, a[attrIPv4] != "" || a[attrIPv6] != ""),
	} {
		if err != nil {
			return 0, err
		}
	}
	return port, nil
}

// registerInstance implements servicediscovery:RegisterInstance. Registering again replaces the attributes and keeps the health.
func (f *Family) registerInstance(ctx context.Context, in *sd.RegisterInstanceInput) (*sd.RegisterInstanceOutput, error) {
	opID := id.UUID(f.Rand)
	request := *in
	request.CreatorRequestId = nil
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) (err error) {
		opID, err = once(ctx, tx, scope, in.CreatorRequestId, request, func() (string, error) {
			s, err := findService(tx, scope, in.ServiceId)
			if err != nil {
				return "", err
			}
			port, err := checkAttributes(s, in.Attributes)
			if err != nil {
				return "", err
			}
			e := s.endpoint(aws.ToString(in.InstanceId), in.Attributes[attrIPv4], port)
			if s.has("SRV") && (strings.ContainsAny(e.Id, "/:@") || !validDomain(e.Id)) {
				return "", invalid("The instance ID '%s' can not be part of the name in an SRV record", e.Id)
			}
			maps.Copy(e.Attributes, in.Attributes)
			if e.Attributes[attrHealth] == "UNHEALTHY" {
				e.State = agent.EndpointState_ENDPOINT_UNHEALTHY
			}
			if old, ok := mesh.Endpoints.Get(tx, mesh.Endpoints.Key(e)); ok && old.State != agent.EndpointState_ENDPOINT_DRAINING {
				e.State, e.Node, e.Cluster, e.Task = old.State, old.Node, old.Cluster, old.Task
			} else {
				touch(tx, s, "")
			}
			e.Registered = timestamppb.New(api.CallFrom(ctx).Time)
			mesh.Endpoints.Put(tx, e)
			record(ctx, tx, scope, opID, types.OperationTypeRegisterInstance, map[string]string{"SERVICE": s.Id, "INSTANCE": e.Id})
			return opID, nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &sd.RegisterInstanceOutput{OperationId: &opID}, nil
}

func findInstance(r state.Reader, s *Service, instance *string) (*mesh.Endpoint, error) {
	e, ok := mesh.Endpoints.Get(r, state.K(s.Account, s.Region, s.ARN(), aws.ToString(instance)))
	if !ok || e.State == agent.EndpointState_ENDPOINT_DRAINING {
		return nil, awserr.New("InstanceNotFound", "Instance not found: '%s'", aws.ToString(instance))
	}
	return e, nil
}

// deregisterInstance implements servicediscovery:DeregisterInstance.
func (f *Family) deregisterInstance(ctx context.Context, in *sd.DeregisterInstanceInput) (*sd.DeregisterInstanceOutput, error) {
	opID := id.UUID(f.Rand)
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		s, err := findService(tx, scope, in.ServiceId)
		if err != nil {
			return err
		}
		e, err := findInstance(tx, s, in.InstanceId)
		if err != nil {
			return err
		}
		mesh.Endpoints.Delete(tx, mesh.Endpoints.Key(e))
		touch(tx, s, e.Node)
		record(ctx, tx, scope, opID, types.OperationTypeDeregisterInstance, map[string]string{"SERVICE": s.Id, "INSTANCE": e.Id})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &sd.DeregisterInstanceOutput{OperationId: &opID}, nil
}

// getInstance implements servicediscovery:GetInstance.
func (f *Family) getInstance(ctx context.Context, in *sd.GetInstanceInput) (*sd.GetInstanceOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	s, err := findService(v, scope, in.ServiceId)
	if err != nil {
		return nil, err
	}
	e, err := findInstance(v, s, in.InstanceId)
	if err != nil {
		return nil, err
	}
	return &sd.GetInstanceOutput{ResourceOwner: &s.Account, Instance: &types.Instance{Id: &e.Id, Attributes: e.Attributes, CreatedByAccount: &e.Account}}, nil
}

// pageInstances is one page of a service's instances.
func (f *Family) pageInstances(ctx context.Context, in any, text *string, size *int32, keep ...func(*mesh.Endpoint) bool) (*Service, []*mesh.Endpoint, *string, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := findService(v, scope, text)
	if err != nil {
		return nil, nil, nil, err
	}
	page, next, err := api.Page(ctx, f.Pages, in, api.PageSize(size, 100, 100), func(after state.Key) iter.Seq[*mesh.Endpoint] {
		return filtered(present(mesh.Endpoints.ScanFrom(v, scope.Key(s.ARN()), after)), keep)
	}, mesh.Endpoints.Key)
	return s, page, next, err
}

// listInstances implements servicediscovery:ListInstances.
func (f *Family) listInstances(ctx context.Context, in *sd.ListInstancesInput) (*sd.ListInstancesOutput, error) {
	s, page, next, err := f.pageInstances(ctx, in, in.ServiceId, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &sd.ListInstancesOutput{Instances: []types.InstanceSummary{}, NextToken: next, ResourceOwner: &s.Account}
	for _, e := range page {
		out.Instances = append(out.Instances, types.InstanceSummary{Id: &e.Id, Attributes: e.Attributes, CreatedByAccount: &e.Account})
	}
	return out, nil
}

// healthOf is the instance's health as the API has it: UNKNOWN without a health check.
func healthOf(s *Service, e *mesh.Endpoint) types.HealthStatus {
	switch {
	case !s.CustomHealth:
		return types.HealthStatusUnknown
	case e.State == agent.EndpointState_ENDPOINT_HEALTHY:
		return types.HealthStatusHealthy
	}
	return types.HealthStatusUnhealthy
}

// getInstancesHealthStatus implements servicediscovery:GetInstancesHealthStatus.
func (f *Family) getInstancesHealthStatus(ctx context.Context, in *sd.GetInstancesHealthStatusInput) (*sd.GetInstancesHealthStatusOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	s, err := findService(v, scope, in.ServiceId)
	if err != nil {
		return nil, err
	}
	var keep []func(*mesh.Endpoint) bool
	if in.Instances != nil {
		asked := map[string]bool{}
		for _, name := range in.Instances {
			if _, err := findInstance(v, s, &name); err != nil {
				return nil, err
			}
			asked[name] = true
		}
		keep = append(keep, func(e *mesh.Endpoint) bool { return asked[e.Id] })
	}
	_, page, next, err := f.pageInstances(ctx, in, in.ServiceId, in.MaxResults, keep...)
	if err != nil {
		return nil, err
	}
	out := &sd.GetInstancesHealthStatusOutput{Status: map[string]types.HealthStatus{}, NextToken: next}
	for _, e := range page {
		out.Status[e.Id] = healthOf(s, e)
	}
	return out, nil
}

// updateInstanceCustomHealthStatus implements servicediscovery:UpdateInstanceCustomHealthStatus. It takes effect at once; AWS
// waits about thirty seconds.
func (f *Family) updateInstanceCustomHealthStatus(ctx context.Context, in *sd.UpdateInstanceCustomHealthStatusInput) (*sd.UpdateInstanceCustomHealthStatusOutput, error) {
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		s, err := findService(tx, scope, in.ServiceId)
		if err != nil {
			return err
		}
		if !s.CustomHealth {
			return awserr.New("CustomHealthNotFound", "The service '%s' has no HealthCheckCustomConfig.", s.Id)
		}
		old, err := findInstance(tx, s, in.InstanceId)
		if err != nil {
			return err
		}
		e := proto.Clone(old).(*mesh.Endpoint)
		e.State = agent.EndpointState_ENDPOINT_HEALTHY
		if in.Status == types.CustomHealthStatusUnhealthy {
			e.State = agent.EndpointState_ENDPOINT_UNHEALTHY
		}
		if e.State != old.State {
			mesh.Endpoints.Put(tx, e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &sd.UpdateInstanceCustomHealthStatusOutput{}, nil
}
