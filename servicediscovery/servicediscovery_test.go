package servicediscovery

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/seal"
	"github.com/seed-2f228079/neargate/mesh"
)

func family(t *testing.T) (*Family, *clock.Fake) {
	schema := append(append(state.Schema{}, controlplane.Schema...), append(Schema, mesh.Schema...)...)
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	sealer, err := seal.New(key, "pages")
	if err != nil {
		t.Fatal(err)
	}
	clk := clock.NewFake(time.Now())
	return New(Config{Store: statetest.New(t, schema...), Rand: rand.Reader, Pages: api.NewPages(sealer), Clock: clk,
		VPCExists: func(_, _, id string) bool { return id == "vpc-1" }}), clk
}

func as(account, operation string) context.Context {
	return api.WithCall(context.Background(), &api.Call{Identity: api.System(account), Region: "us-east-1", Service: "servicediscovery", Operation: operation, Time: time.Now()})
}

func TestDiscovery(t *testing.T) {
	f, clk := family(t)
	ctx := as("000000000000", "")
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ns, err := f.createPrivateDNSNamespace(ctx, &sd.CreatePrivateDnsNamespaceInput{Name: aws.String("prod.local"), Vpc: aws.String("vpc-1")})
	ok(err)
	op, err := f.getOperation(ctx, &sd.GetOperationInput{OperationId: ns.OperationId})
	ok(err)
	id := op.Operation.Targets["NAMESPACE"]
	if _, err := f.createPrivateDNSNamespace(ctx, &sd.CreatePrivateDnsNamespaceInput{Name: aws.String("prod.local"), Vpc: aws.String("vpc-1")}); !awserr.Is(err, "NamespaceAlreadyExists") {
		t.Errorf("a second namespace of the name: %v", err)
	}
	made, err := f.createService(ctx, &sd.CreateServiceInput{Name: aws.String("web"), NamespaceId: &id, DnsConfig: &types.DnsConfig{DnsRecords: []types.DnsRecord{
		{Type: types.RecordTypeA, TTL: aws.Int64(10)}, {Type: types.RecordTypeAaaa, TTL: aws.Int64(10)}, {Type: types.RecordTypeSrv, TTL: aws.Int64(20)}}}})
	ok(err)
	svc := made.Service
	if srv, exists := f.ServiceRegistry(f.Store.View(), "000000000000", "us-east-1", *svc.Arn); !srv || !exists {
		t.Errorf("registry: srv %v, exists %v", srv, exists)
	}
	for n := range Namespaces.Scan(f.Store.View(), state.K()) {
		if v := f.Store.View(); !f.NamespaceExists(v, "000000000000", "us-east-1", n.Name) || !f.NamespaceExists(v, "000000000000", "us-east-1", n.ARN()) ||
			f.NamespaceExists(v, "111111111111", "us-east-1", n.Name) || f.NamespaceExists(v, "000000000000", "us-east-1", n.Id+"0") {
			t.Errorf("namespace %s is not found by its name and its ARN alone", n.Name)
		}
	}
	if _, exists := f.ServiceRegistry(f.Store.View(), "111111111111", "us-east-1", *svc.Arn); exists {
		t.Error("another account has the registry")
	}

	r := Router{Clock: clk}
	task := &controlplane.Task{Account: "000000000000", Region: "us-east-1", Cluster: "default", Id: "t1", Service: "web"}
	_, err = f.Store.Update(ctx, func(tx *state.Tx) error {
		controlplane.Services.Put(tx, &controlplane.Service{Account: task.Account, Region: task.Region, Cluster: "default", Name: "web",
			ServiceRegistriesJson: controlplane.EncodeShape([]ecstypes.ServiceRegistry{{RegistryArn: svc.Arn, Port: aws.Int32(3000)}})})
		return r.Register(tx, task, &controlplane.TaskStatus{Report: &agent.TaskStatus{Address: "10.1.0.2", Ipv6Address: "fd00::2"}})
	})
	ok(err)
	answers := func() string {
		var out []string
		for _, res := range (Source{}).Full(f.Store.View(), "") {
			for _, rs := range res.GetZone().Records {
				for _, v := range rs.Values {
					out = append(out, rs.Name+" "+rs.Type+" "+v)
				}
			}
		}
		return strings.Join(out, "|")
	}
	if got, want := answers(), "web.prod.local. A 10.1.0.2|web.prod.local. AAAA fd00::2|t1.web.prod.local. A 10.1.0.2|t1.web.prod.local. AAAA fd00::2|web.prod.local. SRV 1 1 3000 t1.web.prod.local."; got != want {
		t.Errorf("zone %s, want %s", got, want)
	}
	found, err := f.discoverInstances(ctx, &sd.DiscoverInstancesInput{NamespaceName: aws.String("prod.local"), ServiceName: aws.String("web")})
	ok(err)
	if len(found.Instances) != 1 || found.Instances[0].Attributes["AWS_INSTANCE_PORT"] != "3000" || found.Instances[0].Attributes["AWS_INSTANCE_IPV6"] != "fd00::2" {
		t.Errorf("discovered %v", found.Instances)
	}
	if _, err := f.deleteService(ctx, &sd.DeleteServiceInput{Id: svc.Id}); !awserr.Is(err, "ResourceInUse") {
		t.Errorf("delete a service with instances: %v", err)
	}
	_, err = f.Store.Update(ctx, func(tx *state.Tx) error { return r.Withdraw(tx, task, true) })
	ok(err)
	if answers() != "" {
		t.Errorf("a withdrawn task is answered: %s", answers())
	}
	for e := range mesh.Endpoints.Scan(f.Store.View(), state.K()) {
		if e.TtlSeconds != 20 {
			t.Errorf("a planned withdrawal waits %d s, want the longest TTL", e.TtlSeconds)
		}
	}
	_, err = f.Store.Update(ctx, func(tx *state.Tx) error { return r.Remove(tx, task) })
	ok(err)
	_, err = f.deleteService(ctx, &sd.DeleteServiceInput{Id: svc.Id})
	ok(err)
	_, err = f.deleteNamespace(ctx, &sd.DeleteNamespaceInput{Id: &id})
	ok(err)
}
