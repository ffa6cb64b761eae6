package wire

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	aas "github.com/aws/aws-sdk-go-v2/service/applicationautoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// TestValidate holds the codes and words. Where a service's message is known from the wild, styles names the source.
func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name, service, op string
		in                any
		code, message     string // empty: the input is good
	}{
		{"pattern and length of a log group prefix", "cloudwatchlogs", "DescribeLogGroups",
			&cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: aws.String("")}, "InvalidParameterException",
			`2 validation errors detected: Value '' at 'logGroupNamePrefix' failed to satisfy constraint: Member must satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+; Value '' at 'logGroupNamePrefix' failed to satisfy constraint: Member must have length greater than or equal to 1`},
		{"empty list", "cloudwatchlogs", "PutLogEvents",
			&cloudwatchlogs.PutLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), LogEvents: []logs.InputLogEvent{}},
			"InvalidParameterException",
			"1 validation error detected: Value '[]' at 'logEvents' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"required in a list's structure", "cloudwatchlogs", "PutLogEvents",
			&cloudwatchlogs.PutLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), LogEvents: []logs.InputLogEvent{{Message: aws.String("m")}}},
			"InvalidParameterException",
			"1 validation error detected: Value null at 'logEvents.1.member.timestamp' failed to satisfy constraint: Member must not be null"},
		{"log stream name", "cloudwatchlogs", "CreateLogStream",
			&cloudwatchlogs.CreateLogStreamInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("a:b")}, "InvalidParameterException",
			"1 validation error detected: Value 'a:b' at 'logStreamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [^:*]*"},
		{"ecr pattern", "ecr", "CreateRepository", &ecr.CreateRepositoryInput{RepositoryName: aws.String("Users")}, "InvalidParameterException",
			`Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression '(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*''`},
		{"ecr length", "ecr", "CreateRepository", &ecr.CreateRepositoryInput{RepositoryName: aws.String("a")}, "InvalidParameterException",
			"Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must have length greater than or equal to 2'"},
		{"ecr list of strings", "ecr", "GetAuthorizationToken", &ecr.GetAuthorizationTokenInput{RegistryIds: []string{"12345"}}, "InvalidParameterException",
			"Invalid parameter at 'registryIds' failed to satisfy constraint: 'Member must satisfy constraint: [Member must satisfy regular expression pattern: [0-9]{12}]'"},
		{"ecr good", "ecr", "CreateRepository", &ecr.CreateRepositoryInput{RepositoryName: aws.String("team/users.api_v1-x")}, "", ""},
		{"ecs enum", "ecs", "RunTask", &ecs.RunTaskInput{TaskDefinition: aws.String("t"), LaunchType: "MOON"}, "InvalidParameterException",
			"1 validation error detected: Value 'MOON' at 'launchType' failed to satisfy constraint: Member must satisfy enum value set: [EC2, FARGATE, EXTERNAL, MANAGED_INSTANCES]"},
		{"ecs required", "ecs", "RegisterTaskDefinition", &ecs.RegisterTaskDefinitionInput{Family: aws.String("f")}, "InvalidParameterException",
			"1 validation error detected: Value null at 'containerDefinitions' failed to satisfy constraint: Member must not be null"},
		{"ecs tag map key", "ecs", "TagResource", &ecs.TagResourceInput{ResourceArn: aws.String("a"), Tags: []ecstypes.Tag{{Key: aws.String("a!b")}}}, "InvalidParameterException",
			`1 validation error detected: Value 'a!b' at 'tags.1.member.key' failed to satisfy constraint: Member must satisfy regular expression pattern: ^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$`},
		{"elb required", "elasticloadbalancingv2", "CreateLoadBalancer", &elasticloadbalancingv2.CreateLoadBalancerInput{}, "ValidationError",
			"1 validation error detected: Value null at 'name' failed to satisfy constraint: Member must not be null"},
		{"elb range", "elasticloadbalancingv2", "CreateTargetGroup",
			&elasticloadbalancingv2.CreateTargetGroupInput{Name: aws.String("n"), Port: aws.Int32(70000)}, "ValidationError",
			"1 validation error detected: Value '70000' at 'port' failed to satisfy constraint: Member must have value less than or equal to 65535"},
		{"elb enum", "elasticloadbalancingv2", "CreateTargetGroup",
			&elasticloadbalancingv2.CreateTargetGroupInput{Name: aws.String("n"), Protocol: elb.ProtocolEnum("SCTP")}, "ValidationError",
			"1 validation error detected: Value 'SCTP' at 'protocol' failed to satisfy constraint: Member must satisfy enum value set: [HTTP, HTTPS, TCP, TLS, UDP, TCP_UDP, GENEVE, QUIC, TCP_QUIC]"},
		{"cloud map", "servicediscovery", "CreatePrivateDnsNamespace",
			&servicediscovery.CreatePrivateDnsNamespaceInput{Name: aws.String("x"), Vpc: aws.String("v"), CreatorRequestId: aws.String(strings.Repeat("r", 65))}, "InvalidInput",
			"1 validation error detected: Value '" + strings.Repeat("r", 65) + "' at 'creatorRequestId' failed to satisfy constraint: Member must have length less than or equal to 64"},
		{"cloud map name of one dot", "servicediscovery", "CreateService", &servicediscovery.CreateServiceInput{Name: aws.String("a..b"), DnsConfig: &sd.DnsConfig{DnsRecords: []sd.DnsRecord{}}}, "InvalidInput", "…"},
		{"application auto scaling", "applicationautoscaling", "DescribeScalableTargets",
			&applicationautoscaling.DescribeScalableTargetsInput{ServiceNamespace: aas.ServiceNamespace("moon")}, "ValidationException", "…"},
		{"ec2 missing", "ec2", "CreateSubnet", &ec2.CreateSubnetInput{}, "MissingParameter", "The request must contain the parameter vpcId"},
		{"ec2 range", "ec2", "DescribeVpcs", &ec2.DescribeVpcsInput{MaxResults: aws.Int32(3)}, "InvalidParameterValue",
			"Value ( 3 ) for parameter maxResults is invalid. Expecting a value greater than or equal to 5."},
		{"nothing to check", "sts", "GetCallerIdentity", mustBind(t, "sts", "GetCallerIdentity").New(), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := mustBind(t, c.service, c.op).Validate(c.in)
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			e, ok := awserr.As(err)
			if !ok {
				t.Fatalf("got %v, want %s", err, c.code)
			}
			if e.Code != c.code || e.Status != 400 || c.message != "…" && e.Message != c.message {
				t.Errorf("got %s (%d)\n%s\nwant %s\n%s", e.Code, e.Status, e.Message, c.code, c.message)
			}
		})
	}
}

// TestValidationIsBounded: a request with very many faults costs and answers little.
func TestValidationIsBounded(t *testing.T) {
	in := &cloudwatchlogs.PutLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), LogEvents: make([]logs.InputLogEvent, 5000)}
	err := mustBind(t, "cloudwatchlogs", "PutLogEvents").Validate(in)
	if err == nil || len(err.Error()) > 4096 {
		t.Errorf("got %.100v", err)
	}
}
