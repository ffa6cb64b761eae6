package auth

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// keyring answers the condition keys of one call on one resource, when a policy asks for them: "AWS global condition context
// keys" of the IAM User Guide, and what the operation table has of the service's own.
type keyring struct {
	iam      *IAM
	call     *api.Call
	access   *api.Access
	resource string // at hand
}

func (k *keyring) value(key string) ([]string, bool) {
	prefix, name, _ := strings.Cut(key, ":")
	if prefix == "aws" {
		return k.global(name)
	}
	if k.access.Key != nil {
		if v, ok := k.access.Key(key); ok {
			return v, true
		}
	}
	// ecs:ResourceTag/team is another name for aws:ResourceTag/team on actions of ECS.
	if tag, ok := strings.CutPrefix(name, "resourcetag/"); ok && strings.HasPrefix(k.access.Action, prefix+":") {
		return k.resourceTag(tag)
	}
	return nil, false
}

func (k *keyring) global(name string) ([]string, bool) {
	c := k.call
	if kind, tag, ok := strings.Cut(name, "/"); ok {
		switch kind {
		case "principaltag":
			return k.principalTag(tag)
		case "resourcetag":
			return k.resourceTag(tag)
		case "requesttag":
			return tagged(api.RequestTags(k.access.Input), tag)
		}
		return nil, false
	}
	switch name {
	case "currenttime":
		return only(c.Time.UTC().Format(time.RFC3339))
	case "epochtime":
		return only(strconv.FormatInt(c.Time.Unix(), 10))
	case "sourceip", "securetransport", "useragent":
		return k.transport(name)
	case "requestedregion":
		return only(c.Region)
	case "principalarn":
		if c.Session != nil && c.Session.Role != "" {
			return only(c.Session.Role)
		}
		return only(c.ARN)
	case "principalaccount":
		return only(c.Account)
	case "principaltype":
		switch {
		case c.Root:
			return only("Account")
		case c.Session != nil && c.Session.Role != "":
			return only("AssumedRole")
		}
		return only("User")
	case "principalisawsservice", "viaawsservice":
		return only("false")
	case "userid":
		return only(c.UserID)
	case "username":
		_, user, ok := strings.Cut(c.ARN, ":user/")
		return []string{user[strings.LastIndexByte(user, '/')+1:]}, ok
	case "resourceaccount":
		account := accountOf(k.resource)
		return []string{account}, account != ""
	case "tagkeys":
		return tagKeys(k.access.Input)
	}
	if c.Session == nil {
		return nil, false
	}
	switch name {
	case "tokenissuetime":
		return only(c.Session.Issued.UTC().Format(time.RFC3339))
	case "multifactorauthpresent":
		return only("false")
	case "sourceidentity":
		return []string{c.Session.SourceIdentity}, c.Session.SourceIdentity != ""
	}
	return nil, false
}

// transport answers what a request shows by how it comes.
func (k *keyring) transport(name string) ([]string, bool) {
	c := k.call
	switch {
	case c.Unsent != nil:
		*c.Unsent = true
		return nil, false
	case name == "sourceip":
		return []string{c.SourceIP.String()}, c.SourceIP.IsValid()
	case name == "securetransport":
		return only(strconv.FormatBool(c.Secure))
	}
	return []string{c.UserAgent}, c.UserAgent != ""
}

func only(v string) ([]string, bool) { return []string{v}, true }

// principalTag prefers the session's tags to the role's.
func (k *keyring) principalTag(tag string) ([]string, bool) {
	if s := k.call.Session; s != nil {
		if v, ok := tagged(s.Tags, tag); ok {
			return v, true
		}
	}
	return tagged(k.iam.Principals.Tags(&k.call.Identity), tag)
}

func (k *keyring) resourceTag(tag string) ([]string, bool) {
	if k.iam.Tags == nil || !arn.Is(k.resource) {
		return nil, false
	}
	return tagged(k.iam.Tags(k.resource), tag)
}

// tagged finds a tag. Condition keys have no case, so neither has the tag's.
func tagged(tags map[string]string, key string) ([]string, bool) {
	for k, v := range tags {
		if strings.EqualFold(k, key) {
			return []string{v}, true
		}
	}
	return nil, false
}

// tagKeys are the keys of the tags that a request brings or takes away.
func tagKeys(in any) ([]string, bool) {
	if keys, ok := api.TagKeys(in); ok {
		return keys, len(keys) > 0
	}
	keys := slices.Sorted(maps.Keys(api.RequestTags(in)))
	return keys, len(keys) > 0
}
