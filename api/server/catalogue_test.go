package server

import (
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/api"
)

// Paths as the REST services' models have them.
func TestPathsOfRESTServices(t *testing.T) {
	var paths []path
	for _, p := range []struct{ operation, method, uri string }{
		{"GetFunction", "GET", "/2015-03-31/functions/{FunctionName}"},
		{"GetPolicy", "GET", "/2015-03-31/functions/{FunctionName}/policy"},
		{"ListFunctions", "GET", "/2015-03-31/functions/"},
		{"GetAccount", "GET", "/2015-03-31/functions/account"},
		{"UntagResource", "DELETE", "/tags/{arn+}"},
		{"PutObject", "PUT", "/{Bucket}/{Key+}"},
		{"UploadPart", "PUT", "/{Bucket}/{Key+}?partNumber&uploadId"},
		{"ImportApis", "PUT", "/restapis?mode=import"},
	} {
		uri, query, _ := strings.Cut(p.uri, "?")
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path{p.method, p.operation, strings.Split(strings.Trim(uri, "/"), "/"), q})
	}
	slices.SortStableFunc(paths, func(a, b path) int { return b.weight() - a.weight() })
	for _, c := range []struct {
		method, target, operation string
		labels                    map[string]string
	}{
		{"GET", "/2015-03-31/functions/f", "GetFunction", map[string]string{"FunctionName": "f"}},
		{"GET", "/2015-03-31/functions/account", "GetAccount", map[string]string{}},
		{"GET", "/2015-03-31/functions/arn%3Aaws%2Ff/policy", "GetPolicy", map[string]string{"FunctionName": "arn:aws/f"}},
		{"GET", "/2015-03-31/functions/", "ListFunctions", map[string]string{}},
		{"GET", "/2015-03-31/functions", "ListFunctions", map[string]string{}},
		{"GET", "/2015-03-31/functions/f/nothing", "", nil},
		{"POST", "/2015-03-31/functions/f", "", nil},
		{"DELETE", "/tags/arn:aws:x/y/z", "UntagResource", map[string]string{"arn": "arn:aws:x/y/z"}},
		{"DELETE", "/tags", "", nil},
		{"PUT", "/b/some/key", "PutObject", map[string]string{"Bucket": "b", "Key": "some/key"}},
		{"PUT", "/b/some/key?partNumber=1&uploadId=x", "UploadPart", map[string]string{"Bucket": "b", "Key": "some/key"}},
		{"PUT", "/restapis?mode=import", "ImportApis", map[string]string{}},
		{"PUT", "/restapis?mode=merge", "", nil},
		{"GET", "/2015-03-31/functions/%zz", "", nil},
	} {
		target, query, _ := strings.Cut(c.target, "?")
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got, labels := "", map[string]string(nil)
		for _, p := range paths {
			if l, ok := p.match(c.method, strings.Split(strings.Trim(target, "/"), "/"), q); ok {
				got, labels = p.operation, l
				break
			}
		}
		if got != c.operation || !reflect.DeepEqual(labels, c.labels) {
			t.Errorf("%s %s: %s %v, want %s %v", c.method, c.target, got, labels, c.operation, c.labels)
		}
	}
}

func TestTableIsChecked(t *testing.T) {
	f := &clusters{}
	twice := []api.Operation{api.Write(f.create), api.Write(f.create)}
	if _, err := newCatalogue(twice); err == nil || !strings.Contains(err.Error(), "ecs:CreateCluster is bound twice") {
		t.Errorf("an operation bound twice: %v", err)
	}
	unknown := api.Write(f.create)
	unknown.Service = "kitchen"
	if _, err := newCatalogue([]api.Operation{unknown}); err == nil {
		t.Error("a service without a model is taken")
	}
}

func TestWriteOperations(t *testing.T) {
	var b strings.Builder
	if err := WriteOperations(&b, (&clusters{}).operations()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"## ECS (`ecs`)\n\n2 of ",
		"| CreateCluster | write | `POST /clusters` | `ecs:CreateCluster` |\n| ListServices | read | `GET /clusters/{cluster}/services` | `ecs:ListServices` |\n",
		"| DescribeLoadBalancers | read | – | `elasticloadbalancing:DescribeLoadBalancers` |",
		"CreateTaskSet, ",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("lacks %q", want)
		}
	}
	for _, built := range []string{"CreateCluster, ", "## STS"} {
		if strings.Contains(b.String(), built) {
			t.Errorf("has %q", built)
		}
	}
}
