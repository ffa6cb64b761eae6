package iam

import (
	"errors"

	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// The family's errors, in IAM's words. Their status is the model's: 404, 409, 400.

func noSuch(k kind, name string) error {
	return awserr.New("NoSuchEntity", "The %s with name %s cannot be found.", k, name)
}

func noSuchPolicy(arn string) error {
	return awserr.New("NoSuchEntity", "Policy %s was not found.", arn)
}

func notAttachable(arn string) error {
	return awserr.New("NoSuchEntity", "Policy %s does not exist or is not attachable.", arn)
}

func exists(what, name string) error {
	return awserr.New("EntityAlreadyExists", "%s with name %s already exists.", what, name)
}

func conflict(what string) error {
	return awserr.New("DeleteConflict", "Cannot delete entity, must %s first.", what)
}

func exceeded(quota string, n int) error {
	return awserr.New("LimitExceeded", "Cannot exceed quota for %s: %d", quota, n)
}

func invalid(format string, args ...any) error { return awserr.New("InvalidInput", format, args...) }

func validation(format string, args ...any) error {
	return awserr.WithStatus(400, "ValidationError", format, args...)
}

// malformed is why a document is none.
func malformed(err error) error {
	var p *policy.Error
	if errors.As(err, &p) {
		return awserr.New("MalformedPolicyDocument", "%s", p.Message)
	}
	return err
}

var tagCodes = controlplane.TagCodes{TooMany: "LimitExceeded", Duplicate: "InvalidInput", Invalid: "InvalidInput"}

// Quotas: "IAM and AWS STS quotas" of the IAM User Guide, at their defaults. Sizes are in characters without white space.
const (
	maxUsers        = 5000
	maxGroups       = 300
	maxRoles        = 1000
	maxPolicies     = 1500
	maxProfiles     = 1000
	maxGroupsOfUser = 10
	maxAttached     = 10 // managed policies of a user, group or role
	maxKeysOfUser   = 2
	maxVersions     = 5
	maxTrustSize    = 2048
	maxManagedSize  = 6144
	defaultSession  = 3600
)

// maxInlineSize is for all inline policies of one together.
var maxInlineSize = map[kind]int{user: 2048, group: 5120, role: 10240}

// titles begin sentences.
var titles = map[kind]string{user: "User", group: "Group", role: "Role"}
