package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdkec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	sdkecs "github.com/aws/aws-sdk-go-v2/service/ecs"
	sdksts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

// listening serves s on loopback and counts requests.
func listening(t *testing.T, s http.Handler) (endpoint string, requests *atomic.Int64) {
	t.Helper()
	requests = &atomic.Int64{}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	return h.URL, requests
}

func sdkConfig(endpoint, region, key, secret string) aws.Config {
	return aws.Config{Region: region, BaseEndpoint: &endpoint, HTTPClient: sdkhttp.New(nil), Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}, nil
	})}
}

// Two accounts in two regions, each with the Go SDK, see their own things and nothing else.
func TestGoSDKAccountsAndRegionsAreApart(t *testing.T) {
	s, _, _ := newTestServer(t, nil)
	endpoint, _ := listening(t, s)
	owner := map[string]string{} // id -> who saw it
	for _, who := range []struct{ account, key, secret, region string }{
		{account, "test", "test", "us-east-1"}, {account, "test", "test", "eu-west-1"},
		{second, "other", "secret", "us-east-1"}, {second, "other", "secret", "eu-west-1"},
	} {
		name, cfg := who.account+"/"+who.region, sdkConfig(endpoint, who.region, who.key, who.secret)
		id, err := sdksts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), nil)
		if err != nil || *id.Account != who.account || *id.Arn != "arn:aws:iam::"+who.account+":root" {
			t.Fatalf("%s: %+v, %v", name, id, err)
		}
		pager := sdkec2.NewDescribeSubnetsPaginator(sdkec2.NewFromConfig(cfg), &sdkec2.DescribeSubnetsInput{MaxResults: new(int32(5))})
		for pager.HasMorePages() {
			page, err := pager.NextPage(t.Context())
			if err != nil || len(page.Subnets) != 3 {
				t.Fatalf("%s: %+v, %v", name, page, err)
			}
			for _, n := range page.Subnets {
				if *n.OwnerId != who.account || !strings.HasPrefix(*n.AvailabilityZone, who.region) {
					t.Errorf("%s sees a subnet of %s in %s", name, *n.OwnerId, *n.AvailabilityZone)
				}
				if other := owner[*n.SubnetId]; other != "" {
					t.Errorf("%s and %s both see %s", name, other, *n.SubnetId)
				}
				owner[*n.SubnetId] = name
			}
		}
		cluster, err := sdkecs.NewFromConfig(cfg).CreateCluster(t.Context(), &sdkecs.CreateClusterInput{ClusterName: new("one")})
		if err != nil || *cluster.Cluster.ClusterArn != "arn:aws:ecs:"+who.region+":"+who.account+":cluster/one" {
			t.Errorf("%s: %+v, %v", name, cluster, err)
		}
	}
}

func TestGoSDKErrors(t *testing.T) {
	s, _, _ := newTestServer(t, nil)
	endpoint, requests := listening(t, s)
	cfg := sdkConfig(endpoint, region, "test", "test")
	compute, wrong := sdkec2.NewFromConfig(cfg), sdkConfig(endpoint, region, "test", "wrong")
	for name, c := range map[string]struct {
		call func() error
		code string
	}{
		"unknown vpc": {func() error {
			_, err := compute.DescribeVpcs(t.Context(), &sdkec2.DescribeVpcsInput{VpcIds: []string{"vpc-00000000000000000"}})
			return err
		}, "InvalidVpcID.NotFound"},
		"unknown filter": {func() error {
			_, err := compute.DescribeVpcs(t.Context(), &sdkec2.DescribeVpcsInput{Filters: []ec2types.Filter{{Name: new("colour"), Values: []string{"red"}}}})
			return err
		}, "InvalidParameterValue"},
		"not built": {func() error {
			_, err := compute.TerminateInstances(t.Context(), &sdkec2.TerminateInstancesInput{InstanceIds: []string{"i-00000000000000000"}})
			return err
		}, "NotImplemented"},
		"wrong secret, ec2": {func() error {
			_, err := sdkec2.NewFromConfig(wrong).DescribeVpcs(t.Context(), &sdkec2.DescribeVpcsInput{})
			return err
		}, "AuthFailure"},
		"wrong secret, query": {func() error { _, err := sdksts.NewFromConfig(wrong).GetCallerIdentity(t.Context(), nil); return err }, "SignatureDoesNotMatch"},
		"wrong secret, json": {func() error {
			_, err := sdkecs.NewFromConfig(wrong).CreateCluster(t.Context(), nil)
			return err
		}, "InvalidSignatureException"},
		"unknown key": {func() error {
			_, err := sdksts.NewFromConfig(sdkConfig(endpoint, region, "nobody", "x")).GetCallerIdentity(t.Context(), nil)
			return err
		}, "InvalidClientTokenId"},
	} {
		requests.Store(0)
		var e smithy.APIError
		if err := c.call(); !errors.As(err, &e) || e.ErrorCode() != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
		if n := requests.Load(); n != 1 {
			t.Errorf("%s: %d requests; what will not pass must not be retried", name, n)
		}
	}
}

