package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
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
)

// The SDK's clients are the oracle: what they send must decode to what they were given, and what we answer must
// come out of them as it went in. Their transport is replaced; nothing is sent.

// exchange is one captured call.
type exchange struct {
	target string // X-Amz-Target
	body   []byte
	answer Answer
}

// Do implements the SDK's HTTP client.
func (x *exchange) Do(r *http.Request) (*http.Response, error) {
	x.target = r.Header.Get("X-Amz-Target")
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		x.body = b
	}
	return &http.Response{
		StatusCode: x.answer.Status, Header: x.answer.Header, Body: io.NopCloser(bytes.NewReader(x.answer.Body)), Request: r,
	}, nil
}

type noRetry struct{}

func (noRetry) IsErrorRetryable(error) bool                        { return false }
func (noRetry) MaxAttempts() int                                   { return 1 }
func (noRetry) GetInitialToken() func(error) error                 { return func(error) error { return nil } }
func (noRetry) RetryDelay(int, error) (d time.Duration, err error) { return 0, errors.New("no retry") }
func (noRetry) GetRetryToken(context.Context, error) (func(error) error, error) {
	return func(error) error { return nil }, nil
}

// newClient is a client of a service whose calls go to x.
func newClient(service string, x *exchange) any {
	cfg := aws.Config{
		Region: "us-east-1", HTTPClient: x, Retryer: func() aws.Retryer { return noRetry{} },
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "SECRET"}, nil
		}),
		BaseEndpoint:                aws.String("http://localhost"),
		DisableRequestCompression:   true,
		RequestMinCompressSizeBytes: 1 << 20,
	}
	switch service {
	case "applicationautoscaling":
		return applicationautoscaling.NewFromConfig(cfg)
	case "autoscaling":
		return autoscaling.NewFromConfig(cfg)
	case "cloudwatchlogs":
		return cloudwatchlogs.NewFromConfig(cfg)
	case "ec2":
		return ec2.NewFromConfig(cfg)
	case "ecr":
		return ecr.NewFromConfig(cfg)
	case "ecrpublic":
		return ecrpublic.NewFromConfig(cfg)
	case "ecs":
		return ecs.NewFromConfig(cfg)
	case "elasticloadbalancingv2":
		return elasticloadbalancingv2.NewFromConfig(cfg)
	case "iam":
		return iam.NewFromConfig(cfg)
	case "secretsmanager":
		return secretsmanager.NewFromConfig(cfg)
	case "ssm":
		return ssm.NewFromConfig(cfg)
	case "servicediscovery":
		return servicediscovery.NewFromConfig(cfg)
	case "sts":
		return sts.NewFromConfig(cfg)
	}
	panic("no client of " + service)
}

// call calls an operation by name.
func call(client any, name string, in any) (out any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the client panicked: %v", r)
		}
	}()
	r := reflect.ValueOf(client).MethodByName(name).Call([]reflect.Value{reflect.ValueOf(context.Background()), reflect.ValueOf(in)})
	if e, ok := r[1].Interface().(error); ok {
		return nil, e
	}
	return r[0].Interface(), nil
}

// decodeAs decodes a captured request body in the operation's protocol.
func decodeAs(o *Operation, body []byte) (any, error) {
	if o.codec.protocol == JSON {
		return o.DecodeJSON(body)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	if got := form.Get("Action"); got != o.Name() {
		return nil, fmt.Errorf("Action is %s", got)
	}
	return o.DecodeQuery(form)
}

// answerAs renders an output in the operation's protocol.
func answerAs(o *Operation, out any) Answer {
	a := Answer{Status: 200, Header: http.Header{"Content-Type": {o.codec.ContentType()}, "X-Amzn-Requestid": {"req-1"}}}
	if o.codec.protocol == JSON {
		a.Body = o.AppendJSON(nil, out)
	} else {
		a.Body = o.AppendXML(nil, out, "req-1")
	}
	return a
}
