package servicediscovery

import (
	"reflect"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// Operations is the family's table. Public namespaces are not there: this platform serves no public DNS.
func (f *Family) Operations() []api.Operation {
	table := []api.Operation{
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
	for i := range table {
		onWhat(&table[i])
	}
	return table
}

// onWhat says what an operation is on, by the members of its input: a namespace's or service's id or ARN, or the names by which
// instances are discovered ("Actions, resources, and condition keys for AWS Cloud Map" of the Service Authorization Reference).
func onWhat(o *api.Operation) {
	member := func(name string) func(in any) string {
		f, ok := o.In.FieldByName(name)
		if !ok || f.Type != reflect.TypeFor[*string]() {
			return nil
		}
		return func(in any) string {
			if p := reflect.ValueOf(in).Elem().FieldByIndex(f.Index).Interface().(*string); p != nil {
				return *p
			}
			return ""
		}
	}
	on := func(kind string, get func(any) string) {
		resource := func(c *api.Call, in any) []string {
			text := get(in)
			if id := idOf(controlplane.Scope{Account: c.Account, Region: c.Region}, &text, kind); id != "" {
				return []string{arn.New("servicediscovery", c.Region, c.Account, kind+"/"+id).String()}
			}
			return []string{text} // somebody else's, or nothing at all: the handler will say so
		}
		o.Resources = resource
		o.Keys = map[string]func(*api.Call, any) []string{"servicediscovery:" + kind + "arn": resource}
	}
	service, namespace, id, resource := member("ServiceId"), member("NamespaceId"), member("Id"), member("ResourceARN")
	switch {
	case service != nil:
		on("service", service)
	case namespace != nil:
		on("namespace", namespace)
	case id != nil && (o.Name == "GetService" || o.Name == "UpdateService" || o.Name == "DeleteService"):
		on("service", id)
	case id != nil:
		on("namespace", id)
	case resource != nil:
		o.Resources = func(_ *api.Call, in any) []string { return []string{resource(in)} }
	case member("ServiceName") != nil:
		o.Keys = map[string]func(*api.Call, any) []string{
			"servicediscovery:namespacename": func(_ *api.Call, in any) []string { return []string{member("NamespaceName")(in)} },
			"servicediscovery:servicename":   func(_ *api.Call, in any) []string { return []string{member("ServiceName")(in)} },
		}
	}
}
