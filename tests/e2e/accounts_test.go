package e2e

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"

	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

// TestAccountsAndRegions has two accounts and two regions with things of one name each, and nobody sees another's.
func TestAccountsAndRegions(t *testing.T) {
	t.Parallel()
	const other = "222222222222"
	p := startOn(t, "fake", "NEARGATE_ACCOUNTS="+other+":AKIAOTHER:other-secret")
	first := p.caller("us-east-1", "test", "test")
	callers := map[string]*caller{ // by the part of an ARN that is theirs
		":us-east-1:000000000000:":  first,
		":eu-west-1:000000000000:":  p.caller("eu-west-1", "test", "test"),
		":us-east-1:" + other + ":": p.caller("us-east-1", "AKIAOTHER", "other-secret"),
	}
	vpcs := map[string]bool{}
	for _, c := range callers {
		vpcs[c.vpc()] = true
	}
	if len(vpcs) != len(callers) {
		t.Errorf("%d callers share the default VPCs %v", len(callers), slices.Collect(maps.Keys(vpcs)))
	}

	first.makeAll()
	for part, c := range callers {
		if got := c.mine(); c != first && len(got) > 0 {
			t.Errorf("the caller of %s sees %v", part, got)
		}
	}
	// The names are free to everybody else.
	for _, c := range callers {
		if c != first {
			c.makeAll()
		}
	}
	for part, c := range callers {
		got := c.mine()
		if len(got) != 4 {
			t.Errorf("the caller of %s sees %v, want one thing of each of four families", part, got)
		}
		for _, arn := range got {
			if !strings.Contains(arn, part) {
				t.Errorf("the caller of %s sees %s", part, arn)
			}
		}
	}
	// An ARN that was overheard is of no use.
	for _, arn := range first.mine() {
		for part, c := range callers {
			if c == first {
				continue
			}
			if err := c.remove(arn); err == nil {
				t.Errorf("the caller of %s was let delete %s", part, arn)
			}
		}
	}
	if got := first.mine(); len(got) != 4 {
		t.Errorf("after others tried to delete them, the first caller has %v", got)
	}
}

// caller is somebody with credentials, in one region.
type caller struct {
	t         *testing.T
	ctx       context.Context
	ecs       *ecs.Client
	ecr       *ecr.Client
	elb       *elb.Client
	ec2       *ec2.Client
	discovery *servicediscovery.Client
}

func (p *platform) caller(region, key, secret string) *caller {
	cfg := aws.Config{Region: region, BaseEndpoint: &p.endpoint, HTTPClient: sdkhttp.New(nil), Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}, nil
	})}
	return &caller{p.t, p.t.Context(), ecs.NewFromConfig(cfg), ecr.NewFromConfig(cfg), elb.NewFromConfig(cfg), ec2.NewFromConfig(cfg), servicediscovery.NewFromConfig(cfg)}
}

// must hands on a call's output, or fails the test with its error.
func must[T any](out T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func (c *caller) vpc() string {
	c.t.Helper()
	out := must(c.ec2.DescribeVpcs(c.ctx, &ec2.DescribeVpcsInput{}))(c.t)
	if len(out.Vpcs) != 1 {
		c.t.Fatalf("%d VPCs, want the default one", len(out.Vpcs))
	}
	return *out.Vpcs[0].VpcId
}

// makeAll makes one thing called mine in each family.
func (c *caller) makeAll() {
	c.t.Helper()
	name := aws.String("mine")
	must(c.ecs.CreateCluster(c.ctx, &ecs.CreateClusterInput{ClusterName: name}))(c.t)
	must(c.ecr.CreateRepository(c.ctx, &ecr.CreateRepositoryInput{RepositoryName: name}))(c.t)
	must(c.elb.CreateTargetGroup(c.ctx, &elb.CreateTargetGroupInput{
		Name: name, Protocol: elbtypes.ProtocolEnumHttp, Port: aws.Int32(80), VpcId: aws.String(c.vpc()),
	}))(c.t)
	must(c.discovery.CreateHttpNamespace(c.ctx, &servicediscovery.CreateHttpNamespaceInput{Name: name}))(c.t)
}

// mine are the ARNs of the things that the caller sees, but for the default cluster.
func (c *caller) mine() (arns []string) {
	c.t.Helper()
	for _, a := range must(c.ecs.ListClusters(c.ctx, &ecs.ListClustersInput{}))(c.t).ClusterArns {
		if !strings.HasSuffix(a, "cluster/default") {
			arns = append(arns, a)
		}
	}
	for _, r := range must(c.ecr.DescribeRepositories(c.ctx, &ecr.DescribeRepositoriesInput{}))(c.t).Repositories {
		arns = append(arns, *r.RepositoryArn)
	}
	for _, g := range must(c.elb.DescribeTargetGroups(c.ctx, &elb.DescribeTargetGroupsInput{}))(c.t).TargetGroups {
		arns = append(arns, *g.TargetGroupArn)
	}
	for _, n := range must(c.discovery.ListNamespaces(c.ctx, &servicediscovery.ListNamespacesInput{}))(c.t).Namespaces {
		arns = append(arns, *n.Arn)
	}
	return arns
}

// remove tries to delete what an ARN names. A repository is named by name alone, which is the caller's own, so it is asked for its tags.
func (c *caller) remove(arn string) (err error) {
	switch {
	case strings.Contains(arn, ":ecs:"):
		_, err = c.ecs.DeleteCluster(c.ctx, &ecs.DeleteClusterInput{Cluster: &arn})
	case strings.Contains(arn, ":ecr:"):
		_, err = c.ecr.ListTagsForResource(c.ctx, &ecr.ListTagsForResourceInput{ResourceArn: &arn})
	case strings.Contains(arn, ":elasticloadbalancing:"):
		if _, err = c.elb.DescribeTags(c.ctx, &elb.DescribeTagsInput{ResourceArns: []string{arn}}); err == nil {
			return nil
		}
		// Deleting what is not there succeeds without a word; what counts is that it stays, which the caller of remove looks at.
		_, _ = c.elb.DeleteTargetGroup(c.ctx, &elb.DeleteTargetGroupInput{TargetGroupArn: &arn})
	default:
		_, err = c.discovery.DeleteNamespace(c.ctx, &servicediscovery.DeleteNamespaceInput{Id: aws.String(arn[strings.LastIndexByte(arn, '/')+1:])})
	}
	return err
}
