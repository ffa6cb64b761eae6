package server

import (
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/seed-2f228079/neargate/api"
)

func TestREST(t *testing.T) {
	s, family, _ := newTestServer(t, nil)
	basic := []string{"Authorization", "Basic b3RoZXI6c2VjcmV0"} // other:secret, of the second account
	typed := append([]string{"Content-Type", "application/json"}, basic...)
	escaped := url.PathEscape("arn:aws:ecs:us-east-1:111111111111:cluster/one")
	for name, c := range map[string]struct {
		method, target, body string
		header               []string
		status               int
		want                 string
	}{
		"a route":                     {"POST", "/clusters", `{"clusterName":"one"}`, typed, 200, `"clusterArn":"arn:aws:ecs:us-east-1:111111111111:cluster/one"`},
		"members by any case":         {"GET", "/clusters/one/services?LAUNCHTYPE=FARGATE", "", basic, 200, `{"serviceArns":["one","FARGATE"]}`},
		"an ARN in the path":          {"GET", "/clusters/" + escaped + "/services", "", basic, 200, `cluster/one"`},
		"a value the model refuses":   {"GET", "/clusters/one/services?launchType=MOON", "", basic, 400, `"code":"InvalidParameterException"`},
		"a parameter nobody knows":    {"GET", "/clusters/one/services?colour=red", "", basic, 400, "colour"},
		"an action":                   {"POST", "/actions/ecs/CreateCluster", `{"clusterName":"one"}`, typed, 200, `cluster/one"`},
		"an action of a query API":    {"POST", "/actions/sts/GetCallerIdentity", ``, typed, 200, `"Arn":"arn:aws:iam::111111111111:root"`},
		"the route of a query API":    {"GET", "/vpcs", ``, basic, 200, `"CidrBlock":"10.64.0.0/10"`},
		"refused by the handler":      {"POST", "/clusters", `{"clusterName":"refused"}`, typed, 400, `{"code":"ClusterNotFoundException","message":"Cluster not found.","requestId":"`},
		"refused with another status": {"POST", "/clusters", `{"clusterName":"fails"}`, typed, 500, `"code":"ServerException"`},
		"not built":                   {"POST", "/actions/ecs/CreateTaskSet", `{}`, typed, 501, `"code":"NotImplemented"`},
		"no such operation":           {"POST", "/actions/ecs/MakeCoffee", `{}`, typed, 404, `"code":"NotFound"`},
		"no such service":             {"POST", "/actions/kitchen/MakeCoffee", `{}`, typed, 404, `"code":"NotFound"`},
		"no such path":                {"GET", "/kitchens", ``, basic, 404, `"code":"NotFound"`},
		"another method":              {"DELETE", "/clusters", ``, basic, 405, `"code":"MethodNotAllowed"`},
		"malformed":                   {"POST", "/clusters", `{`, typed, 400, `"code":"SerializationException"`},
		"nobody":                      {"GET", "/vpcs", ``, nil, 401, `"code":"MissingAuthenticationTokenException"`},
		"the wrong secret":            {"GET", "/vpcs", ``, []string{"Authorization", "Basic b3RoZXI6d3Jvbmc="}, 401, `"code":"UnrecognizedClientException"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(t, s, c.method, "/api/v1"+c.target, c.body, "", c.header...)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("HTTP %d %s\nwant %d with %s", w.Code, w.Body, c.status, c.want)
			}
			if w.Code == 401 && w.Header().Get("WWW-Authenticate") == "" {
				t.Error("no WWW-Authenticate")
			}
		})
	}
	if w := ask(t, s, "POST", "/api/v1/clusters", `{"clusterName":"one"}`, "ecs", "Content-Type", "application/json"); w.Code != 200 || !strings.Contains(w.Body.String(), account) {
		t.Errorf("signed, in the first account: HTTP %d %s", w.Code, w.Body)
	}
	if c := family.seen[len(family.seen)-1]; c.Service != "ecs" || c.Operation != "CreateCluster" || c.Region != region {
		t.Errorf("call %+v", c)
	}
}

// A GET must not change anything: browsers send it without asking.
func TestRoutesSuitTheirMode(t *testing.T) {
	family := &clusters{}
	for route, ok := range map[string]bool{"POST /clusters": true, "GET /clusters": false, "clusters": false, "POST clusters": false, "POST /actions/x": false} {
		_, err := parseRoute(api.Write(family.create, api.Route(route)))
		if (err == nil) != ok {
			t.Errorf("%q for a write: %v", route, err)
		}
	}
	if _, err := parseRoute(api.Read(family.listServices, api.Route("DELETE /services"))); err == nil {
		t.Error("DELETE for a read is taken")
	}
}

func TestOpenAPI(t *testing.T) {
	s, _, _ := newTestServer(t, withPress(newPress()))
	w := ask(t, s, "GET", "/api/openapi.json", "", "")
	if w.Code != 200 {
		t.Fatalf("HTTP %d %s", w.Code, w.Body)
	}
	text := w.Body.String()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("testdata/openapi-3.1.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	official, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	add(t, c, "openapi.json", official)
	if err := compile(t, c, "openapi.json").Validate(doc); err != nil {
		t.Fatalf("not an OpenAPI 3.1 document: %v", err)
	}

	// Every schema in it is one, every reference leads somewhere, and real answers are as it says.
	c = jsonschema.NewCompiler()
	add(t, c, "doc.json", doc)
	root := doc.(map[string]any)
	for name := range root["components"].(map[string]any)["schemas"].(map[string]any) {
		compile(t, c, "doc.json#/components/schemas/"+name)
	}
	for _, check := range []struct{ method, path, at, body string }{
		{"POST", "/actions/elasticloadbalancingv2/DescribeLoadBalancers", "/actions/elasticloadbalancingv2/DescribeLoadBalancers", "{}"},
		{"GET", "/subnets", "/subnets", ""},
		{"GET", "/caller-identity", "/caller-identity", ""},
		{"POST", "/clusters", "/clusters", `{"clusterName":"one"}`},
		{"GET", "/clusters/one/front-page", "/clusters/{cluster}/front-page", ""},
		{"GET", "/clusters/one/services?launchType=EC2", "/clusters/{cluster}/services", ""},
	} {
		pointer := "doc.json#/paths/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(check.at) + "/" + strings.ToLower(check.method)
		w := ask(t, s, check.method, "/api/v1"+check.path, check.body, "sts", "Content-Type", "application/json")
		answer, err := jsonschema.UnmarshalJSON(w.Body)
		if err != nil || w.Code != 200 {
			t.Fatalf("%s: HTTP %d, %v", check.path, w.Code, err)
		}
		if err := compile(t, c, pointer+"/responses/200/content/application~1json/schema").Validate(answer); err != nil {
			t.Errorf("%s answers what the document does not say: %v", check.path, err)
		}
	}

	var d struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, methods := range d.Paths {
		for _, op := range methods {
			if seen[op.OperationID] {
				t.Errorf("%s is there twice", op.OperationID)
			}
			seen[op.OperationID] = true
		}
	}
	if bound := len(s.services.byInput) + len(s.resources); len(seen) != bound {
		t.Errorf("%d operations described, %d bound", len(seen), bound)
	}
}

func add(t *testing.T, c *jsonschema.Compiler, name string, doc any) {
	t.Helper()
	if err := c.AddResource(name, doc); err != nil {
		t.Fatal(err)
	}
}

func compile(t *testing.T, c *jsonschema.Compiler, name string) *jsonschema.Schema {
	t.Helper()
	schema, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// The two ways give the same JSON.
func TestRESTAnswersAsTheAWSOperation(t *testing.T) {
	s, _, _ := newTestServer(t, nil)
	over := func(w *httptest.ResponseRecorder) (v map[string]any) {
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != 200 {
			t.Fatalf("HTTP %d %s: %v", w.Code, w.Body, err)
		}
		return v
	}
	aws := over(ask(t, s, "POST", "/", `{"clusterName":"one"}`, "ecs", "X-Amz-Target", ecsTarget+"CreateCluster"))
	rest := over(ask(t, s, "POST", "/api/v1/clusters", `{"clusterName":"one"}`, "ecs", "Content-Type", "application/json"))
	if !reflect.DeepEqual(aws, rest) {
		t.Errorf("AWS %v, REST %v", aws, rest)
	}
}
