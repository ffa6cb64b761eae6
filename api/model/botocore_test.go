package model

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// botocore's models are made from the same source as the SDK's, at another time. Where it is installed it is the oracle:
// every operation and member that it has, we have under the same name on the wire, or the difference is explained here.

// dump prints, for the services we ask for, operations and, for all shapes below them, type, members, wire names.
const dump = `
import json, sys, botocore.session
s = botocore.session.get_session()
out = {}
for name in sys.argv[1:]:
    d = s.get_service_data(name) if hasattr(s, 'get_service_data') else s.get_component('data_loader').load_service_model(name, 'service-2')
    out[name] = {'operations': d['operations'], 'shapes': {n: {k: v for k, v in sh.items() if k != 'documentation'} for n, sh in d['shapes'].items()}}
json.dump(out, sys.stdout)
`

// botocoreNames maps our tables to botocore's names.
var botocoreNames = map[string]string{
	"applicationautoscaling": "application-autoscaling", "autoscaling": "autoscaling", "cloudwatchlogs": "logs", "ec2": "ec2",
	"ecr": "ecr", "ecrpublic": "ecr-public", "ecs": "ecs", "elasticloadbalancingv2": "elbv2", "iam": "iam", "servicediscovery": "servicediscovery", "sts": "sts",
}

// explainedFor is the version of botocore that the differences below are explained for. An older one still demands and a newer one knows what our
// SDK does not, and neither is our fault.
const explainedFor = "1.43.11"

// explained are the differences that are right: "service shape.member" or "service operation".
var explained = map[string]string{
	"cloudwatchlogs GetLogObjectResponse.fieldStream":     "an event stream, which the SDK keeps outside its output type",
	"cloudwatchlogs StartLiveTailResponse.responseStream": "an event stream, which the SDK keeps outside its output type",

	"ec2 CopySnapshotRequest.DestinationRegion": "the SDK fills it itself, in a field it does not export",

	"autoscaling TerminateInstanceInAutoScalingGroupType.InstanceId":                  relaxed,
	"cloudwatchlogs CreateLookupTableRequest.tableBody":                               relaxed,
	"cloudwatchlogs DestinationConfiguration.s3Configuration":                         relaxed,
	"cloudwatchlogs UpdateLookupTableRequest.tableBody":                               relaxed,
	"ec2 CreateCapacityReservationFleetRequest.InstanceTypeSpecifications":            relaxed,
	"ec2 UpdateInterruptibleCapacityReservationAllocationRequest.TargetInstanceCount": relaxed,
	"ecs CreateExpressGatewayServiceRequest.executionRoleArn":                         relaxed,
	"ecs CreateExpressGatewayServiceRequest.primaryContainer":                         relaxed,
	"ecs ResourceRequirement.value":                                                   relaxed,
}

const relaxed = "required once; newer SDKs let it be absent"

type botoShape struct {
	Type     string
	Required []string
	Members  map[string]struct{ Shape, LocationName, QueryName string }
	Member   *struct{ Shape, LocationName string }
	Value    *struct{ Shape string }
	Enum     []string
	Pattern  string
	Min, Max *float64
	Error    *struct {
		Code           string
		HTTPStatusCode int
	}
}

type botoModel struct {
	Operations map[string]struct {
		Input, Output *struct{ Shape, ResultWrapper string }
	}
	Shapes map[string]botoShape
}

