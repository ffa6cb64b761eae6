package wire

import (
	"errors"
	"testing"

	"github.com/aws/smithy-go"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// TestErrorBodies: one golden a protocol.
func TestErrorBodies(t *testing.T) {
	for _, c := range []struct {
		service string
		err     *awserr.Error
		status  int
		header  string // X-Amzn-Errortype
		body    string
	}{
		{"ecs", awserr.New("ClusterNotFoundException", "Cluster not found."), 400, "ClusterNotFoundException",
			`{"__type":"ClusterNotFoundException","message":"Cluster not found."}`},
		{"ecs", awserr.New("ServerException", "x"), 500, "ServerException", `{"__type":"ServerException","message":"x"}`},
		{"ecs", awserr.WithStatus(403, "InvalidSignatureException", "no \"match\""), 403, "InvalidSignatureException",
			`{"__type":"InvalidSignatureException","message":"no \"match\""}`},
		{"servicediscovery", &awserr.Error{Code: "NamespaceAlreadyExists", Message: "m", Fields: map[string]any{"NamespaceId": "ns-1", "CreatorRequestId": "r"}}, 400,
			"NamespaceAlreadyExists", `{"__type":"NamespaceAlreadyExists","Message":"m","CreatorRequestId":"r","NamespaceId":"ns-1"}`},
		{"elasticloadbalancingv2", awserr.New("LoadBalancerNotFound", "a < b"), 400, "",
			`<ErrorResponse xmlns="http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"><Error><Type>Sender</Type><Code>LoadBalancerNotFound</Code><Message>a &lt; b</Message></Error><RequestId>req-1</RequestId></ErrorResponse>`},
		{"elasticloadbalancingv2", awserr.New("LoadBalancerNotFoundException", "by its shape's name"), 400, "",
			`<ErrorResponse xmlns="http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"><Error><Type>Sender</Type><Code>LoadBalancerNotFound</Code><Message>by its shape's name</Message></Error><RequestId>req-1</RequestId></ErrorResponse>`},
		{"iam", awserr.New("NoSuchEntity", "m"), 404, "",
			`<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>m</Message></Error><RequestId>req-1</RequestId></ErrorResponse>`},
		{"iam", awserr.New("ServiceFailure", "m"), 500, "",
			`<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Receiver</Type><Code>ServiceFailure</Code><Message>m</Message></Error><RequestId>req-1</RequestId></ErrorResponse>`},
		{"ec2", awserr.New("InvalidVpcID.NotFound", "The vpc ID 'vpc-1' does not exist"), 400, "",
			"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>InvalidVpcID.NotFound</Code><Message>The vpc ID 'vpc-1' does not exist</Message></Error></Errors><RequestID>req-1</RequestID></Response>"},
	} {
		codec, err := New(c.service)
		if err != nil {
			t.Fatal(err)
		}
		a := codec.Error(c.err, "req-1")
		if a.Status != c.status || a.Header.Get("X-Amzn-Errortype") != c.header || a.Header.Get("Content-Type") != codec.ContentType() || string(a.Body) != c.body {
			t.Errorf("%s %s: %d %v\n%s\nwant %d\n%s", c.service, c.err.Code, a.Status, a.Header, a.Body, c.status, c.body)
		}
	}
}

// TestClientsReadErrors: the SDK's clients find code and message, for every exception of every service.
func TestClientsReadErrors(t *testing.T) {
	ops := map[string]string{
		"applicationautoscaling": "DescribeScalingPolicies", "autoscaling": "DescribeAccountLimits", "cloudwatchlogs": "DescribeLogGroups",
		"ec2": "DescribeVpcs", "ecr": "DescribeRepositories", "ecrpublic": "DescribeRepositories", "ecs": "ListClusters", "elasticloadbalancingv2": "DescribeLoadBalancers",
		"iam": "ListUsers", "servicediscovery": "ListServices", "sts": "GetCallerIdentity",
	}
	for service, op := range ops {
		o := mustBind(t, service, op)
		codes := []string{"NotModelled.At.All"}
		for _, name := range o.codec.model.Shapes() {
			if s := o.codec.model.Shape(name); s.Exception {
				codes = append(codes, name)
			}
		}
		for _, code := range codes {
			x := &exchange{answer: o.codec.Error(awserr.New(code, "it's <wrong> & \"so\""), "req-1")}
			in := o.New()
			if service == "applicationautoscaling" {
				v, err := o.DecodeJSON([]byte(`{"ServiceNamespace":"ecs"}`))
				if err != nil {
					t.Fatal(err)
				}
				in = v
			}
			_, err := call(newClient(service, x), op, in)
			var api smithy.APIError
			if !errors.As(err, &api) {
				t.Fatalf("%s %s: the client read %v", service, code, err)
			}
			want := code
			if s := o.codec.model.ErrorShape(code); s != nil && s.Error != nil && s.Error.Code != "" {
				want = s.Error.Code
			}
			if got := api.ErrorCode(); got != want && got != code || api.ErrorMessage() != "it's <wrong> & \"so\"" {
				t.Errorf("%s %s: the client read %s: %s", service, code, got, api.ErrorMessage())
			}
		}
	}
}
