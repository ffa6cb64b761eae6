package wire

import (
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/seed-2f228079/neargate/api/model"
)

// clients are the SDK's clients; their methods are the operations there are.
var clients = map[string]reflect.Type{
	"applicationautoscaling": reflect.TypeFor[*applicationautoscaling.Client](),
	"autoscaling":            reflect.TypeFor[*autoscaling.Client](),
	"cloudwatchlogs":         reflect.TypeFor[*cloudwatchlogs.Client](),
	"ec2":                    reflect.TypeFor[*ec2.Client](),
	"ecr":                    reflect.TypeFor[*ecr.Client](),
	"ecrpublic":              reflect.TypeFor[*ecrpublic.Client](),
	"ecs":                    reflect.TypeFor[*ecs.Client](),
	"elasticloadbalancingv2": reflect.TypeFor[*elasticloadbalancingv2.Client](),
	"iam":                    reflect.TypeFor[*iam.Client](),
	"secretsmanager":         reflect.TypeFor[*secretsmanager.Client](),
	"servicediscovery":       reflect.TypeFor[*servicediscovery.Client](),
	"ssm":                    reflect.TypeFor[*ssm.Client](),
	"sts":                    reflect.TypeFor[*sts.Client](),
}

// operationTypes are the Go types of every operation of a service.
func operationTypes(service string) map[string][2]reflect.Type {
	ops := map[string][2]reflect.Type{}
	t := clients[service]
	for i := range t.NumMethod() {
		m := t.Method(i)
		if f := m.Type; f.NumIn() == 4 && f.NumOut() == 2 && strings.HasSuffix(f.In(2).String(), "."+m.Name+"Input") {
			ops[m.Name] = [2]reflect.Type{f.In(2).Elem(), f.Out(0).Elem()}
		}
	}
	return ops
}

// mustBind binds an operation and compiles it.
func mustBind(t testing.TB, service, name string) *Operation {
	t.Helper()
	c, err := New(service)
	if err != nil {
		t.Fatal(err)
	}
	types, ok := operationTypes(service)[name]
	if !ok {
		t.Fatalf("the SDK's %s has no %s", service, name)
	}
	o, err := c.Bind(name, types[0], types[1])
	if err == nil {
		err = o.Prepare()
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestEveryOperationCompiles holds the tables against the SDK's types: the same operations, and a place for every member.
func TestEveryOperationCompiles(t *testing.T) {
	for _, service := range model.Services() {
		t.Run(service, func(t *testing.T) {
			c, err := New(service)
			if err != nil {
				t.Fatal(err)
			}
			ops := operationTypes(service)
			if len(ops) == 0 {
				t.Fatal("no operations in the SDK's client")
			}
			for name, types := range ops {
				o, err := c.Bind(name, types[0], types[1])
				if err != nil {
					t.Error(err)
					continue
				}
				if err := o.Prepare(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			for _, name := range c.Model().Operations() {
				if _, ok := ops[name]; !ok {
					t.Errorf("the table has %s, the SDK has not", name)
				}
			}
		})
	}
}