func TestAgainstBotocore(t *testing.T) {
	var names []string
	for _, n := range botocoreNames {
		names = append(names, n)
	}
	version, err := exec.Command("python3", "-c", "import botocore; print(botocore.__version__, end='')").Output()
	if err != nil {
		t.Skipf("needs python3 with botocore: %v", err)
	}
	if string(version) != explainedFor {
		t.Skipf("botocore is of version %s, and the differences are explained for %s", version, explainedFor)
	}
	out, err := exec.Command("python3", append([]string{"-c", dump}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var models map[string]botoModel
	if err := json.Unmarshal(out, &models); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for service, name := range botocoreNames {
		t.Run(service, func(t *testing.T) {
			m, err := Load(service)
			if err != nil {
				t.Fatal(err)
			}
			c := comparison{t: t, m: m, boto: models[name], used: used, seen: map[string]bool{}}
			c.run()
			t.Logf("%d operations, %d members compared", len(c.boto.Operations), c.members)
			if c.members == 0 {
				t.Error("nothing was compared")
			}
		})
	}
	for what := range explained {
		if !used[what] {
			t.Errorf("explained, but no difference any more: %s", what)
		}
	}
}

type comparison struct {
	t       *testing.T
	m       *Model
	boto    botoModel
	used    map[string]bool
	seen    map[string]bool
	members int
}

func (c *comparison) differs(what, format string, args ...any) {
	key := c.m.Service + " " + what
	if _, ok := explained[key]; ok {
		c.used[key] = true
		return
	}
	c.t.Errorf(what+": "+format, args...)
}

func (c *comparison) run() {
	for name, o := range c.boto.Operations {
		ours := c.m.Operation(name)
		if ours == nil {
			c.differs(name, "operation is missing")
			continue
		}
		if o.Input != nil && len(c.boto.Shapes[o.Input.Shape].Members) > 0 {
			c.shape(o.Input.Shape, ours.Input)
		}
		if o.Output != nil && len(c.boto.Shapes[o.Output.Shape].Members) > 0 {
			if ours.ResultWrapper != o.Output.ResultWrapper {
				c.differs(name, "result wrapper %q, want %q", ours.ResultWrapper, o.Output.ResultWrapper)
			}
			c.shape(o.Output.Shape, ours.Output)
		}
	}
	for name, s := range c.boto.Shapes {
		if s.Error == nil || s.Error.Code == "" {
			continue
		}
		if ours := c.m.ErrorShape(s.Error.Code); ours == nil {
			c.differs(name, "no error has code %s", s.Error.Code)
		} else if ours.Error != nil && ours.Error.Status != 0 && ours.Error.Status != s.Error.HTTPStatusCode {
			c.differs(name, "status %d, want %d", ours.Error.Status, s.Error.HTTPStatusCode)
		}
	}
}

// shape compares botocore's shape with ours, and all they reach.
func (c *comparison) shape(theirs, ours string) {
	if c.seen[theirs+" "+ours] {
		return
	}
	c.seen[theirs+" "+ours] = true
	b, s := c.boto.Shapes[theirs], c.m.Shape(ours)
	if s == nil {
		c.differs(theirs, "shape is missing")
		return
	}
	if b.Type != s.Type && !(b.Type == "character" && s.Type == "string") {
		c.differs(theirs, "is a %s, want %s", s.Type, b.Type)
		return
	}
	for name, bm := range b.Members {
		c.members++
		r := s.MemberNamed(name)
		if r == nil {
			c.differs(theirs+"."+name, "member is missing")
			continue
		}
		// JSON services have names for XML in their models, which nobody sends.
		if c.m.Protocol != "json" && (r.LocationName != bm.LocationName && (bm.LocationName != "" || r.LocationName != name) || r.QueryName != bm.QueryName) {
			c.differs(theirs+"."+name, "on the wire %q and %q, want %q and %q", r.LocationName, r.QueryName, bm.LocationName, bm.QueryName)
		}
		c.shape(bm.Shape, r.Shape)
	}
	for _, r := range b.Required {
		if b.Members[r].Shape != "" && s.MemberNamed(r) != nil && !slices.Contains(s.Required, r) {
			c.differs(theirs+"."+r, "is not required")
		}
	}
	for _, v := range b.Enum {
		if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
			c.differs(theirs, "has no enum value %s", v)
		}
	}
	switch {
	case b.Member != nil && s.Member != nil:
		if c.m.Protocol != "json" && strings.TrimPrefix(b.Member.LocationName, "member") != strings.TrimPrefix(s.Member.LocationName, "member") {
			c.differs(theirs, "elements are %q, want %q", s.Member.LocationName, b.Member.LocationName)
		}
		c.shape(b.Member.Shape, s.Member.Shape)
	case b.Value != nil && s.Value != nil:
		c.shape(b.Value.Shape, s.Value.Shape)
	}
}
