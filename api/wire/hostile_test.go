package wire

import (
	"fmt"
	"math"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// TestHostileJSON: what is not exactly the protocol's JSON is a SerializationException, never a guess and never a panic.
func TestHostileJSON(t *testing.T) {
	deep := func(open, shut string) string { return strings.Repeat(open, 5000) + strings.Repeat(shut, 5000) }
	for _, c := range []struct{ body, message string }{
		{`{`, "Unexpected end of the request body"},
		{`{"family":"a"`, "Unexpected end of the request body"},
		{`{"family":"a`, "Unexpected end of the request body"},
		{`{"family":"a\`, ""},
		{`{"family":"a\u12`, ""},
		{`{"family" "a"}`, `Unexpected character '"' at position 10 of the request body`},
		{`{"family":"a",}`, "Unexpected character '}' at position 14 of the request body"},
		{`{,}`, ""},
		{`{"family":"a"}}`, "Unexpected character '}' at position 14 of the request body"},
		{`{"family":"a"} {}`, ""},
		{`[]`, "Start of list found where not expected"},
		{`"x"`, ""},
		{`null`, ""},
		{`{family:1}`, ""},
		{`{'family':'a'}`, ""},
		{`{"family":1}`, "NUMBER_VALUE can not be converted to a String"},
		{`{"family":1.5}`, "DECIMAL_VALUE can not be converted to a String"},
		{`{"family":true}`, "TRUE_VALUE can not be converted to a String"},
		{`{"family":false}`, "FALSE_VALUE can not be converted to a String"},
		{`{"family":["a"]}`, "Start of list found where not expected"},
		{`{"family":{"a":1}}`, "Start of structure or map found where not expected."},
		{`{"containerDefinitions":"web"}`, "Expected list or null"},
		{`{"containerDefinitions":["web"]}`, "Expected null"},
		{`{"family":nul}`, ""},
		{`{"family":undefined}`, ""},
		{"{\"family\":\"a\nb\"}", ""},
		{"{\"family\":\"\xff\"}", "The request body is not valid UTF-8"},
		{"\ufeff{}", ""},
		{`{"family":"\x41"}`, ""},
		{`{"ephemeralStorage":{"sizeInGiB":"21"}}`, "STRING_VALUE cannot be converted to Integer"},
		{`{"ephemeralStorage":{"sizeInGiB":21.5}}`, "DECIMAL_VALUE cannot be converted to Integer"},
		{`{"ephemeralStorage":{"sizeInGiB":2147483648}}`, "NUMBER_VALUE cannot be converted to Integer"},
		{`{"ephemeralStorage":{"sizeInGiB":1e10}}`, ""},
		{`{"ephemeralStorage":{"sizeInGiB":99999999999999999999}}`, ""},
		{`{"ephemeralStorage":{"sizeInGiB":01}}`, ""},
		{`{"ephemeralStorage":{"sizeInGiB":+1}}`, ""},
		{`{"ephemeralStorage":{"sizeInGiB":1.}}`, ""},
		{`{"ephemeralStorage":{"sizeInGiB":.5}}`, ""},
		{`{"ephemeralStorage":{"sizeInGiB":0x10}}`, ""},
		{`{"ephemeralStorage":{"sizeInGiB":-}}`, ""},
		{`{"ephemeralStorage":{"sizeInGiB":NaN}}`, ""},
		{`{"enableFaultInjection":"true"}`, "STRING_VALUE cannot be converted to Boolean"},
		{`{"enableFaultInjection":1}`, ""},
		{`{"containerDefinitions":{}}`, "Start of structure or map found where not expected."},
		{`{"containerDefinitions":"[]"}`, ""},
		{`{"containerDefinitions":[null]}`, "NULL_VALUE found where not expected"},
		{`{"containerDefinitions":[{"dockerLabels":{"a":null}}]}`, "NULL_VALUE found where not expected"},
		{`{"containerDefinitions":[{"dockerLabels":{"a":1}}]}`, ""},
		{`{"containerDefinitions":[{"dockerLabels":[]}]}`, ""},
		{`{"containerDefinitions":[{]}`, ""},
		{`{"unknown":` + deep("[", "]") + `}`, "The request body is nested more than 100 levels deep"},
		{`{"unknown":` + deep(`{"a":`, `}`) + `}`, ""},
		{`{"unknown":[1,]}`, ""},
		{`{"unknown":tru}`, ""},
		{deep(`{"containerDefinitions":[`, `]}`), ""},
	} {
		_, err := mustBind(t, "ecs", "RegisterTaskDefinition").DecodeJSON([]byte(c.body))
		e, ok := awserr.As(err)
		if !ok || e.Code != "SerializationException" || e.Status != 400 {
			t.Errorf("%.60q: got %v, want SerializationException", c.body, err)
		} else if c.message != "" && e.Message != c.message {
			t.Errorf("%.60q: %q, want %q", c.body, e.Message, c.message)
		} else if len(e.Message) > 200 {
			t.Errorf("%.60q: a message of %d bytes", c.body, len(e.Message))
		}
	}
}

// TestLenientJSON: what AWS takes.
func TestLenientJSON(t *testing.T) {
	for _, c := range []struct {
		body string
		want ecs.RegisterTaskDefinitionInput
	}{
		{``, ecs.RegisterTaskDefinitionInput{}},
		{" \n", ecs.RegisterTaskDefinitionInput{}},
		{`{}`, ecs.RegisterTaskDefinitionInput{}},
		{`{"family":null,"tags":null}`, ecs.RegisterTaskDefinitionInput{}},
		{`{"family":"a","family":"b"}`, ecs.RegisterTaskDefinitionInput{Family: aws.String("b")}},
		{`{"family":"a","family":null}`, ecs.RegisterTaskDefinitionInput{}},
		{`{"requiresCompatibilities":["EC2"],"requiresCompatibilities":[]}`, ecs.RegisterTaskDefinitionInput{RequiresCompatibilities: nil}},
		{`{"Family":"case matters","x":[{"y":[1,2.5e3,true,null,"\u00e9"]}],"family":"a"}`, ecs.RegisterTaskDefinitionInput{Family: aws.String("a")}},
		{`{"family":"\ud83d\ude00 \ud83d \u0041\/\b"}`, ecs.RegisterTaskDefinitionInput{Family: aws.String("😀 \ufffd A/\b")}},
		{"\t{ \"cpu\" : \"256\" \r\n}\n", ecs.RegisterTaskDefinitionInput{Cpu: aws.String("256")}},
	} {
		got, err := mustBind(t, "ecs", "RegisterTaskDefinition").DecodeJSON([]byte(c.body))
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		in := got.(*ecs.RegisterTaskDefinitionInput)
		if len(in.RequiresCompatibilities) == 0 {
			in.RequiresCompatibilities = nil
		}
		if !reflect.DeepEqual(*in, c.want) {
			t.Errorf("%s: got %+v", c.body, *in)
		}
	}
}

// TestNumbersAreExact: whole numbers however they are spelt, to the last digit.
func TestNumbersAreExact(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "-0": 0, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64, "1.0": 1, "1e3": 1000,
		"9007199254740993": 9007199254740993,
	} {
		v, err := mustBind(t, "cloudwatchlogs", "FilterLogEvents").DecodeJSON([]byte(`{"startTime":` + text + `}`))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := *v.(*cloudwatchlogs.FilterLogEventsInput).StartTime; got != want {
			t.Errorf("%s: got %d", text, got)
		}
	}
	for _, text := range []string{"9223372036854775808", "1e19", "9007199254740993.5", "9.3e18"} {
		if _, err := mustBind(t, "cloudwatchlogs", "FilterLogEvents").DecodeJSON([]byte(`{"startTime":` + text + `}`)); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

// TestNilAndEmpty: an absent list, an empty one and their answers differ.
func TestNilAndEmpty(t *testing.T) {
	o := mustBind(t, "ecs", "ListClusters")
	if got := string(o.AppendJSON(nil, &ecs.ListClustersOutput{})); got != `{}` {
		t.Errorf("nil: %s", got)
	}
	if got := string(o.AppendJSON(nil, &ecs.ListClustersOutput{ClusterArns: []string{}})); got != `{"clusterArns":[]}` {
		t.Errorf("empty: %s", got)
	}
	for body, isNil := range map[string]bool{`{}`: true, `{"capacityProviders":null}`: true, `{"capacityProviders":[]}`: false} {
		v, err := mustBind(t, "ecs", "CreateCluster").DecodeJSON([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if got := v.(*ecs.CreateClusterInput).CapacityProviders == nil; got != isNil {
			t.Errorf("%s: nil is %v", body, got)
		}
	}
	v, err := mustBind(t, "elasticloadbalancingv2", "CreateLoadBalancer").DecodeQuery(url.Values{"Tags": {""}})
	if err != nil {
		t.Fatal(err)
	}
	if in := v.(*elasticloadbalancingv2.CreateLoadBalancerInput); in.Tags == nil || in.Subnets != nil {
		t.Errorf("query: Tags nil is %v, Subnets nil is %v", in.Tags == nil, in.Subnets == nil)
	}
}

// TestTimestamps reads every format of a moment; TestClientAnswers holds what is written.
func TestTimestamps(t *testing.T) {
	o := mustBind(t, "applicationautoscaling", "PutScheduledAction")
	want := time.Date(2023, 11, 14, 22, 13, 20, 123e6, time.UTC)
	for _, text := range []string{`1700000000.123`, `1.700000000123e9`, `"2023-11-14T22:13:20.123Z"`, `"2023-11-15T00:13:20.123+02:00"`} {
		v, err := o.DecodeJSON([]byte(`{"StartTime":` + text + `}`))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := v.(*applicationautoscaling.PutScheduledActionInput).StartTime; got.Sub(want).Abs() > time.Microsecond {
			t.Errorf("%s: %s", text, got)
		}
	}
	for _, text := range []string{`"yesterday"`, `true`, `1e300`, `-1e300`, `"NaN"`, `99999999999999`} {
		if v, err := o.DecodeJSON([]byte(`{"StartTime":` + text + `}`)); err == nil {
			t.Errorf("%s was taken: %+v", text, v)
		}
	}
	before := `-1.5`
	v, err := o.DecodeJSON([]byte(`{"StartTime":` + before + `}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := *v.(*applicationautoscaling.PutScheduledActionInput).StartTime; !got.Equal(time.UnixMilli(-1500)) {
		t.Errorf("before 1970: %s", got)
	}
	if got := string(appendEpoch(nil, time.UnixMilli(-1500))); got != "-1.5" {
		t.Errorf("before 1970: %s", got)
	}
	q, err := mustBind(t, "autoscaling", "PutScheduledUpdateGroupAction").DecodeQuery(url.Values{"StartTime": {"2023-11-14T22:13:20.123Z"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := q.(*autoscaling.PutScheduledUpdateGroupActionInput).StartTime; !got.Equal(want) {
		t.Errorf("query: %s", got)
	}
}

func TestBlobs(t *testing.T) {
	o := mustBind(t, "ecr", "UploadLayerPart")
	v, err := o.DecodeJSON([]byte(`{"layerPartBlob":"AAH/"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := v.(*ecr.UploadLayerPartInput).LayerPartBlob; string(got) != "\x00\x01\xff" {
		t.Errorf("got %x", got)
	}
	for _, text := range []string{`"AAH"`, `"A A="`, `"****"`, `[0,1]`} {
		if _, err := o.DecodeJSON([]byte(`{"layerPartBlob":` + text + `}`)); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func TestUnions(t *testing.T) {
	o := mustBind(t, "ecs", "CreateGateway")
	for body, ok := range map[string]bool{
		`{"configuration":{"hostSharedAlb":{}}}`:                    true,
		`{"configuration":{"hostSharedAlb":{},"new":{"a":1}}}`:      true,
		`{"configuration":{}}`:                                      false,
		`{"configuration":{"hostSharedAlb":{},"hostSharedAlb":{}}}`: false,
		`{"configuration":[]}`:                                      false,
	} {
		if _, err := o.DecodeJSON([]byte(body)); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestKeptStringsPinLittle: strings of a long body do not keep it alive.
func TestKeptStringsPinLittle(t *testing.T) {
	body := []byte(`{"clusterName":"kept","x":"` + strings.Repeat("y", maxShared) + `"}`)
	r, err := newReader(body)
	if err != nil {
		t.Fatal(err)
	}
	if r.share {
		t.Error("a long body is shared")
	}
	if r, err = newReader(body[:20]); err != nil || !r.share {
		t.Error("a short body is copied string by string")
	}
}

// TestHostileQuery: parameters nobody sends.
func TestHostileQuery(t *testing.T) {
	many := url.Values{}
	for i := range maxParams + 1 {
		many.Set(fmt.Sprintf("Names.member.%d", i), "a")
	}
	for name, c := range map[string]struct {
		service, op string
		form        url.Values
		code        string // empty: taken
	}{
		"number":          {"elasticloadbalancingv2", "CreateTargetGroup", url.Values{"Port": {"eighty"}}, "MalformedInput"},
		"overflow":        {"elasticloadbalancingv2", "CreateTargetGroup", url.Values{"Port": {"2147483648"}}, "MalformedInput"},
		"fraction":        {"elasticloadbalancingv2", "CreateTargetGroup", url.Values{"Port": {"80.0"}}, "MalformedInput"},
		"boolean":         {"elasticloadbalancingv2", "CreateTargetGroup", url.Values{"HealthCheckEnabled": {"yes"}}, "MalformedInput"},
		"hex float":       {"autoscaling", "PutScalingPolicy", url.Values{"TargetTrackingConfiguration.TargetValue": {"0x1p4"}}, "MalformedInput"},
		"timestamp":       {"autoscaling", "PutScheduledUpdateGroupAction", url.Values{"StartTime": {"soon"}}, "MalformedInput"},
		"not UTF-8":       {"elasticloadbalancingv2", "CreateTargetGroup", url.Values{"Name": {"\xff"}}, "MalformedInput"},
		"too many":        {"elasticloadbalancingv2", "DescribeTargetGroups", many, "MalformedInput"},
		"too deep":        {"elasticloadbalancingv2", "CreateRule", url.Values{"Actions" + strings.Repeat(".member", 1000): {"x"}}, "MalformedInput"},
		"no value":        {"elasticloadbalancingv2", "CreateTargetGroup", url.Values{"Name": {}}, ""},
		"unknown":         {"elasticloadbalancingv2", "CreateTargetGroup", url.Values{"Nonsense.1.x": {"y"}, "": {"z"}, ".": {"z"}, "..Port": {"x"}}, ""},
		"value and below": {"elasticloadbalancingv2", "CreateRule", url.Values{"Actions": {"x"}, "Actions.member.1.Type": {"forward"}}, ""},
		"not an index":    {"elasticloadbalancingv2", "CreateRule", url.Values{"Actions.member.x.Type": {"forward"}, "Actions.member.-1.Type": {"a"}}, ""},
		"huge index":      {"elasticloadbalancingv2", "CreateRule", url.Values{"Actions.member.2147483647.Type": {"forward"}}, ""},
		"ec2 number":      {"ec2", "DescribeVpcs", url.Values{"MaxResults": {"x"}}, "InvalidParameterValue"},
		"ec2 boolean":     {"ec2", "DescribeVpcs", url.Values{"DryRun": {"x"}}, "InvalidParameterValue"},
		"map without key": {"autoscaling", "StartInstanceRefresh", url.Values{"Preferences.x.1.y": {"z"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := mustBind(t, c.service, c.op).DecodeQuery(c.form)
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if e, ok := awserr.As(err); !ok || e.Code != c.code || e.Status != 400 {
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
}

// TestQueryLists: order is the numbers', gaps close, and lists that should have a wrapper are taken without it.
func TestQueryLists(t *testing.T) {
	v, err := mustBind(t, "elasticloadbalancingv2", "CreateLoadBalancer").DecodeQuery(url.Values{
		"Subnets.member.10": {"d"}, "Subnets.member.2": {"b"}, "Subnets.member.1": {"a"}, "Subnets.member.9": {"c"},
		"SecurityGroups.1": {"x"}, "Tags.member.1.Key": {"k"}, "Tags.member.1.Value": {""},
	})
	if err != nil {
		t.Fatal(err)
	}
	in := v.(*elasticloadbalancingv2.CreateLoadBalancerInput)
	if got := strings.Join(in.Subnets, ""); got != "abcd" {
		t.Errorf("Subnets are %s", got)
	}
	if len(in.SecurityGroups) != 1 || len(in.Tags) != 1 || *in.Tags[0].Key != "k" || *in.Tags[0].Value != "" {
		t.Errorf("got %+v", in)
	}
	w, err := mustBind(t, "ec2", "DescribeVpcs").DecodeQuery(url.Values{"Filter.1.Name": {"vpc-id"}, "Filter.1.Value.1": {"a"}, "Filter.1.Value.2": {"b"}, "VpcId.1": {"vpc-1"}})
	if err != nil {
		t.Fatal(err)
	}
	if in := w.(*ec2.DescribeVpcsInput); len(in.Filters) != 1 || len(in.Filters[0].Values) != 2 || in.VpcIds[0] != "vpc-1" {
		t.Errorf("got %+v", in)
	}
}
