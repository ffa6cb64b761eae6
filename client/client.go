// Package client does what the command line offers, through the public API alone: it holds no privilege that a user of the
// AWS CLI does not have. Deploy is the whole way from an image to a URL; the other files are a verb each.
package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

// Config says where the platform is and who calls. The zero value is what FromEnvironment fills.
type Config struct {
	Endpoint  string // "http://127.0.0.1:4566"
	Region    string
	AccessKey string
	SecretKey string
	Token     string // session token, with temporary credentials
	CABundle  string // PEM file of the authorities to trust besides the system's: DIR/keys/ca.pem of a server
}

// FromEnvironment takes what is not set from the variables that the AWS CLI reads too, then from the defaults of
// `neargate dev`.
func (c Config) FromEnvironment() Config {
	pick := func(v *string, names string, def string) {
		for _, n := range strings.Fields(names) {
			if *v == "" {
				*v = os.Getenv(n)
			}
		}
		if *v == "" {
			*v = def
		}
	}
	pick(&c.Endpoint, "NEARGATE_ENDPOINT AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
	pick(&c.Region, "AWS_REGION AWS_DEFAULT_REGION", "us-east-1")
	pick(&c.AccessKey, "AWS_ACCESS_KEY_ID NEARGATE_ROOT_ACCESS_KEY_ID", "test")
	pick(&c.SecretKey, "AWS_SECRET_ACCESS_KEY NEARGATE_ROOT_SECRET_ACCESS_KEY", "test")
	pick(&c.Token, "AWS_SESSION_TOKEN", "")
	pick(&c.CABundle, "AWS_CA_BUNDLE", "")
	return c
}

// Client talks to one platform.
type Client struct {
	Config Config
	ECS    *ecs.Client
	ELB    *elasticloadbalancingv2.Client
	ECR    *ecr.Client
	EC2    *ec2.Client
	http   *http.Client
}

// New makes the clients; nothing is sent yet.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("endpoint %q is not a URL like http://127.0.0.1:4566", c.Endpoint)
	}
	h, err := httpClient(c.CABundle)
	if err != nil {
		return nil, err
	}
	cfg := aws.Config{Region: c.Region, BaseEndpoint: &c.Endpoint, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: c.AccessKey, SecretAccessKey: c.SecretKey, SessionToken: c.Token}, nil
	})}
	cfg.HTTPClient = sdkhttp.New(nil)
	if c.CABundle != "" {
		cfg.HTTPClient = sdkhttp.New(h)
	}
	return &Client{
		Config: c, http: h, ECS: ecs.NewFromConfig(cfg), ELB: elasticloadbalancingv2.NewFromConfig(cfg), ECR: ecr.NewFromConfig(cfg), EC2: ec2.NewFromConfig(cfg),
	}, nil
}

// httpClient trusts the authorities in a file besides those of the system.
func httpClient(bundle string) (*http.Client, error) {
	if bundle == "" {
		return http.DefaultClient, nil
	}
	text, err := os.ReadFile(bundle)
	if err != nil {
		return nil, fmt.Errorf("certificate authorities: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("certificate authorities: %w", err)
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("certificate authorities: %s holds none", bundle)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: t}, nil
}

// WaitReady returns once the platform answers 200 at /healthz, or with the last answer when ctx ends.
func (c *Client) WaitReady(ctx context.Context) error {
	for {
		err := c.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", c.Config.Endpoint, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *Client) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Config.Endpoint+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return fmt.Errorf("%s: %s", resp.Status, b)
	}
	return nil
}

// restError is what the REST API refuses with.
type restError struct {
	status  int
	message string
}

func (e *restError) Error() string { return e.message }

// get opens a resource of the REST API below /api/v1; the caller closes the body.
func (c *Client) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	return c.rest(ctx, http.MethodGet, path, query, nil)
}

// jsonDocument is a request's body that is signed.
type jsonDocument struct{ *bytes.Reader }

// rest is get with another method, and a body unless that is nil: a jsonDocument, or bytes.
func (c *Client) rest(ctx context.Context, method, path string, query url.Values, body io.Reader) (io.ReadCloser, error) {
	return c.restWith(ctx, nil, method, path, query, body)
}

// restWith is rest with further headers.
func (c *Client) restWith(ctx context.Context, header http.Header, method, path string, query url.Values, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.Config.Endpoint+"/api/v1"+path, body)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header)
	req.URL.RawQuery = query.Encode()
	hash := sha256.New()
	document, signed := body.(jsonDocument)
	if signed {
		req.ContentLength = document.Size()
		document.WriteTo(hash)
		document.Seek(0, io.SeekStart)
	}
	payload := hex.EncodeToString(hash.Sum(nil))
	switch {
	case body != nil && !signed:
		payload = "UNSIGNED-PAYLOAD" // it is not read twice
		req.Header.Set("X-Amz-Content-Sha256", payload)
		req.Header.Set("Content-Type", "application/octet-stream")
	case method != http.MethodGet:
		req.Header.Set("Content-Type", "application/json")
	}
	creds := aws.Credentials{AccessKeyID: c.Config.AccessKey, SecretAccessKey: c.Config.SecretKey, SessionToken: c.Config.Token}
	if err := v4.NewSigner().SignHTTP(ctx, creds, req, payload, "ecs", c.Config.Region, time.Now()); err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, err
	}
	e := &restError{resp.StatusCode, fmt.Sprintf("%s %s: %s: %s", method, path, resp.Status, b)}
	var answer struct{ Code, Message string }
	if json.Unmarshal(b, &answer) == nil && answer.Message != "" {
		e.message = answer.Message
	}
	return nil, e
}
