package ecs

import (
	"reflect"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// What policies are held against, by "Actions, resources, and condition keys for Amazon Elastic Container Service" of the Service
// Authorization Reference. A reference that names nothing valid is refused by the handler; until then it is rendered as it is.

// conditionKeys adds ecs:cluster, ecs:container-name, ecs:service and ecs:task-definition to every operation whose input names one.
func (s *Service) conditionKeys(o *api.Operation) {
	add := func(key, field string, render func(c *api.Call, ref *string) string) {
		f, ok := o.In.FieldByName(field)
		if !ok || f.Type != reflect.TypeFor[*string]() {
			return
		}
		if o.Keys == nil {
			o.Keys = map[string]func(*api.Call, any) []string{}
		}
		o.Keys[key] = func(c *api.Call, in any) []string {
			ref := reflect.ValueOf(in).Elem().FieldByIndex(f.Index).Interface().(*string)
			if ref == nil && key != "ecs:cluster" { // there is a default cluster
				return nil
			}
			return []string{render(c, ref)}
		}
	}
	add("ecs:cluster", "Cluster", clusterARN)
	add("ecs:container-name", "Container", func(_ *api.Call, ref *string) string { return aws.ToString(ref) })
	add("ecs:task-definition", "TaskDefinition", s.definitionARN)
	if cluster, ok := o.In.FieldByName("Cluster"); ok {
		add("ecs:service", "Service", func(c *api.Call, ref *string) string { return aws.ToString(ref) })
		if f := o.Keys["ecs:service"]; f != nil {
			o.Keys["ecs:service"] = func(c *api.Call, in any) []string {
				refs := f(c, in)
				for i := range refs {
					refs[i] = named(c, "service", reflect.ValueOf(in).Elem().FieldByIndex(cluster.Index).Interface().(*string), &refs[i])
				}
				return refs
			}
		}
	}
}

// each renders a list of references.
func each(refs []string, render func(ref *string) string) []string {
	out := make([]string, len(refs))
	for i := range refs {
		out[i] = render(&refs[i])
	}
	return out
}

func callScope(c *api.Call) controlplane.Scope {
	return controlplane.Scope{Account: c.Account, Region: c.Region}
}

func clusterARN(c *api.Call, ref *string) string {
	scope := callScope(c)
	name, err := clusterName(scope, ref)
	if err != nil {
		return aws.ToString(ref)
	}
	return scope.ClusterARN(name)
}

func named(c *api.Call, kind string, cluster, ref *string) string {
	scope := callScope(c)
	of, err := clusterName(scope, cluster)
	if err != nil {
		return aws.ToString(cluster)
	}
	name, err := member(scope, kind, of, aws.ToString(ref))
	if err != nil {
		return aws.ToString(ref)
	}
	return arn.New("ecs", c.Region, c.Account, kind+"/"+of+"/"+name).String()
}

// attributesARNs are the instances that attributes are of; the cluster when there is none.
func attributesARNs(c *api.Call, cluster *string, attributes []types.Attribute) []string {
	var out []string
	for _, a := range attributes {
		out = append(out, named(c, "container-instance", cluster, a.TargetId))
	}
	if out == nil {
		out = []string{clusterARN(c, cluster)}
	}
	return out
}

func capacityProviderARN(c *api.Call, ref *string) string {
	if arn.Is(aws.ToString(ref)) {
		return *ref
	}
	return arn.New("ecs", c.Region, c.Account, "capacity-provider/"+aws.ToString(ref)).String()
}

// definitionARN is that of the revision which will run: without a number, of the latest. Otherwise a policy that allows some
// revisions would have nothing to say about "the latest".
func (s *Service) definitionARN(c *api.Call, ref *string) string {
	scope := callScope(c)
	if d, ok, err := taskDefinition(s.Store.View(), scope, aws.ToString(ref)); err == nil && ok {
		return d.ARN()
	}
	if arn.Is(aws.ToString(ref)) {
		return *ref
	}
	return scope.TaskDefinitionARN(aws.ToString(ref))
}
