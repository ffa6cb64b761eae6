package servicediscovery

import "github.com/seed-2f228079/neargate/api"

// Operations is the family's table. Public namespaces are not there: this platform serves no public DNS.
func (f *Family) Operations() []api.Operation {
	return []api.Operation{
		api.Write(f.createHTTPNamespace),
		api.Write(f.createPrivateDNSNamespace, api.Route("POST /namespaces")),
		api.Write(f.createService),
		api.Write(f.deleteNamespace),
		api.Write(f.deleteService),
		api.Write(f.deleteServiceAttributes),
		api.Write(f.deregisterInstance),
		api.Read(f.discoverInstances),
		api.Read(f.discoverInstancesRevision),
		api.Read(f.getInstance),
		api.Read(f.getInstancesHealthStatus),
		api.Read(f.getNamespace),
		api.Read(f.getOperation),
		api.Read(f.getService),
		api.Read(f.getServiceAttributes),
		api.Read(f.listInstances),
		api.Read(f.listNamespaces, api.Route("GET /namespaces")),
		api.Read(f.listOperations),
		api.Read(f.listServices),
		api.Read(f.listTagsForResource),
		api.Write(f.registerInstance),
		api.Write(f.tagResource),
		api.Write(f.untagResource),
		api.Write(f.updateHTTPNamespace),
		api.Write(f.updateInstanceCustomHealthStatus),
		api.Write(f.updatePrivateDNSNamespace),
		api.Write(f.updateService),
		api.Write(f.updateServiceAttributes),
	}
}
