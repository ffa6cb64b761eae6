package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdkecs "github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	sdkelb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/ec2"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/controlplane/sts"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/seal"
)

const (
	account, second = "000000000000", "111111111111"
	region          = "us-east-1"
)

var (
	errLeaderless = errors.New("no leader")
	errFull       = fmt.Errorf("%w, for want of room", errLeaderless)
	errLarge      = errors.New("101 operations")
)

// clusters is a family for the tests: one whose answers show what reached it.
type clusters struct {
	mu   sync.Mutex
	seen []*api.Call
}

func (f *clusters) create(ctx context.Context, in *sdkecs.CreateClusterInput) (*sdkecs.CreateClusterOutput, error) {
	c := api.CallFrom(ctx)
	f.mu.Lock()
	f.seen = append(f.seen, c)
	f.mu.Unlock()
	switch name := aws.ToString(in.ClusterName); name {
	case "panics":
		panic("on purpose")
	case "fails":
		return nil, errors.New("the disk is on fire")
	case "leaderless":
		return nil, errLeaderless
	case "full":
		return nil, errFull
	case "large":
		return nil, errLarge
	case "refused":
		return nil, awserr.New("ClusterNotFoundException", "Cluster not found.")
	default:
		return &sdkecs.CreateClusterOutput{Cluster: &ecstypes.Cluster{ClusterName: &name, ClusterArn: new("arn:aws:ecs:" + c.Region + ":" + c.Account + ":cluster/" + name)}}, nil
	}
}

func (f *clusters) listServices(_ context.Context, in *sdkecs.ListServicesInput) (*sdkecs.ListServicesOutput, error) {
	return &sdkecs.ListServicesOutput{ServiceArns: []string{aws.ToString(in.Cluster), string(in.LaunchType)}}, nil
}

func describeLoadBalancers(context.Context, *sdkelb.DescribeLoadBalancersInput) (*sdkelb.DescribeLoadBalancersOutput, error) {
	return &sdkelb.DescribeLoadBalancersOutput{}, nil
}

func (f *clusters) operations() []api.Operation {
	return []api.Operation{
		api.Write(f.create, api.Route("POST /clusters"), api.Resource(func(c *api.Call, in *sdkecs.CreateClusterInput) string {
			return "arn:aws:ecs:" + c.Region + ":" + c.Account + ":cluster/" + *in.ClusterName
		})),
		api.Read(f.listServices, api.Route("GET /clusters/{cluster}/services")),
		api.Read(describeLoadBalancers),
	}
}

func pages(t testing.TB) *api.Pages {
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	s, err := seal.New(key, "page-token")
	if err != nil {
		t.Fatal(err)
	}
	return api.NewPages(s)
}

