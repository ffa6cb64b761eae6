package ecs

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Statuses of clusters, task definitions, services, deployments and container instances.
const (
	active   = "ACTIVE"
	draining = "DRAINING"
	inactive = "INACTIVE"
	primary  = "PRIMARY"
)

func invalid(format string, args ...any) error {
	return awserr.New("InvalidParameterException", format, args...)
}

func client(format string, args ...any) error { return awserr.New("ClientException", format, args...) }

// missing is the entry of a describe's failures for what is not there.
func missing(arn string) types.Failure {
	return types.Failure{Arn: aws.String(arn), Reason: aws.String("MISSING")}
}

var tagCodes = controlplane.TagCodes{
	TooMany: "InvalidParameterException", Duplicate: "InvalidParameterException", Invalid: "InvalidParameterException",
}

func tagSet(tags []types.Tag) (map[string]string, error) {
	list := make([]controlplane.Tag, len(tags))
	for i, t := range tags {
		list[i] = controlplane.Tag{Key: aws.ToString(t.Key), Value: aws.ToString(t.Value)}
	}
	return controlplane.TagSet(list, tagCodes)
}

func tagList(tags map[string]string) []types.Tag {
	list := make([]types.Tag, 0, len(tags))
	for _, t := range controlplane.SortedTags(tags) {
		list = append(list, types.Tag{Key: aws.String(t.Key), Value: aws.String(t.Value)})
	}
	return list
}
