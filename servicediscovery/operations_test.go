package servicediscovery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/mesh"
)

const home = "000000000000"

// must is the output of an operation that has to work.
func must[O any](out *O, err error) func(t *testing.T) *O {
	return func(t *testing.T) *O {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func (f *Family) testNamespace(t *testing.T, account, name string) string {
	t.Helper()
	op := must(f.createPrivateDNSNamespace(as(account, "CreatePrivateDnsNamespace"), &sd.CreatePrivateDnsNamespaceInput{Name: &name, Vpc: aws.String("vpc-1")}))(t)
	return must(f.getOperation(as(account, ""), &sd.GetOperationInput{OperationId: op.OperationId}))(t).Operation.Targets["NAMESPACE"]
}

func (f *Family) testService(t *testing.T, account, ns, name string, kinds ...types.RecordType) *types.Service {
	t.Helper()
	in := &sd.CreateServiceInput{Name: &name, NamespaceId: &ns, HealthCheckCustomConfig: &types.HealthCheckCustomConfig{}}
	if kinds != nil {
		in.DnsConfig = &types.DnsConfig{}
	}
	for _, k := range kinds {
		in.DnsConfig.DnsRecords = append(in.DnsConfig.DnsRecords, types.DnsRecord{Type: k, TTL: aws.Int64(10)})
	}
	return must(f.createService(as(account, "CreateService"), in))(t).Service
}

func (f *Family) testInstance(t *testing.T, account string, s *types.Service, name string, attributes ...string) *string {
	t.Helper()
	in := &sd.RegisterInstanceInput{ServiceId: s.Id, InstanceId: &name, Attributes: map[string]string{}}
	for _, a := range attributes {
		k, v, _ := strings.Cut(a, "=")
		in.Attributes[k] = v
	}
	return must(f.registerInstance(as(account, "RegisterInstance"), in))(t).OperationId
}

func TestCreatorRequestID(t *testing.T) {
	f, _ := family(t)
	ctx := as(home, "CreateHttpNamespace")
	in := func(name string) *sd.CreateHttpNamespaceInput {
		return &sd.CreateHttpNamespaceInput{Name: &name, CreatorRequestId: aws.String("r1")}
	}
	first := must(f.createHTTPNamespace(ctx, in("a")))(t)
	again := must(f.createHTTPNamespace(ctx, in("a")))(t)
	if *first.OperationId != *again.OperationId {
		t.Errorf("the same request made operations %s and %s", *first.OperationId, *again.OperationId)
	}
	if _, err := f.createHTTPNamespace(ctx, in("b")); !awserr.Is(err, "InvalidInput") {
		t.Errorf("another request with the same id: %v", err)
	}
	_, err := f.createHTTPNamespace(ctx, &sd.CreateHttpNamespaceInput{Name: aws.String("a"), CreatorRequestId: aws.String("r2")})
	if e, ok := awserr.As(err); !ok || e.Code != "NamespaceAlreadyExists" || e.Fields["CreatorRequestId"] != "r1" {
		t.Errorf("the name again: %v", err)
	}
	if _, err := f.createHTTPNamespace(as("111111111111", "CreateHttpNamespace"), in("a")); err != nil {
		t.Errorf("another account's request with the same id: %v", err)
	}

	ns := f.testNamespace(t, home, "x.local")
	svc := func() *types.Service {
		return must(f.createService(as(home, "CreateService"), &sd.CreateServiceInput{Name: aws.String("web"), NamespaceId: &ns, CreatorRequestId: aws.String("s1")}))(t).Service
	}
	if a, b := svc(), svc(); *a.Id != *b.Id {
		t.Errorf("the same request made services %s and %s", *a.Id, *b.Id)
	}
}

func TestListings(t *testing.T) {
	f, _ := family(t)
	var ids []string
	for i := range 5 {
		ids = append(ids, f.testNamespace(t, home, fmt.Sprintf("n%d.local", i)))
	}
	must(f.createHTTPNamespace(as(home, "CreateHttpNamespace"), &sd.CreateHttpNamespaceInput{Name: aws.String("plain")}))(t)
	f.testNamespace(t, "111111111111", "n0.local")

	var seen []string
	in := &sd.ListNamespacesInput{MaxResults: aws.Int32(2), Filters: []types.NamespaceFilter{{Name: types.NamespaceFilterNameType, Values: []string{"DNS_PRIVATE"}}}}
	for pages := 1; ; pages++ {
		out := must(f.listNamespaces(as(home, "ListNamespaces"), in))(t)
		for _, n := range out.Namespaces {
			seen = append(seen, *n.Id)
		}
		if in.NextToken = out.NextToken; out.NextToken == nil {
			if pages != 3 {
				t.Errorf("five namespaces in %d pages of two", pages)
			}
			break
		}
	}
	sort.Strings(ids)
	if !slices.Equal(seen, ids) {
		t.Errorf("pages have %v, want %v", seen, ids)
	}
	names := func(filter types.NamespaceFilter) (int, error) {
		out, err := f.listNamespaces(as(home, "ListNamespaces"), &sd.ListNamespacesInput{Filters: []types.NamespaceFilter{filter}})
		if err != nil {
			return 0, err
		}
		return len(out.Namespaces), nil
	}
	for _, c := range []struct {
		filter types.NamespaceFilter
		want   int
		code   string
	}{
		{types.NamespaceFilter{Name: types.NamespaceFilterNameName, Values: []string{"n1.local"}}, 1, ""},
		{types.NamespaceFilter{Name: types.NamespaceFilterNameName, Values: []string{"n"}, Condition: types.FilterConditionBeginsWith}, 5, ""},
		{types.NamespaceFilter{Name: types.NamespaceFilterNameHttpName, Values: []string{"plain"}}, 1, ""},
		{types.NamespaceFilter{Name: types.NamespaceFilterNameResourceOwner, Values: []string{"OTHER_ACCOUNTS"}}, 0, ""},
		{types.NamespaceFilter{Name: types.NamespaceFilterNameName, Values: []string{"a", "b"}}, 0, "InvalidInput"},
		{types.NamespaceFilter{Name: types.NamespaceFilterNameName, Values: []string{"a"}, Condition: types.FilterConditionIn}, 0, "InvalidInput"},
	} {
		got, err := names(c.filter)
		if got != c.want || (c.code == "") != (err == nil) || c.code != "" && !awserr.Is(err, c.code) {
			t.Errorf("%v: %d, %v; want %d, %s", c.filter, got, err, c.want, c.code)
		}
	}

	svc := f.testService(t, home, ids[0], "web", types.RecordTypeA)
	f.testService(t, home, ids[1], "api")
	services := must(f.listServices(as(home, "ListServices"), &sd.ListServicesInput{Filters: []types.ServiceFilter{{Name: types.ServiceFilterNameNamespaceId,
		Values: []string{"arn:aws:servicediscovery:us-east-1:" + home + ":namespace/" + ids[0]}}}}))(t)
	if len(services.Services) != 1 || *services.Services[0].Id != *svc.Id {
		t.Errorf("services of a namespace by its ARN: %v", services.Services)
	}
	for i := range 3 {
		f.testInstance(t, home, svc, fmt.Sprint("i", i), "AWS_INSTANCE_IPV4=10.0.0."+strconv.Itoa(i+1))
	}
	page := must(f.listInstances(as(home, "ListInstances"), &sd.ListInstancesInput{ServiceId: svc.Id, MaxResults: aws.Int32(2)}))(t)
	if len(page.Instances) != 2 || page.NextToken == nil {
		t.Fatalf("a page of instances: %v", page)
	}
	page = must(f.listInstances(as(home, "ListInstances"), &sd.ListInstancesInput{ServiceId: svc.Id, NextToken: page.NextToken}))(t)
	if len(page.Instances) != 1 || *page.Instances[0].Id != "i2" {
		t.Errorf("the rest of the instances: %v", page.Instances)
	}

	operations := func(filters ...types.OperationFilter) int {
		return len(must(f.listOperations(as(home, "ListOperations"), &sd.ListOperationsInput{Filters: filters}))(t).Operations)
	}
	now := time.Now().Unix()
	for _, c := range []struct {
		filter types.OperationFilter
		want   int
	}{
		{types.OperationFilter{Name: types.OperationFilterNameType, Values: []string{"CREATE_NAMESPACE"}}, 6},
		{types.OperationFilter{Name: types.OperationFilterNameType, Condition: types.FilterConditionIn, Values: []string{"CREATE_NAMESPACE", "REGISTER_INSTANCE"}}, 9},
		{types.OperationFilter{Name: types.OperationFilterNameNamespaceId, Values: []string{ids[0]}}, 1},
		{types.OperationFilter{Name: types.OperationFilterNameServiceId, Values: []string{*svc.Id}}, 3},
		{types.OperationFilter{Name: types.OperationFilterNameStatus, Values: []string{"FAIL"}}, 0},
		{types.OperationFilter{Name: types.OperationFilterNameStatus, Values: []string{"SUCCESS"}}, 9},
		{types.OperationFilter{Name: types.OperationFilterNameUpdateDate, Condition: types.FilterConditionBetween, Values: []string{fmt.Sprint(now - 60), fmt.Sprint(now + 60)}}, 9},
		{types.OperationFilter{Name: types.OperationFilterNameUpdateDate, Condition: types.FilterConditionBetween, Values: []string{"0", "1"}}, 0},
	} {
		if got := operations(c.filter); got != c.want {
			t.Errorf("operations with %v: %d, want %d", c.filter, got, c.want)
		}
	}
}

func TestOperationsAreRemoved(t *testing.T) {
	f, clk := family(t)
	f.testNamespace(t, home, "old.local")
	count := func() (n int) {
		for range Operations.Scan(f.Store.View(), state.K()) {
			n++
		}
		return n
	}
	if more, err := f.removeOld(context.Background()); err != nil || more || count() != 1 {
		t.Fatalf("a young operation: removed %v, %v", more, err)
	}
	clk.Advance(operationLife + time.Second)
	if _, err := f.removeOld(context.Background()); err != nil || count() != 0 {
		t.Errorf("an old operation is still there: %v", err)
	}
}

func TestServices(t *testing.T) {
	f, _ := family(t)
	ns := f.testNamespace(t, home, "prod.local")
	create := func(in sd.CreateServiceInput) error {
		in.NamespaceId = &ns
		_, err := f.createService(as(home, "CreateService"), &in)
		return err
	}
	dns := func(policy types.RoutingPolicy, kinds ...types.RecordType) *types.DnsConfig {
		c := &types.DnsConfig{RoutingPolicy: policy}
		for _, k := range kinds {
			c.DnsRecords = append(c.DnsRecords, types.DnsRecord{Type: k, TTL: aws.Int64(5)})
		}
		return c
	}
	for i, c := range []struct {
		in   sd.CreateServiceInput
		code string
	}{
		{sd.CreateServiceInput{DnsConfig: dns("", types.RecordTypeA, types.RecordTypeAaaa)}, ""},
		{sd.CreateServiceInput{DnsConfig: dns("", types.RecordTypeCname)}, ""},
		{sd.CreateServiceInput{DnsConfig: dns("MULTIVALUE", types.RecordTypeCname)}, "InvalidInput"},
		{sd.CreateServiceInput{DnsConfig: dns("", types.RecordTypeCname, types.RecordTypeA)}, "InvalidInput"},
		{sd.CreateServiceInput{DnsConfig: dns("", types.RecordTypeA, types.RecordTypeA)}, "InvalidInput"},
		{sd.CreateServiceInput{Type: types.ServiceTypeOptionHttp, DnsConfig: dns("", types.RecordTypeA)}, "InvalidInput"},
		{sd.CreateServiceInput{HealthCheckConfig: &types.HealthCheckConfig{}}, "InvalidInput"},
	} {
		c.in.Name = aws.String(fmt.Sprint("s", i))
		if err := create(c.in); (c.code == "") != (err == nil) || c.code != "" && !awserr.Is(err, c.code) {
			t.Errorf("%d: %v, want %s", i, err, c.code)
		}
	}
	if err := create(sd.CreateServiceInput{Name: aws.String("S0")}); !awserr.Is(err, "ServiceAlreadyExists") {
		t.Errorf("a name that differs in case: %v", err)
	}

	svc := f.testService(t, home, ns, "web", types.RecordTypeA, types.RecordTypeSrv)
	update := func(c *types.ServiceChange) error {
		_, err := f.updateService(as(home, "UpdateService"), &sd.UpdateServiceInput{Id: svc.Id, Service: c})
		return err
	}
	if err := update(&types.ServiceChange{DnsConfig: &types.DnsConfigChange{DnsRecords: []types.DnsRecord{{Type: types.RecordTypeAaaa, TTL: aws.Int64(1)}}}}); !awserr.Is(err, "InvalidInput") {
		t.Errorf("a record of another type: %v", err)
	}
	if err := update(&types.ServiceChange{Description: aws.String("d"), DnsConfig: &types.DnsConfigChange{DnsRecords: []types.DnsRecord{{Type: types.RecordTypeA, TTL: aws.Int64(77)}}}}); err != nil {
		t.Fatal(err)
	}
	got := must(f.getService(as(home, ""), &sd.GetServiceInput{Id: svc.Arn}))(t).Service
	if *got.Description != "d" || len(got.DnsConfig.DnsRecords) != 1 || *got.DnsConfig.DnsRecords[0].TTL != 77 {
		t.Errorf("after the update: %v %v", got.Description, got.DnsConfig)
	}
	must(f.updateServiceAttributes(as(home, ""), &sd.UpdateServiceAttributesInput{ServiceId: svc.Id, Attributes: map[string]string{"a": "1", "b": "2"}}))(t)
	must(f.deleteServiceAttributes(as(home, ""), &sd.DeleteServiceAttributesInput{ServiceId: svc.Id, Attributes: []string{"a"}}))(t)
	if a := must(f.getServiceAttributes(as(home, ""), &sd.GetServiceAttributesInput{ServiceId: svc.Id}))(t).ServiceAttributes.Attributes; len(a) != 1 || a["b"] != "2" {
		t.Errorf("attributes: %v", a)
	}
	must(f.updatePrivateDNSNamespace(as(home, ""), &sd.UpdatePrivateDnsNamespaceInput{Id: &ns, Namespace: &types.PrivateDnsNamespaceChange{Description: aws.String("n")}}))(t)
	n := must(f.getNamespace(as(home, ""), &sd.GetNamespaceInput{Id: &ns}))(t).Namespace
	if *n.Description != "n" || *n.ServiceCount != 3 {
		t.Errorf("namespace: %s, %d services", *n.Description, *n.ServiceCount)
	}
	if _, err := f.updateHTTPNamespace(as(home, ""), &sd.UpdateHttpNamespaceInput{Id: &ns, Namespace: &types.HttpNamespaceChange{Description: aws.String("n")}}); !awserr.Is(err, "InvalidInput") {
		t.Errorf("a private namespace as an HTTP one: %v", err)
	}

	must(f.tagResource(as(home, ""), &sd.TagResourceInput{ResourceARN: svc.Arn, Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}, {Key: aws.String("l"), Value: aws.String("w")}}}))(t)
	must(f.untagResource(as(home, ""), &sd.UntagResourceInput{ResourceARN: svc.Arn, TagKeys: []string{"l"}}))(t)
	tags := must(f.listTagsForResource(as(home, ""), &sd.ListTagsForResourceInput{ResourceARN: svc.Arn}))(t).Tags
	if len(tags) != 1 || *tags[0].Key != "k" || *tags[0].Value != "v" {
		t.Errorf("tags: %v", tags)
	}
	if _, err := f.listTagsForResource(as("111111111111", ""), &sd.ListTagsForResourceInput{ResourceARN: svc.Arn}); !awserr.Is(err, "ResourceNotFoundException") {
		t.Errorf("another account's tags: %v", err)
	}
}