func newTestServer(t testing.TB, adjust func(*Config)) (*Server, *clusters, *bytes.Buffer) {
	t.Helper()
	creds, err := auth.NewStatic(auth.Root{Account: account, AccessKeyID: "test", SecretAccessKey: "test"},
		auth.Root{Account: second, AccessKeyID: "other", SecretAccessKey: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	family, log := &clusters{}, &bytes.Buffer{}
	ops := append(family.operations(), sts.New(sts.Config{}).Operations()...)
	ops = append(ops, ec2.New(ec2.Config{Store: statetest.New(t, append(controlplane.Schema, ec2.Schema...)...), Pages: pages(t)}).Operations()...)
	cfg := Config{Operations: ops, Credentials: creds, Account: account, Region: region, Guard: true, PublicName: "localhost:4566",
		Retryable: func(err error) bool { return errors.Is(err, errLeaderless) },
		Reason: func(err error) string {
			if errors.Is(err, errFull) {
				return "The disk is full."
			}
			return ""
		},
		TooLarge: func(err error) bool { return errors.Is(err, errLarge) },
		Logger:   slog.New(slog.NewTextHandler(&lockedWriter{w: log}, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if adjust != nil {
		adjust(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, family, log
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// ask sends a request to s as if it came over the wire. service signs it; empty leaves it unsigned.
func ask(t testing.TB, s http.Handler, method, target, body, service string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:4566"
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	if service != "" {
		sign(t, r, body, service)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func sign(t testing.TB, r *http.Request, body, service string) {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	r.URL.Host = r.Host
	creds := aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}
	if err := v4.NewSigner().SignHTTP(r.Context(), creds, r, hex.EncodeToString(sum[:]), service, region, time.Now()); err != nil {
		t.Fatal(err)
	}
}

const (
	ecsTarget = "AmazonEC2ContainerServiceV20141113."
	jsonType  = "application/x-amz-json-1.1"
	formType  = "application/x-www-form-urlencoded; charset=utf-8"
)

func TestDispatchOrder(t *testing.T) {
	named := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })
	}
	s, _, _ := newTestServer(t, func(c *Config) {
		c.Registry = named("registry")
		c.LoadBalancer = func(host string) http.Handler {
			if host == "web-1.us-east-1.elb.localhost" {
				return named("load balancer")
			}
			return nil
		}
	})
	create := `{"clusterName":"one"}`
	ask(t, s, "GET", "/api/v1/clusters/one/services", "", "ecs") // whatever comes first: there is a call to count
	for name, c := range map[string]struct {
		method, target, body, service string
		header                        []string
		status                        int
		want                          string
	}{
		"a load balancer's name comes first":      {"GET", "/healthz", "", "", []string{"Host", "web-1.us-east-1.elb.localhost:4566"}, 200, "load balancer"},
		"it even takes /v2":                       {"GET", "/v2/", "", "", []string{"Host", "Web-1.us-east-1.ELB.localhost"}, 200, "load balancer"},
		"health":                                  {"GET", "/healthz", "", "", nil, 200, "ok"},
		"health, signed":                          {"GET", "/healthz", "", "ecs", nil, 200, "ok"},
		"metrics":                                 {"GET", "/metrics", "", "", nil, 200, "neargate_api_calls_total"},
		"console":                                 {"GET", "/console", "", "", nil, 404, "There is no web console yet"},
		"the REST API, signed":                    {"GET", "/api/v1/clusters/one/services", "", "ecs", nil, 200, `{"serviceArns":["one",""]}`},
		"nothing under /api":                      {"GET", "/api/v2/", "", "", nil, 404, "/api/openapi.json"},
		"the registry, unsigned":                  {"GET", "/v2/", "", "", nil, 200, "registry"},
		"/v2 signed is not the registry's":        {"GET", "/v2/apis", "", "apigateway", nil, 501, "The service apigateway is not implemented."},
		"/v20 is not the registry's":              {"GET", "/v20", "", "", nil, 403, "MissingAuthenticationToken"},
		"json by its target":                      {"POST", "/", create, "ecs", []string{"X-Amz-Target", ecsTarget + "CreateCluster", "Content-Type", jsonType}, 200, "cluster/one"},
		"the path does not matter to it":          {"POST", "/some/where", create, "ecs", []string{"X-Amz-Target", ecsTarget + "CreateCluster", "Content-Type", jsonType}, 200, "cluster/one"},
		"the scope decides, not the target":       {"POST", "/", create, "ecr", []string{"X-Amz-Target", ecsTarget + "CreateCluster", "Content-Type", jsonType}, 400, "UnknownOperationException"},
		"query by its action":                     {"POST", "/", "Action=GetCallerIdentity&Version=2011-06-15", "sts", []string{"Content-Type", formType}, 200, "<Account>000000000000</Account>"},
		"query in the query string":               {"GET", "/?Action=GetCallerIdentity&Version=2011-06-15", "", "sts", nil, 200, "<Account>000000000000</Account>"},
		"ec2":                                     {"POST", "/", "Action=DescribeVpcs&Version=2016-11-15", "ec2", []string{"Content-Type", formType}, 200, "<vpcSet><item>"},
		"a signing name of its own":               {"POST", "/", "Action=DescribeLoadBalancers&Version=2015-12-01", "elasticloadbalancing", []string{"Content-Type", formType}, 200, "DescribeLoadBalancersResponse"},
		"another version is another API":          {"POST", "/", "Action=DescribeLoadBalancers&Version=2012-06-01", "elasticloadbalancing", []string{"Content-Type", formType}, 400, "Could not find operation DescribeLoadBalancers for version 2012-06-01"},
		"unknown json operation":                  {"POST", "/", "{}", "ecs", []string{"X-Amz-Target", ecsTarget + "MakeCoffee"}, 400, `"__type":"UnknownOperationException"`},
		"no target":                               {"POST", "/", "{}", "ecs", nil, 400, `"__type":"UnknownOperationException"`},
		"unknown action":                          {"POST", "/", "Action=MakeCoffee&Version=2011-06-15", "sts", []string{"Content-Type", formType}, 400, "<Code>InvalidAction</Code><Message>Could not find operation MakeCoffee for version 2011-06-15</Message>"},
		"unknown ec2 action":                      {"POST", "/", "Action=MakeCoffee&Version=2016-11-15", "ec2", []string{"Content-Type", formType}, 400, "<Code>InvalidAction</Code><Message>The action MakeCoffee is not valid for this web service.</Message>"},
		"no action":                               {"POST", "/", "", "sts", []string{"Content-Type", formType}, 400, "<Code>MissingAction</Code>"},
		"json operation not built":                {"POST", "/", "{}", "ecs", []string{"X-Amz-Target", ecsTarget + "CreateTaskSet"}, 501, `"__type":"NotImplemented"`},
		"query operation not built":               {"POST", "/", "Action=GetFederationToken&Version=2011-06-15", "sts", []string{"Content-Type", formType}, 501, "<Code>NotImplemented</Code>"},
		"ec2 operation not built":                 {"POST", "/", "Action=RunInstances&Version=2016-11-15", "ec2", []string{"Content-Type", formType}, 501, "<Code>NotImplemented</Code>"},
		"a service nobody built":                  {"PUT", "/bucket/key", "x", "s3", nil, 501, "The service s3 is not implemented."},
		"another Smithy protocol":                 {"POST", "/service/ECS/operation/ListClusters", "\xa0", "ecs", []string{"Smithy-Protocol", "rpc-v2-cbor"}, 501, "not in rpc-v2-cbor"},
		"json without signature":                  {"POST", "/", "{}", "", []string{"X-Amz-Target", ecsTarget + "ListClusters"}, 400, `"__type":"MissingAuthenticationTokenException"`},
		"query without signature":                 {"POST", "/", "Action=GetCallerIdentity&Version=2011-06-15", "", []string{"Content-Type", formType}, 403, "<Code>MissingAuthenticationToken</Code>"},
		"malformed json":                          {"POST", "/", "{", "ecs", []string{"X-Amz-Target", ecsTarget + "CreateCluster"}, 400, "SerializationException"},
		"an upload labelled as a form is no form": {"POST", "/", create, "ecs", []string{"X-Amz-Target", ecsTarget + "CreateCluster", "Content-Type", formType}, 200, "cluster/one"},
		"too long":                                {"POST", "/", strings.Repeat(" ", maxBody+1), "ecs", []string{"X-Amz-Target", ecsTarget + "CreateCluster"}, 413, "RequestEntityTooLarge"},
		"broken authorization":                    {"POST", "/", "{}", "", []string{"X-Amz-Target", ecsTarget + "ListClusters", "Authorization", "AWS4-HMAC-SHA256 Credential=a"}, 400, `"__type":"IncompleteSignatureException"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(t, s, c.method, c.target, c.body, c.service, c.header...)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("HTTP %d %s\nwant %d with %s", w.Code, w.Body, c.status, c.want)
			}
			if w.Body.String() != "load balancer" && len(w.Header().Get("X-Amzn-Requestid")) != 36 {
				t.Errorf("request id %q", w.Header().Get("X-Amzn-Requestid"))
			}
		})
	}
}

func TestFailuresOfHandlers(t *testing.T) {
	s, _, log := newTestServer(t, nil)
	for _, c := range []struct {
		name, code string
		status     int
		logged     string
		says       string
	}{
		{"refused", "ClusterNotFoundException", 400, "code=ClusterNotFoundException", "Cluster not found."},
		{"fails", "ServerException", 500, "the disk is on fire", "An internal error has occurred."},
		{"panics", "ServerException", 500, "on purpose", "An internal error has occurred."},
		{"leaderless", "ServiceUnavailable", 503, "no leader", "The service is temporarily unavailable. Please try again."},
		{"full", "ServiceUnavailable", 503, "for want of room", "The disk is full. Please try again."},
		{"large", "RequestEntityTooLarge", 413, "101 operations", "This call asks for more than is done at once"},
	} {
		log.Reset()
		w := ask(t, s, "POST", "/", `{"clusterName":"`+c.name+`"}`, "ecs", "X-Amz-Target", ecsTarget+"CreateCluster")
		if w.Code != c.status || w.Header().Get("X-Amzn-Errortype") != c.code || !strings.Contains(w.Body.String(), c.says) || strings.Contains(w.Body.String(), "fire") || strings.Contains(w.Body.String(), "purpose") {
			t.Errorf("%s: HTTP %d %s %s", c.name, w.Code, w.Header(), w.Body)
		}
		if !strings.Contains(log.String(), c.logged) || !strings.Contains(log.String(), w.Header().Get("X-Amzn-Requestid")) {
			t.Errorf("%s: the log does not say %q with the request id:\n%s", c.name, c.logged, log)
		}
	}
	// A handler that panics has spoilt nothing.
	if w := ask(t, s, "POST", "/", `{"clusterName":"one"}`, "ecs", "X-Amz-Target", ecsTarget+"CreateCluster"); w.Code != 200 {
		t.Errorf("afterwards: HTTP %d %s", w.Code, w.Body)
	}
	metrics := ask(t, s, "GET", "/metrics", "", "").Body.String()
	if want := `neargate_api_calls_total{code="ServerException",operation="CreateCluster",service="ecs"} 2`; !strings.Contains(metrics, want) {
		t.Errorf("metrics lack %s:\n%s", want, metrics)
	}
}

// The pipeline is the same for calls between our own parts.
func TestInvoke(t *testing.T) {
	s, family, log := newTestServer(t, nil)
	out, err := api.Invoke[sdkecs.CreateClusterOutput](t.Context(), s, api.System(second), "eu-west-1", &sdkecs.CreateClusterInput{ClusterName: new("mine")})
	if err != nil || *out.Cluster.ClusterArn != "arn:aws:ecs:eu-west-1:"+second+":cluster/mine" {
		t.Fatalf("got %+v, %v", out, err)
	}
	if c := family.seen[0]; c.Service != "ecs" || c.Operation != "CreateCluster" || c.RequestID == "" || c.Host != "localhost:4566" {
		t.Errorf("call %+v", c)
	}
	if !strings.Contains(log.String(), "resource=arn:aws:ecs:eu-west-1:"+second+":cluster/mine") {
		t.Errorf("no audit of it: %s", log)
	}
	if _, err := s.Invoke(t.Context(), api.Identity{Account: second, ARN: "arn:aws:iam::" + second + ":user/u"}, region, &sdkecs.CreateClusterInput{ClusterName: new("mine")}); !awserr.Is(err, "AccessDeniedException") {
		t.Errorf("a user without policies: %v", err)
	}
	if _, err := s.Invoke(t.Context(), api.System(account), region, &sdkecs.ListServicesInput{LaunchType: "MOON"}); !awserr.Is(err, "InvalidParameterException") {
		t.Errorf("an input the model does not allow: %v", err)
	}
	if _, err := s.Invoke(t.Context(), api.System(account), region, &sdkecs.DeleteClusterInput{}); err == nil {
		t.Error("an operation that nobody built")
	}
}

// What the operations of the table need is in the models; New itself does not look.
func TestEveryOperationBinds(t *testing.T) {
	s, _, _ := newTestServer(t, nil)
	if err := s.Prepare(); err != nil {
		t.Error(err)
	}
}

func TestSigningNamesAreTheModels(t *testing.T) {
	c, err := newCatalogue(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, svc := range c.services {
		codec, err := svc.codec()
		if err != nil {
			t.Fatal(err)
		}
		if got := c.signedFor(codec.Model().SigningName); got != svc {
			t.Errorf("scope %q of %s leads elsewhere", codec.Model().SigningName, name)
		}
	}
}

func TestReadiness(t *testing.T) {
	var down, away error
	s, _, _ := newTestServer(t, func(c *Config) {
		c.Ready = func(context.Context) []Check {
			return []Check{{Name: "state"}, {Name: "agent", Err: down}, {Name: "store", Err: away, Shared: true}}
		}
	})
	if w := ask(t, s, "GET", "/readyz?verbose", "", ""); w.Code != 200 || w.Body.String() != "[+]state ok\n[+]agent ok\n[+]store ok\nok\n" {
		t.Errorf("HTTP %d %s", w.Code, w.Body)
	}
	away = errors.New("no answer")
	if w := ask(t, s, "GET", "/readyz", "", ""); w.Code != 200 || w.Body.String() != "[+]state ok\n[+]agent ok\n[!]store: no answer\nok\n" {
		t.Errorf("what all servers do without: HTTP %d %s", w.Code, w.Body)
	}
	down = errors.New("not connected")
	for _, path := range []string{"/readyz", "/healthz"} {
		if w := ask(t, s, "GET", path, "", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "[-]agent: not connected") {
			t.Errorf("%s: HTTP %d %s", path, w.Code, w.Body)
		}
	}
	if w := ask(t, s, "GET", "/livez", "", ""); w.Code != 200 {
		t.Errorf("a process whose agent is away lives: HTTP %d", w.Code)
	}
}
