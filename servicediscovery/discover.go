package servicediscovery

import (
	"context"
	"math/rand/v2"

	"github.com/aws/aws-sdk-go-v2/aws"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/mesh"
)

// named finds a service as clients of discovery name it. owner is the namespace's account; namespaces are not shared, so any
// other account has none.
func (f *Family) named(ctx context.Context, namespace, service, owner *string) (*state.View, *Namespace, *Service, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	for n := range Namespaces.Scan(v, scope.Key()) {
		if n.Name != aws.ToString(namespace) || owner != nil && *owner != scope.Account {
			continue
		}
		s, ok := Services.Get(v, scope.Key(n.Id, aws.ToString(service)))
		if !ok {
			return nil, nil, nil, awserr.New("ServiceNotFound", "No service with name '%s' exists in namespace '%s'.", aws.ToString(service), n.Name)
		}
		return v, n, s, nil
	}
	return nil, nil, nil, awserr.New("NamespaceNotFound", "Namespace not found")
}

// discoverInstances implements servicediscovery:DiscoverInstances, in random order. Without HealthStatus healthy instances are
// answered, or all when none is: as DNS does.
func (f *Family) discoverInstances(ctx context.Context, in *sd.DiscoverInstancesInput) (*sd.DiscoverInstancesOutput, error) {
	v, n, s, err := f.named(ctx, in.NamespaceName, in.ServiceName, in.OwnerAccount)
	if err != nil {
		return nil, err
	}
	var found []*mesh.Endpoint
	for e := range instances(v, s) {
		if has(e, in.QueryParameters) {
			found = append(found, e)
		}
	}
	if s.CustomHealth {
		found = byHealth(found, in.HealthStatus)
	}
	if wished := only(found, func(e *mesh.Endpoint) bool { return has(e, in.OptionalParameters) }); len(wished) > 0 {
		found = wished
	}
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	out := &sd.DiscoverInstancesOutput{Instances: []types.HttpInstanceSummary{}, InstancesRevision: aws.Int64(rosterRevision(v, s))}
	for _, e := range found[:min(len(found), api.PageSize(in.MaxResults, 100, 1000))] {
		out.Instances = append(out.Instances, types.HttpInstanceSummary{InstanceId: &e.Id, NamespaceName: &n.Name, ServiceName: &s.Name,
			HealthStatus: healthOf(s, e), Attributes: e.Attributes})
	}
	return out, nil
}

// discoverInstancesRevision implements servicediscovery:DiscoverInstancesRevision.
func (f *Family) discoverInstancesRevision(ctx context.Context, in *sd.DiscoverInstancesRevisionInput) (*sd.DiscoverInstancesRevisionOutput, error) {
	v, _, s, err := f.named(ctx, in.NamespaceName, in.ServiceName, in.OwnerAccount)
	if err != nil {
		return nil, err
	}
	return &sd.DiscoverInstancesRevisionOutput{InstancesRevision: aws.Int64(rosterRevision(v, s))}, nil
}

func has(e *mesh.Endpoint, want map[string]string) bool {
	for k, v := range want {
		if got, ok := e.Attributes[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func only(all []*mesh.Endpoint, keep func(*mesh.Endpoint) bool) []*mesh.Endpoint {
	var out []*mesh.Endpoint
	for _, e := range all {
		if keep(e) {
			out = append(out, e)
		}
	}
	return out
}

func healthy(e *mesh.Endpoint) bool { return e.State == agent.EndpointState_ENDPOINT_HEALTHY }

func byHealth(all []*mesh.Endpoint, want types.HealthStatusFilter) []*mesh.Endpoint {
	switch want {
	case types.HealthStatusFilterAll:
		return all
	case types.HealthStatusFilterHealthy:
		return only(all, healthy)
	case types.HealthStatusFilterUnhealthy:
		return only(all, func(e *mesh.Endpoint) bool { return !healthy(e) })
	}
	return orElseAll(all)
}

// orElseAll are the healthy ones, or all if none is.
func orElseAll(all []*mesh.Endpoint) []*mesh.Endpoint {
	if good := only(all, healthy); len(good) > 0 {
		return good
	}
	return all
}