// boto3 is what most scripts for AWS are made of.
func TestBoto3(t *testing.T) {
	if exec.Command("python3", "-c", "import boto3").Run() != nil {
		t.Skip("python3 with boto3 is not here")
	}
	s, _, _ := newTestServer(t, nil)
	endpoint, requests := listening(t, s)
	const script = `
import json, sys, boto3
from botocore.exceptions import ClientError
def client(name, key="test", secret="test", region="us-east-1"):
    return boto3.client(name, endpoint_url=sys.argv[1], region_name=region, aws_access_key_id=key, aws_secret_access_key=secret)
def code(call, **kw):
    try:
        call(**kw)
    except ClientError as e:
        return "%d %s" % (e.response["ResponseMetadata"]["HTTPStatusCode"], e.response["Error"]["Code"])
ec2 = client("ec2")
vpc = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"][0]
out = {
    "account": client("sts", "other", "secret").get_caller_identity()["Account"],
    "cidr": vpc["CidrBlock"],
    "zones": [s["AvailabilityZone"] for p in ec2.get_paginator("describe_subnets").paginate(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]) for s in p["Subnets"]],
    "group": ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"][0]["VpcId"] == vpc["VpcId"],
    "names": [z["ZoneName"] for z in client("ec2", region="eu-west-1").describe_availability_zones()["AvailabilityZones"]],
    "cluster": client("ecs").create_cluster(clusterName="one")["cluster"]["clusterArn"],
    "errors": [
        code(ec2.describe_vpcs, VpcIds=["vpc-00000000000000000"]),
        code(ec2.describe_subnets, SubnetIds=["nope"]),
        code(client("ecs").create_task_set, cluster="a", service="b", taskDefinition="c"),
        code(client("ecs", "test", "wrong").list_clusters),
        code(client("sts", "nobody").get_caller_identity),
    ],
}
url = client("sts").generate_presigned_url("get_caller_identity", HttpMethod="GET")
import urllib.request
out["presigned"] = urllib.request.urlopen(url).status
print(json.dumps(out))
`
	out, err := run(t, "python3", "-c", script, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Account, CIDR, Cluster string
		Zones, Names, Errors   []string
		Group                  bool
		Presigned              int
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if got.Account != second || got.CIDR != "10.64.0.0/10" || !got.Group || got.Cluster != "arn:aws:ecs:us-east-1:000000000000:cluster/one" || got.Presigned != 200 ||
		!slices.Equal(got.Zones, []string{"us-east-1a", "us-east-1b", "us-east-1c"}) || !slices.Equal(got.Names, []string{"eu-west-1a", "eu-west-1b", "eu-west-1c"}) {
		t.Errorf("got %+v", got)
	}
	if want := []string{"400 InvalidVpcID.NotFound", "400 InvalidSubnetID.Malformed", "501 NotImplemented", "400 InvalidSignatureException", "403 InvalidClientTokenId"}; !slices.Equal(got.Errors, want) {
		t.Errorf("errors %v, want %v", got.Errors, want)
	}
	if n := requests.Load(); n != 12 {
		t.Errorf("%d requests for 12 calls: something was retried", n)
	}
}

func TestCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not here")
	}
	s, _, _ := newTestServer(t, nil)
	endpoint, _ := listening(t, s)
	for name, args := range map[string][]string{
		"Basic": {"-u", "test:test", endpoint + "/api/v1/caller-identity"},
		"SigV4": {"-u", "test:test", "--aws-sigv4", "aws:amz:us-east-1:sts", endpoint + "/api/v1/caller-identity"},
		"SigV4, a JSON body": {"-u", "test:test", "--aws-sigv4", "aws:amz:us-east-1:sts", "-H", "Content-Type: application/json",
			"-d", "{}", endpoint + "/api/v1/actions/sts/GetCallerIdentity"},
	} {
		out, err := run(t, "curl", append([]string{"-sS", "--fail-with-body"}, args...)...)
		if err != nil || !strings.Contains(string(out), `"Account":"000000000000"`) {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
}

func run(t *testing.T, name string, args ...string) ([]byte, error) {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "NO_PROXY=*")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Logf("%s: %s", name, stderr.Bytes())
	}
	return out, err
}

// Run ends with its context, and not before the requests in flight are answered. Nothing limits how long an upload takes.
func TestRun(t *testing.T) {
	s, _, _ := newTestServer(t, func(c *Config) {
		c.Registry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()

	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, "PUT /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: "+l.Addr().String()+"\r\nContent-Length: 9\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("a registry client waits for 100 Continue, got %q, %v", line, err)
	}
	in.ReadString('\n')
	io.WriteString(conn, "half ")
	stop() // in the middle of the upload
	io.WriteString(conn, "done")
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "half done" {
		t.Errorf("the upload in flight came to %q, %v", body, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.DialTimeout("tcp", l.Addr().String(), time.Second); err == nil {
		t.Error("it still listens")
	}
}
