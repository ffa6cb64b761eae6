// Package arn parses and renders Amazon Resource Names.
package arn

import (
	"fmt"
	"strings"
)

// ARN is arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE. Resource may itself contain colons and slashes.
type ARN struct {
	Partition, Service, Region, Account, Resource string
}

// New makes an ARN of the partition "aws".
func New(service, region, account, resource string) ARN {
	return ARN{"aws", service, region, account, resource}
}

func (a ARN) String() string {
	return "arn:" + a.Partition + ":" + a.Service + ":" + a.Region + ":" + a.Account + ":" + a.Resource
}

// Is says whether s looks like an ARN at all; Parse may still refuse it.
func Is(s string) bool { return strings.HasPrefix(s, "arn:") }

// Parse splits s. It checks the shape only, not that the parts are known.
func Parse(s string) (ARN, error) {
	var p [6]string
	rest, n := s, 0
	for ; n < len(p)-1; n++ {
		var ok bool
		if p[n], rest, ok = strings.Cut(rest, ":"); !ok {
			break
		}
	}
	if p[5] = rest; n < len(p)-1 || p[0] != "arn" || p[1] == "" || p[2] == "" || p[5] == "" {
		return ARN{}, fmt.Errorf("%q is not an ARN (arn:partition:service:region:account:resource)", s)
	}
	return ARN{p[1], p[2], p[3], p[4], p[5]}, nil
}

// Type is the resource's kind: what stands before its first slash or colon ("task" in task/default/0123).
func (a ARN) Type() string {
	if i := strings.IndexAny(a.Resource, "/:"); i >= 0 {
		return a.Resource[:i]
	}
	return a.Resource
}

// Rest is what follows the type ("default/0123" in task/default/0123); empty when there is no separator.
func (a ARN) Rest() string {
	if i := strings.IndexAny(a.Resource, "/:"); i >= 0 {
		return a.Resource[i+1:]
	}
	return ""
}