func TestInstances(t *testing.T) {
	f, _ := family(t)
	ns := f.testNamespace(t, home, "prod.local")
	both := f.testService(t, home, ns, "both", types.RecordTypeA, types.RecordTypeAaaa)
	alias := f.testService(t, home, ns, "alias", types.RecordTypeCname)
	srv := f.testService(t, home, ns, "srv", types.RecordTypeSrv)
	for _, c := range []struct {
		svc        *types.Service
		id         string
		attributes map[string]string
	}{
		{both, "i", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.1"}},
		{both, "i", map[string]string{"AWS_INSTANCE_IPV4": "fd00::1", "AWS_INSTANCE_IPV6": "fd00::1"}},
		{both, "i", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_IPV6": "10.0.0.1"}},
		{both, "i", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_IPV6": "fd00::1", "AWS_INIT_HEALTH_STATUS": "GOOD"}},
		{alias, "i", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.1"}},
		{alias, "i", map[string]string{"AWS_INSTANCE_CNAME": "not a name"}},
		{alias, "i", map[string]string{"AWS_ALIAS_DNS_NAME": "lb.example.com"}},
		{srv, "i", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.1"}},
		{srv, "i", map[string]string{"AWS_INSTANCE_PORT": "80"}},
		{srv, "a/b", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": "80"}},
	} {
		if _, err := f.registerInstance(as(home, "RegisterInstance"), &sd.RegisterInstanceInput{ServiceId: c.svc.Id, InstanceId: &c.id, Attributes: c.attributes}); !awserr.Is(err, "InvalidInput") {
			t.Errorf("%s %v: %v", *c.svc.Name, c.attributes, err)
		}
	}
	f.testInstance(t, home, both, "i", "AWS_INSTANCE_IPV4=10.0.0.1", "AWS_INSTANCE_IPV6=fd00::1")
	f.testInstance(t, home, alias, "i", "AWS_INSTANCE_CNAME=db.example.com")
	f.testInstance(t, home, srv, "i", "AWS_INSTANCE_IPV6=fd00::2", "AWS_INSTANCE_PORT=80")
	var got []string
	for _, r := range (Source{}).Full(f.Store.View(), "") {
		for _, rs := range r.GetZone().Records {
			got = append(got, rs.Name+" "+rs.Type+" "+strings.Join(rs.Values, ","))
		}
	}
	want := []string{"alias.prod.local. CNAME db.example.com.", "both.prod.local. A 10.0.0.1", "both.prod.local. AAAA fd00::1",
		"i.srv.prod.local. AAAA fd00::2", "srv.prod.local. SRV 1 1 80 i.srv.prod.local."}
	if !slices.Equal(got, want) {
		t.Errorf("zone:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	in := must(f.getInstance(as(home, ""), &sd.GetInstanceInput{ServiceId: srv.Id, InstanceId: aws.String("i")}))(t).Instance
	if in.Attributes["AWS_INSTANCE_PORT"] != "80" {
		t.Errorf("instance: %v", in.Attributes)
	}
	out := must(f.deregisterInstance(as(home, ""), &sd.DeregisterInstanceInput{ServiceId: srv.Id, InstanceId: aws.String("i")}))(t)
	op := must(f.getOperation(as(home, ""), &sd.GetOperationInput{OperationId: out.OperationId}))(t).Operation
	if op.Type != types.OperationTypeDeregisterInstance || op.Status != types.OperationStatusSuccess || op.Targets["INSTANCE"] != "i" {
		t.Errorf("operation: %+v", op)
	}
	if _, err := f.getInstance(as(home, ""), &sd.GetInstanceInput{ServiceId: srv.Id, InstanceId: aws.String("i")}); !awserr.Is(err, "InstanceNotFound") {
		t.Errorf("an instance that was deregistered: %v", err)
	}
}

func TestDiscoverByHealthAndAttributes(t *testing.T) {
	f, _ := family(t)
	svc := f.testService(t, home, f.testNamespace(t, home, "prod.local"), "web", types.RecordTypeA)
	discover := func(in sd.DiscoverInstancesInput) (string, int64) {
		t.Helper()
		in.NamespaceName, in.ServiceName = aws.String("prod.local"), aws.String("web")
		out := must(f.discoverInstances(as(home, ""), &in))(t)
		var ids []string
		for _, i := range out.Instances {
			ids = append(ids, *i.InstanceId)
		}
		sort.Strings(ids)
		return strings.Join(ids, ","), *out.InstancesRevision
	}
	f.testInstance(t, home, svc, "a", "AWS_INSTANCE_IPV4=10.0.0.1", "stage=one", "color=blue")
	f.testInstance(t, home, svc, "b", "AWS_INSTANCE_IPV4=10.0.0.2", "stage=one", "AWS_INIT_HEALTH_STATUS=UNHEALTHY")
	_, before := discover(sd.DiscoverInstancesInput{})
	f.testInstance(t, home, svc, "c", "AWS_INSTANCE_IPV4=10.0.0.3", "stage=two")
	_, after := discover(sd.DiscoverInstancesInput{})
	if after <= before {
		t.Errorf("revision %d after a registration, %d before", after, before)
	}
	set := func(id string, st types.CustomHealthStatus) {
		t.Helper()
		must(f.updateInstanceCustomHealthStatus(as(home, ""), &sd.UpdateInstanceCustomHealthStatusInput{ServiceId: svc.Id, InstanceId: &id, Status: st}))(t)
	}
	check := func(want string, in sd.DiscoverInstancesInput) {
		t.Helper()
		if got, _ := discover(in); got != want {
			t.Errorf("%v %v %v: %s, want %s", in.HealthStatus, in.QueryParameters, in.OptionalParameters, got, want)
		}
	}
	check("a,c", sd.DiscoverInstancesInput{})
	check("a,c", sd.DiscoverInstancesInput{HealthStatus: types.HealthStatusFilterHealthy})
	check("b", sd.DiscoverInstancesInput{HealthStatus: types.HealthStatusFilterUnhealthy})
	check("a,b,c", sd.DiscoverInstancesInput{HealthStatus: types.HealthStatusFilterAll})
	check("a,b", sd.DiscoverInstancesInput{HealthStatus: types.HealthStatusFilterAll, QueryParameters: map[string]string{"stage": "one"}})
	check("a", sd.DiscoverInstancesInput{OptionalParameters: map[string]string{"color": "blue"}})
	check("a,c", sd.DiscoverInstancesInput{OptionalParameters: map[string]string{"color": "green"}})
	set("a", types.CustomHealthStatusUnhealthy)
	set("c", types.CustomHealthStatusUnhealthy)
	check("", sd.DiscoverInstancesInput{HealthStatus: types.HealthStatusFilterHealthy})
	check("a,b,c", sd.DiscoverInstancesInput{HealthStatus: types.HealthStatusFilterHealthyOrElseAll})
	if n := len((Source{}).Full(f.Store.View(), "")[0].GetZone().Records[0].Values); n != 3 {
		t.Errorf("none is healthy and DNS answers %d addresses, want all", n)
	}
	set("b", types.CustomHealthStatusHealthy)
	check("b", sd.DiscoverInstancesInput{})
	if v := (Source{}).Full(f.Store.View(), "")[0].GetZone().Records[0].Values; len(v) != 1 || v[0] != "10.0.0.2" {
		t.Errorf("DNS answers %v, want the healthy one", v)
	}
	health := must(f.getInstancesHealthStatus(as(home, "GetInstancesHealthStatus"), &sd.GetInstancesHealthStatusInput{ServiceId: svc.Id, Instances: []string{"a", "b"}}))(t).Status
	if len(health) != 2 || health["a"] != types.HealthStatusUnhealthy || health["b"] != types.HealthStatusHealthy {
		t.Errorf("health: %v", health)
	}
	if _, now := discover(sd.DiscoverInstancesInput{}); now != after {
		t.Errorf("health changed the revision from %d to %d", after, now)
	}
	must(f.deregisterInstance(as(home, ""), &sd.DeregisterInstanceInput{ServiceId: svc.Id, InstanceId: aws.String("a")}))(t)
	rev := must(f.discoverInstancesRevision(as(home, ""), &sd.DiscoverInstancesRevisionInput{NamespaceName: aws.String("prod.local"), ServiceName: aws.String("web")}))(t)
	if *rev.InstancesRevision <= after {
		t.Errorf("revision %d after a deregistration, %d before", *rev.InstancesRevision, after)
	}
	out := must(f.discoverInstances(as(home, ""), &sd.DiscoverInstancesInput{NamespaceName: aws.String("prod.local"), ServiceName: aws.String("web"), HealthStatus: types.HealthStatusFilterAll, MaxResults: aws.Int32(1)}))(t)
	if len(out.Instances) != 1 {
		t.Errorf("MaxResults 1 gives %d", len(out.Instances))
	}
}

// TestDelta: what a subscriber has after the changes is what Full says, after any operations.
func TestDelta(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	f, _ := family(t)
	ctx := t.Context()
	var tables []state.TableInfo = Source{}.Tables()
	w := f.Store.Watch(ctx, f.Store.Revision(), tables...)
	have := map[string]*agent.Resource{}
	accounts := []string{home, "111111111111"}
	pick := func(n int) string { return strconv.Itoa(rnd.IntN(n)) }
	for step := range 400 {
		account := accounts[rnd.IntN(2)]
		before := f.Store.Revision()
		v := f.Store.View()
		var services []*Service
		for s := range Services.Scan(v, state.K(account)) {
			services = append(services, s)
		}
		var namespaces []*Namespace
		for n := range Namespaces.Scan(v, state.K(account)) {
			namespaces = append(namespaces, n)
		}
		// What is refused changes nothing; that is part of the test.
		switch op := rnd.IntN(10); {
		case op == 0:
			f.createPrivateDNSNamespace(as(account, "CreatePrivateDnsNamespace"), &sd.CreatePrivateDnsNamespaceInput{Name: aws.String("n" + pick(3) + ".local"), Vpc: aws.String("vpc-1")})
		case op == 1 && len(namespaces) > 0:
			f.deleteNamespace(as(account, ""), &sd.DeleteNamespaceInput{Id: &namespaces[rnd.IntN(len(namespaces))].Id})
		case op == 2 && len(namespaces) > 0:
			kinds := [][]types.DnsRecord{{{Type: "A", TTL: aws.Int64(5)}}, {{Type: "SRV", TTL: aws.Int64(5)}}, {{Type: "A", TTL: aws.Int64(5)}, {Type: "SRV", TTL: aws.Int64(9)}}}
			f.createService(as(account, ""), &sd.CreateServiceInput{Name: aws.String("s" + pick(3)), NamespaceId: &namespaces[rnd.IntN(len(namespaces))].Id,
				DnsConfig: &types.DnsConfig{DnsRecords: kinds[rnd.IntN(3)]}, HealthCheckCustomConfig: &types.HealthCheckCustomConfig{}})
		case op == 3 && len(services) > 0:
			f.deleteService(as(account, ""), &sd.DeleteServiceInput{Id: &services[rnd.IntN(len(services))].Id})
		case op == 4 && len(services) > 0:
			s := services[rnd.IntN(len(services))]
			f.updateService(as(account, ""), &sd.UpdateServiceInput{Id: &s.Id, Service: &types.ServiceChange{DnsConfig: &types.DnsConfigChange{
				DnsRecords: []types.DnsRecord{{Type: types.RecordType(s.Records[0].Type), TTL: aws.Int64(rnd.Int64N(100))}}}}})
		case op <= 6 && len(services) > 0:
			f.registerInstance(as(account, ""), &sd.RegisterInstanceInput{ServiceId: &services[rnd.IntN(len(services))].Id, InstanceId: aws.String("i" + pick(4)),
				Attributes: map[string]string{attrIPv4: "10.0.0." + pick(200), attrPort: "80"}})
		case op == 7 && len(services) > 0:
			f.deregisterInstance(as(account, ""), &sd.DeregisterInstanceInput{ServiceId: &services[rnd.IntN(len(services))].Id, InstanceId: aws.String("i" + pick(4))})
		case op == 8 && len(services) > 0:
			f.updateInstanceCustomHealthStatus(as(account, ""), &sd.UpdateInstanceCustomHealthStatusInput{ServiceId: &services[rnd.IntN(len(services))].Id,
				InstanceId: aws.String("i" + pick(4)), Status: []types.CustomHealthStatus{"HEALTHY", "UNHEALTHY"}[rnd.IntN(2)]})
		case len(services) > 0:
			s := services[rnd.IntN(len(services))]
			f.Store.Update(ctx, func(tx *state.Tx) error {
				mesh.Withdraw(tx, state.K(s.Account, s.Region, s.ARN(), "i"+pick(4)), mesh.Withdrawal{}, time.Now())
				return nil
			})
		}
		after := f.Store.Revision()
		for seen := before; seen < after; {
			b, err := w.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			seen = b.Revision
			if len(b.Events) > 0 {
				changes := Source{}.Delta(b.View, b.Events)
				if len(changes) > 1 {
					t.Errorf("step %d: one operation changed %d zones", step, len(changes))
				}
				for _, c := range changes {
					if delete(have, c.Name); c.Resource != nil {
						have[c.Name] = c.Resource
					}
				}
			}
		}
		full := Source{}.Full(f.Store.View(), "")
		if len(full) != len(have) {
			t.Fatalf("step %d: %d zones by changes, %d in full", step, len(have), len(full))
		}
		for _, r := range full {
			if !proto.Equal(r, have[r.Name]) {
				t.Fatalf("step %d: %s by changes\n%v\nin full\n%v", step, r.Name, have[r.Name], r)
			}
		}
	}
}
