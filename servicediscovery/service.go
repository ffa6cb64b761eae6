package servicediscovery

import (
	"context"
	"iter"
	"maps"
	"slices"
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

// has says whether the service answers records of the type.
func (s *Service) has(kind string) bool {
	return slices.ContainsFunc(s.Records, func(r *Record) bool { return r.Type == kind })
}

// setDNS takes over the DNS configuration of a creation.
func (s *Service) setDNS(c *types.DnsConfig) error {
	for _, r := range c.DnsRecords {
		if s.has(string(r.Type)) {
			return invalid("DnsRecords has more than one record of type %s", r.Type)
		}
		s.Records = append(s.Records, &Record{Type: string(r.Type), Ttl: uint32(aws.ToInt64(r.TTL))})
	}
	s.RoutingPolicy = string(c.RoutingPolicy)
	if s.has("CNAME") {
		if len(s.Records) > 1 {
			return invalid("A CNAME record can not be combined with records of other types")
		}
		if s.RoutingPolicy == "MULTIVALUE" {
			return invalid("A CNAME record needs the routing policy WEIGHTED")
		}
		s.RoutingPolicy = "WEIGHTED"
	}
	if s.RoutingPolicy == "" {
		s.RoutingPolicy = "MULTIVALUE"
	}
	return nil
}

// createService implements servicediscovery:CreateService.
func (f *Family) createService(ctx context.Context, in *sd.CreateServiceInput) (*sd.CreateServiceOutput, error) {
	if in.HealthCheckConfig != nil {
		if in.HealthCheckCustomConfig != nil {
			return nil, invalid("Only one of HealthCheckConfig and HealthCheckCustomConfig can be specified")
		}
		return nil, notYet("A health check by Route 53 (HealthCheckConfig) is")
	}
	s := &Service{Name: aws.ToString(in.Name), Description: aws.ToString(in.Description), Id: "srv-" + id.Hex(f.Rand, 16), CustomHealth: in.HealthCheckCustomConfig != nil,
		Created: timestamppb.New(api.CallFrom(ctx).Time), CreatorRequest: aws.ToString(in.CreatorRequestId)}
	nsID := in.NamespaceId
	if in.DnsConfig != nil {
		if in.Type == types.ServiceTypeOptionHttp {
			return nil, invalid("A service of type HTTP can not have a DNS configuration")
		}
		if nsID == nil {
			nsID = in.DnsConfig.NamespaceId
		}
		if err := s.setDNS(in.DnsConfig); err != nil {
			return nil, err
		}
	}
	if nsID == nil {
		return nil, invalid("NamespaceId is required")
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	request := *in
	request.CreatorRequestId = nil
	out := &sd.CreateServiceOutput{}
	err = f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		made, err := once(ctx, tx, scope, in.CreatorRequestId, request, func() (string, error) { return s.Id, s.create(tx, scope, nsID, tags) })
		if err != nil {
			return err
		}
		now, err := findService(tx, scope, &made)
		if err != nil {
			return err
		}
		out.Service = renderService(tx, now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) create(tx *state.Tx, scope controlplane.Scope, namespace *string, tags map[string]string) error {
	n, err := findNamespace(tx, scope, namespace)
	if err != nil {
		return err
	}
	if n.Type == "HTTP" && len(s.Records) > 0 {
		return invalid("Services in HTTP namespaces cannot have a DNS configuration")
	}
	s.Account, s.Region, s.Namespace = scope.Account, scope.Region, n.Id
	for old := range Services.Scan(tx, scope.Key(n.Id)) {
		// Names that differ in case are one name in DNS.
		if old.Name == s.Name || n.Type != "HTTP" && strings.EqualFold(old.Name, s.Name) {
			return &awserr.Error{Code: "ServiceAlreadyExists", Message: "A service with name '" + s.Name + "' already exists.",
				Fields: map[string]any{"ServiceId": old.Id, "ServiceArn": old.ARN(), "CreatorRequestId": old.CreatorRequest}}
		}
	}
	Services.Put(tx, s)
	controlplane.PutTags(tx, scope, s.ARN(), tags)
	return nil
}

func renderService(r state.Reader, s *Service) *types.Service {
	count := int32(0)
	for range instances(r, s) {
		count++
	}
	out := &types.Service{Id: &s.Id, Arn: aws.String(s.ARN()), Name: &s.Name, NamespaceId: &s.Namespace, ResourceOwner: &s.Account, CreatedByAccount: &s.Account,
		Description: text(s.Description), CreateDate: aws.Time(s.Created.AsTime()), Type: types.ServiceTypeHttp, InstanceCount: &count, CreatorRequestId: text(s.CreatorRequest)}
	if len(s.Records) > 0 {
		out.Type = types.ServiceTypeDnsHttp
		out.DnsConfig = &types.DnsConfig{NamespaceId: &s.Namespace, RoutingPolicy: types.RoutingPolicy(s.RoutingPolicy)}
		for _, r := range s.Records {
			out.DnsConfig.DnsRecords = append(out.DnsConfig.DnsRecords, types.DnsRecord{Type: types.RecordType(r.Type), TTL: aws.Int64(int64(r.Ttl))})
		}
	}
	if s.CustomHealth {
		out.HealthCheckCustomConfig = &types.HealthCheckCustomConfig{FailureThreshold: aws.Int32(1)}
	}
	return out
}

// instances are those of the service that have not been withdrawn.
func instances(r state.Reader, s *Service) iter.Seq[*mesh.Endpoint] {
	return present(mesh.Endpoints.Scan(r, state.K(s.Account, s.Region, s.ARN())))
}

func present(all iter.Seq[*mesh.Endpoint]) iter.Seq[*mesh.Endpoint] {
	return filtered(all, []func(*mesh.Endpoint) bool{func(e *mesh.Endpoint) bool { return e.State != agent.EndpointState_ENDPOINT_DRAINING }})
}

// getService implements servicediscovery:GetService.
func (f *Family) getService(ctx context.Context, in *sd.GetServiceInput) (*sd.GetServiceOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	s, err := findService(v, scope, in.Id)
	if err != nil {
		return nil, err
	}
	return &sd.GetServiceOutput{Service: renderService(v, s)}, nil
}

// listServices implements servicediscovery:ListServices.
func (f *Family) listServices(ctx context.Context, in *sd.ListServicesInput) (*sd.ListServicesOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	var keep []func(*Service) bool
	for _, given := range in.Filters {
		match, err := filter(string(given.Name), given.Condition, given.Values, types.FilterConditionEq)
		if err != nil {
			return nil, err
		}
		switch given.Name {
		case types.ServiceFilterNameNamespaceId:
			namespace := idOf(scope, &given.Values[0], "namespace")
			keep = append(keep, func(s *Service) bool { return s.Namespace == namespace })
		case types.ServiceFilterNameResourceOwner:
			keep = append(keep, func(*Service) bool { return match("SELF") })
		default:
			return nil, invalid("Filter name '%s' is not valid", given.Name)
		}
	}
	page, next, err := api.Page(ctx, f.Pages, in, api.PageSize(in.MaxResults, 100, 100), func(after state.Key) iter.Seq[*Service] {
		return filtered(Services.ScanFrom(v, scope.Key(), after), keep)
	}, Services.Key)
	if err != nil {
		return nil, err
	}
	out := &sd.ListServicesOutput{Services: []types.ServiceSummary{}, NextToken: next}
	for _, s := range page {
		r := renderService(v, s)
		out.Services = append(out.Services, types.ServiceSummary{Id: r.Id, Arn: r.Arn, Name: r.Name, Description: r.Description, DnsConfig: r.DnsConfig, ResourceOwner: r.ResourceOwner,
			CreateDate: r.CreateDate, Type: r.Type, HealthCheckCustomConfig: r.HealthCheckCustomConfig, InstanceCount: r.InstanceCount, CreatedByAccount: r.CreatedByAccount})
	}
	return out, nil
}

// updateService implements servicediscovery:UpdateService: the description and the TTLs. A record that is left out is deleted.
func (f *Family) updateService(ctx context.Context, in *sd.UpdateServiceInput) (*sd.UpdateServiceOutput, error) {
	if in.Service.HealthCheckConfig != nil {
		return nil, notYet("A health check by Route 53 (HealthCheckConfig) is")
	}
	opID := id.UUID(f.Rand)
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := findService(tx, scope, in.Id)
		if err != nil {
			return err
		}
		n, err := findNamespace(tx, scope, &old.Namespace)
		if err != nil {
			return err
		}
		if n.Type == "HTTP" {
			return invalid("A service in an HTTP namespace can not be updated")
		}
		s := proto.Clone(old).(*Service)
		if in.Service.Description != nil {
			s.Description = *in.Service.Description
		}
		s.Records = nil
		if c := in.Service.DnsConfig; c != nil {
			for _, r := range c.DnsRecords {
				if !old.has(string(r.Type)) {
					return invalid("A record of type %s can not be added to the service", r.Type)
				}
			}
			if err := s.setDNS(&types.DnsConfig{DnsRecords: c.DnsRecords, RoutingPolicy: types.RoutingPolicy(old.RoutingPolicy)}); err != nil {
				return err
			}
		}
		Services.Put(tx, s)
		record(ctx, tx, scope, opID, types.OperationTypeUpdateService, map[string]string{"SERVICE": s.Id})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &sd.UpdateServiceOutput{OperationId: &opID}, nil
}

// deleteService implements servicediscovery:DeleteService.
func (f *Family) deleteService(ctx context.Context, in *sd.DeleteServiceInput) (*sd.DeleteServiceOutput, error) {
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		s, err := findService(tx, scope, in.Id)
		if err != nil {
			return err
		}
		for range mesh.Endpoints.Scan(tx, scope.Key(s.ARN())) {
			return awserr.New("ResourceInUse", "Service contains registered instances; delete the instances before deleting the service")
		}
		Services.Delete(tx, Services.Key(s))
		controlplane.PutTags(tx, scope, s.ARN(), nil)
		for r := range Rosters.Scan(tx, scope.Key(s.Id)) {
			Rosters.Delete(tx, Rosters.Key(r))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &sd.DeleteServiceOutput{}, nil
}

// maxServiceAttributes a service may have.
const maxServiceAttributes = 30

// changeAttributes applies change to the attributes of a service itself.
func (f *Family) changeAttributes(ctx context.Context, text *string, change func(attributes map[string]string)) error {
	return f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := findService(tx, scope, text)
		if err != nil {
			return err
		}
		s := proto.Clone(old).(*Service)
		if s.Attributes == nil {
			s.Attributes = map[string]string{}
		}
		change(s.Attributes)
		if len(s.Attributes) > maxServiceAttributes {
			return awserr.New("ServiceAttributesLimitExceededException", "A service can have at most %d attributes.", maxServiceAttributes)
		}
		Services.Put(tx, s)
		return nil
	})
}

// updateServiceAttributes implements servicediscovery:UpdateServiceAttributes.
func (f *Family) updateServiceAttributes(ctx context.Context, in *sd.UpdateServiceAttributesInput) (*sd.UpdateServiceAttributesOutput, error) {
	if err := f.changeAttributes(ctx, in.ServiceId, func(a map[string]string) { maps.Copy(a, in.Attributes) }); err != nil {
		return nil, err
	}
	return &sd.UpdateServiceAttributesOutput{}, nil
}

// deleteServiceAttributes implements servicediscovery:DeleteServiceAttributes.
func (f *Family) deleteServiceAttributes(ctx context.Context, in *sd.DeleteServiceAttributesInput) (*sd.DeleteServiceAttributesOutput, error) {
	err := f.changeAttributes(ctx, in.ServiceId, func(a map[string]string) {
		for _, k := range in.Attributes {
			delete(a, k)
		}
	})
	if err != nil {
		return nil, err
	}
	return &sd.DeleteServiceAttributesOutput{}, nil
}

// getServiceAttributes implements servicediscovery:GetServiceAttributes.
func (f *Family) getServiceAttributes(ctx context.Context, in *sd.GetServiceAttributesInput) (*sd.GetServiceAttributesOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	s, err := findService(v, scope, in.ServiceId)
	if err != nil {
		return nil, err
	}
	return &sd.GetServiceAttributesOutput{ServiceAttributes: &types.ServiceAttributes{ServiceArn: aws.String(s.ARN()), ResourceOwner: &s.Account, Attributes: s.Attributes}}, nil
}
