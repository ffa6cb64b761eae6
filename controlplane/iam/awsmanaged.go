package iam

import (
	"crypto/sha256"
	"embed"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// AWS's own managed policies that deployments of containers attach, word for word in awsmanaged/. They are the ones whose text
// could be checked against public archives of GetPolicyVersion (github.com/zoph-io/IAMTrail and MAMIP, iann0036/iam-dataset);
// the "AWS Managed Policy Reference Guide" describes them. There is only the default version of each.
//
//go:embed awsmanaged/*.json
var awsDocuments embed.FS

// awsManaged are they, by ARN. Their ids are ours: digests of their names.
var awsManaged = func() map[string]*ManagedPolicy {
	all := map[string]*ManagedPolicy{}
	for _, p := range []struct{ path, name, version, created string }{
		{"/", "AdministratorAccess", "1", "2015-02-06T18:39:46Z"},
		{"/", "AmazonEC2ContainerRegistryPowerUser", "3", "2019-12-10T20:48:08Z"},
		{"/", "AmazonEC2ContainerRegistryPullOnly", "1", "2024-10-04T16:58:49Z"},
		{"/", "AmazonEC2ContainerRegistryReadOnly", "3", "2019-12-10T20:56:32Z"},
		{"/service-role/", "AmazonEC2ContainerServiceforEC2Role", "10", "2026-02-12T17:59:52Z"},
		{"/service-role/", "AmazonECSTaskExecutionRolePolicy", "1", "2017-11-16T18:48:22Z"},
		{"/", "AmazonECS_FullAccess", "20", "2023-01-04T16:26:05Z"},
		{"/", "CloudWatchLogsFullAccess", "8", "2026-02-12T18:00:33Z"},
		{"/", "CloudWatchLogsReadOnlyAccess", "12", "2026-02-12T17:59:13Z"},
		{"/", "ElasticLoadBalancingReadOnly", "3", "2023-11-26T18:15:46Z"},
		{"/", "IAMReadOnlyAccess", "4", "2018-01-25T19:11:27Z"},
		{"/", "PowerUserAccess", "12", "2026-02-12T17:59:14Z"},
	} {
		text, err := awsDocuments.ReadFile("awsmanaged/" + p.name + ".json")
		if err != nil {
			panic(err) // embedded; a test reads them all
		}
		number, _ := strconv.ParseUint(p.version, 10, 32)
		at, _ := time.Parse(time.RFC3339, p.created)
		sum := sha256.Sum256([]byte(p.name))
		m := &ManagedPolicy{Account: "aws", Path: p.path, Name: p.name, Id: prefixPolicy + encoding.EncodeToString(sum[:])[:17],
			Created: timestamppb.New(at), Updated: timestamppb.New(at), DefaultVersion: uint32(number), LastVersion: uint32(number),
			Versions: []*PolicyVersion{{Number: uint32(number), Document: strings.TrimSpace(string(text)), Created: timestamppb.New(at)}}}
		all[m.ARN()] = m
	}
	return all
}()
