package wire

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/api/model"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// No family speaks restJson1 yet: these types and this table stand for one that does.
type (
	PutThingInput struct {
		Name    *string
		Version *int64
		Kinds   []string
		Since   *time.Time
		Parts   []int32
		Labels  map[string]string
		Rest    map[string]string
		Note    *string
		Inner   *Inner
	}
	PutThingOutput struct {
		Status *int32
		ETag   *string
		When   *time.Time
		Meta   map[string]string
		Inner  *Inner
	}
	PutBlobInput struct {
		Name *string
		Data []byte
	}
	PutBlobOutput struct{ Inner *Inner }
	Inner         struct{ At *time.Time }
)

const things = `{"service":"things","protocol":"rest-json","signingName":"things","apiVersion":"2020-01-01"}
O PutBlob {"method":"PUT","uri":"/blobs/{Name}","input":"PutBlobInput","output":"PutBlobOutput"}
O PutThing {"method":"PUT","uri":"/things/{Name}","status":201,"input":"PutThingInput","output":"PutThingOutput"}
S Blob {"type":"blob"}
S Error409 {"type":"structure","members":[{"name":"Message","shape":"String"},{"name":"Type","shape":"String"}],"exception":true,"error":{"httpStatusCode":409}}
S Inner {"type":"structure","members":[{"name":"At","shape":"Time","locationName":"at"}]}
S Int {"type":"integer"}
S Ints {"type":"list","member":{"shape":"Int"}}
S Long {"type":"long"}
S Map {"type":"map","key":{"shape":"String"},"value":{"shape":"String"}}
S PutBlobInput {"type":"structure","payload":"Data","members":[{"name":"Name","shape":"String","location":"uri"},{"name":"Data","shape":"Blob"}]}
S PutBlobOutput {"type":"structure","payload":"Inner","members":[{"name":"Inner","shape":"Inner"}]}
S PutThingInput {"type":"structure","required":["Name"],"members":[{"name":"Name","shape":"String","location":"uri"},{"name":"Version","shape":"Long","location":"querystring","locationName":"version"},{"name":"Kinds","shape":"Strings","location":"querystring","locationName":"kind"},{"name":"Since","shape":"Time","location":"header","locationName":"If-Modified-Since"},{"name":"Parts","shape":"Ints","location":"header","locationName":"X-Parts"},{"name":"Labels","shape":"Map","location":"headers","locationName":"x-label-"},{"name":"Rest","shape":"Map","location":"querystring"},{"name":"Note","shape":"String","locationName":"note"},{"name":"Inner","shape":"Inner","locationName":"inner"}]}
S PutThingOutput {"type":"structure","members":[{"name":"Status","shape":"Int","location":"statusCode"},{"name":"ETag","shape":"String","location":"header","locationName":"ETag"},{"name":"When","shape":"Time","location":"header","locationName":"Last-Modified"},{"name":"Meta","shape":"Map","location":"headers","locationName":"x-meta-"},{"name":"Inner","shape":"Inner","locationName":"inner"}]}
S String {"type":"string"}
S Strings {"type":"list","member":{"shape":"String"}}
S Time {"type":"timestamp"}
`

