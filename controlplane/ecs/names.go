package ecs

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Names of clusters, families, services and containers: "Up to 255 letters (uppercase and lowercase), numbers,
// underscores, and hyphens are allowed."
var validName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// clusterName is what a request means by its cluster member: a name, an ARN, or nothing for "default".
func clusterName(scope controlplane.Scope, ref *string) (string, error) {
	name := aws.ToString(ref)
	if name == "" {
		return "default", nil
	}
	if !arn.Is(name) {
		return name, nil
	}
	a, err := parseARN(scope, name, "cluster")
	if err != nil {
		return "", err
	}
	return a.Rest(), nil
}

// cluster finds the cluster that a request works in.
func cluster(r state.Reader, scope controlplane.Scope, ref *string) (*controlplane.Cluster, error) {
	name, err := clusterName(scope, ref)
	if err != nil {
		return nil, err
	}
	c, ok := controlplane.Clusters.Get(r, scope.Key(name))
	switch {
	case !ok:
		return nil, awserr.New("ClusterNotFoundException", "Cluster not found.")
	case c.Status != active:
		return nil, awserr.New("ClusterNotFoundException", "The referenced cluster was inactive.")
	}
	return c, nil
}

// member is the name of a resource within a cluster: ref is the name itself or an ARN, in the long form (kind/cluster/name) or the
// old short one (kind/name).
func member(scope controlplane.Scope, kind, cluster, ref string) (string, error) {
	if !arn.Is(ref) {
		// cluster/name is how an ARN's resource is often abbreviated.
		if of, name, ok := strings.Cut(ref, "/"); ok && of == cluster {
			return name, nil
		}
		return ref, nil
	}
	a, err := parseARN(scope, ref, kind)
	if err != nil {
		return "", err
	}
	of, name, long := strings.Cut(a.Rest(), "/")
	if !long {
		return of, nil
	}
	if of != cluster {
		return "", invalid("Invalid identifier: Identifier is for cluster %s. Your cluster is %s", of, cluster)
	}
	return name, nil
}

func parseARN(scope controlplane.Scope, ref, kind string) (arn.ARN, error) {
	a, err := arn.Parse(ref)
	switch {
	case err != nil || !canonical(a) || a.Type() != kind || a.Rest() == "":
		return arn.ARN{}, invalid("Invalid identifier: %s is not the ARN of a %s", ref, kind)
	case a.Account != scope.Account:
		return arn.ARN{}, invalid("Invalid identifier: Identifier is for account %s. Your accountId is %s", a.Account, scope.Account)
	case a.Region != scope.Region:
		return arn.ARN{}, invalid("Invalid identifier: Identifier is for region %s. Your region is %s", a.Region, scope.Region)
	}
	return a, nil
}

// canonical says whether a is spelled as ECS spells its own. A policy is held against ARNs as requests spell them, so another
// spelling of the same thing would get past it.
func canonical(a arn.ARN) bool {
	return a.Partition == "aws" && a.Service == "ecs" && strings.HasPrefix(a.Resource, a.Type()+"/")
}

// taskDefinition finds what "family", "family:revision" or an ARN means; a family alone means its newest ACTIVE revision.
func taskDefinition(r state.Reader, scope controlplane.Scope, ref string) (*controlplane.TaskDefinition, bool, error) {
	if arn.Is(ref) {
		a, err := parseARN(scope, ref, "task-definition")
		if err != nil {
			return nil, false, err
		}
		ref = a.Rest()
	}
	family, number, numbered := strings.Cut(ref, ":")
	if numbered {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return nil, false, awserr.New("ClientException", "Invalid revision number. Number: %s", number)
		}
		d, ok := controlplane.TaskDefinitions.Get(r, scope.TaskDefinitionKey(family, uint32(n)))
		return d, ok, nil
	}
	var newest *controlplane.TaskDefinition
	for d := range controlplane.TaskDefinitions.Scan(r, scope.Key(family)) {
		if d.Status == active {
			newest = d
		}
	}
	return newest, newest != nil, nil
}

// runnable finds a task definition from which tasks may be started. An inactive one gets another code from RunTask than from
// services (inactiveCode).
func runnable(r state.Reader, scope controlplane.Scope, ref *string, inactiveCode string) (*controlplane.TaskDefinition, error) {
	if aws.ToString(ref) == "" {
		return nil, invalid("TaskDefinition can not be blank.")
	}
	d, ok, err := taskDefinition(r, scope, *ref)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, awserr.New("ClientException", "TaskDefinition not found.")
	case d.Status != active:
		return nil, awserr.New(inactiveCode, "TaskDefinition is inactive")
	}
	return d, nil
}