func bindThing(t *testing.T, name string, in, out reflect.Type) *Operation {
	t.Helper()
	m, err := model.Parse("things", []byte(things))
	if err != nil {
		t.Fatal(err)
	}
	o, err := newCodec(m).Bind(name, in, out)
	if err == nil {
		err = o.Prepare()
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestRESTJSON(t *testing.T) {
	o := bindThing(t, "PutThing", reflect.TypeFor[PutThingInput](), reflect.TypeFor[PutThingOutput]())
	when := time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC)
	got, err := o.DecodeHTTP(map[string]string{"Name": "a/b"},
		url.Values{"version": {"7"}, "kind": {"x", "y"}, "other": {"z"}},
		http.Header{"If-Modified-Since": {"Tue, 14 Nov 2023 22:13:20 GMT"}, "X-Parts": {"1, 2", "3"}, "X-Label-Team": {"core"}},
		[]byte(`{"note":"n","inner":{"at":1700000000},"Name":"not from here"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &PutThingInput{
		Name: aws.String("a/b"), Version: aws.Int64(7), Kinds: []string{"x", "y"}, Since: &when, Parts: []int32{1, 2, 3},
		Labels: map[string]string{"team": "core"}, Rest: map[string]string{"other": "z"}, Note: aws.String("n"), Inner: &Inner{At: &when},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for name, bad := range map[string]struct {
		query  url.Values
		header http.Header
		body   string
	}{
		"number":    {url.Values{"version": {"x"}}, nil, ""},
		"twice":     {url.Values{"version": {"1", "2"}}, nil, ""},
		"timestamp": {nil, http.Header{"If-Modified-Since": {"soon"}}, ""},
		"list":      {nil, http.Header{"X-Parts": {"1,x"}}, ""},
		"body":      {nil, nil, "{"},
	} {
		if _, err := o.DecodeHTTP(nil, bad.query, bad.header, []byte(bad.body)); !awserr.Is(err, "SerializationException") {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, err := o.EncodeHTTP(&PutThingOutput{Status: aws.Int32(202), ETag: aws.String("e"), When: &when, Meta: map[string]string{"k": "v"}, Inner: &Inner{At: &when}})
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != 202 || a.Header.Get("Etag") != "e" || a.Header.Get("Last-Modified") != "Tue, 14 Nov 2023 22:13:20 GMT" || a.Header.Get("X-Meta-K") != "v" || string(a.Body) != `{"inner":{"at":1700000000}}` {
		t.Errorf("got %+v %s", a, a.Body)
	}
	if a, err := o.EncodeHTTP(&PutThingOutput{}); err != nil || a.Status != 201 || string(a.Body) != `{}` {
		t.Errorf("got %+v %s, %v", a, a.Body, err)
	}
	e := o.codec.Error(awserr.New("Error409", "taken"), "req-1")
	if e.Status != 409 || e.Header.Get("X-Amzn-Errortype") != "Error409" || string(e.Body) != `{"Message":"taken"}` {
		t.Errorf("got %+v %s", e, e.Body)
	}
}

func TestRESTJSONPayload(t *testing.T) {
	o := bindThing(t, "PutBlob", reflect.TypeFor[PutBlobInput](), reflect.TypeFor[PutBlobOutput]())
	got, err := o.DecodeHTTP(map[string]string{"Name": "n"}, nil, nil, []byte("{raw"))
	if err != nil {
		t.Fatal(err)
	}
	if in := got.(*PutBlobInput); string(in.Data) != "{raw" || *in.Name != "n" {
		t.Errorf("got %+v", in)
	}
	a, err := o.EncodeHTTP(&PutBlobOutput{Inner: &Inner{At: new(time.Unix(1, 0))}})
	if err != nil || string(a.Body) != `{"at":1}` {
		t.Errorf("got %s, %v", a.Body, err)
	}
}

// TestWrongTypesAreRefused: a Go type that the accessors would misread never gets a plan.
func TestWrongTypesAreRefused(t *testing.T) {
	m, err := model.Parse("things", []byte(things))
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]reflect.Type{
		"int as long":    reflect.TypeFor[struct{ At *int64 }](),
		"no field":       reflect.TypeFor[struct{ Other *time.Time }](),
		"string as time": reflect.TypeFor[struct{ At *string }](),
		"double pointer": reflect.TypeFor[struct{ At **time.Time }](),
		"slice":          reflect.TypeFor[struct{ At []time.Time }](),
	} {
		if _, err := newCodec(m).compile("Inner", in); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
}

func TestDecodeREST(t *testing.T) {
	o := mustBind(t, "ecs", "CreateService")
	v, err := o.DecodeREST([]byte(`{"serviceName":"users","cluster":"body","desiredCount":1}`), url.Values{"CLUSTER": {"path"}, "desiredcount": {"3"}})
	if err != nil {
		t.Fatal(err)
	}
	if in := v.(*ecs.CreateServiceInput); *in.Cluster != "path" || *in.DesiredCount != 3 || *in.ServiceName != "users" {
		t.Errorf("got %+v", in)
	}
	d := mustBind(t, "ecs", "DescribeClusters")
	v, err = d.DecodeREST(nil, url.Values{"clusters": {"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if in := v.(*ecs.DescribeClustersInput); strings.Join(in.Clusters, ",") != "a,b" {
		t.Errorf("got %+v", in)
	}
	for _, params := range []url.Values{{"clustre": {"a"}}, {"desiredCount": {"x"}}, {"cluster": {"a", "b"}}, {"networkConfiguration": {"x"}}} {
		if _, err := o.DecodeREST(nil, params); err == nil {
			t.Errorf("%v was taken", params)
		} else if _, ok := awserr.As(err); !ok {
			t.Errorf("%v: %v is no AWS error", params, err)
		}
	}
	// A query service's members go by their own names in REST's JSON, and come back so.
	q := mustBind(t, "elasticloadbalancingv2", "CreateTargetGroup")
	v, err = q.DecodeREST([]byte(`{"Name":"tg","Port":80,"Tags":[{"Key":"a","Value":"b"}]}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if in := v.(*elasticloadbalancingv2.CreateTargetGroupInput); *in.Name != "tg" || *in.Port != 80 || *in.Tags[0].Value != "b" {
		t.Errorf("got %+v", in)
	}
}

// TestSchema: references resolve, required members exist, and a plan's JSON names are the schema's.
func TestSchema(t *testing.T) {
	for _, service := range model.Services() {
		c, err := New(service)
		if err != nil {
			t.Fatal(err)
		}
		components := map[string]any{}
		for _, name := range c.Model().Operations() {
			o := c.Model().Operation(name)
			c.Schema(o.Input, components)
			c.Schema(o.Output, components)
		}
		var check func(where string, v any)
		check = func(where string, v any) {
			switch v := v.(type) {
			case map[string]any:
				if ref, ok := v["$ref"].(string); ok {
					if components[strings.TrimPrefix(ref, "#/components/schemas/")] == nil {
						t.Errorf("%s: %s is not there", where, ref)
					}
				}
				if required, ok := v["required"].([]string); ok {
					for _, r := range required {
						if _, ok := v["properties"].(map[string]any)[r]; !ok {
							t.Errorf("%s: requires %s, which is no property", where, r)
						}
					}
				}
				for k, x := range v {
					check(where+"."+k, x)
				}
			}
		}
		check(service, components)
	}
	c, err := New("ecs")
	if err != nil {
		t.Fatal(err)
	}
	components := map[string]any{}
	c.Schema("CreateServiceRequest", components)
	got := components["ecs.CreateServiceRequest"].(map[string]any)["properties"].(map[string]any)["launchType"]
	want := map[string]any{"type": "string", "enum": []string{"EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
