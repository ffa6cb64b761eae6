package controlplane

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// What AWS allows on one resource; "Tag restrictions" in every service's guide.
const (
	maxTags     = 50
	maxTagKey   = 128 // characters
	maxTagValue = 256 // characters
)

// Tag is one pair as a request gave it, before it is known to be valid.
type Tag struct{ Key, Value string }

// TagCodes are the error codes with which a service answers tags that cannot be.
type TagCodes struct {
	TooMany   string
	Duplicate string
	Invalid   string
}

// TagSet checks tags given in a request and makes a set of them.
func TagSet(tags []Tag, codes TagCodes) (map[string]string, error) {
	if len(tags) > maxTags {
		return nil, tooManyTags(codes)
	}
	set := make(map[string]string, len(tags))
	for _, t := range tags {
		switch {
		case t.Key == "":
			return nil, awserr.New(codes.Invalid, "Tag key can not be empty.")
		case utf8.RuneCountInString(t.Key) > maxTagKey:
			return nil, awserr.New(codes.Invalid, "Tag key '%s' exceeds the maximum length of %d.", t.Key, maxTagKey)
		case utf8.RuneCountInString(t.Value) > maxTagValue:
			return nil, awserr.New(codes.Invalid, "Tag value of key '%s' exceeds the maximum length of %d.", t.Key, maxTagValue)
		case strings.HasPrefix(strings.ToLower(t.Key), "aws:"):
			return nil, awserr.New(codes.Invalid, "Tag key '%s' can not start with 'aws:': the prefix is reserved.", t.Key)
		}
		if _, twice := set[t.Key]; twice {
			return nil, awserr.New(codes.Duplicate, "Duplicate tag keys found. Please note that Tag keys are case insensitive. Key: %s", t.Key)
		}
		set[t.Key] = t.Value
	}
	return set, nil
}

// TagsOf is the resource's tags; nil without any. The map is shared: it must not be changed.
func TagsOf(r state.Reader, scope Scope, arn string) map[string]string {
	t, _ := ResourceTags.Get(r, scope.Key(arn))
	return t.GetTags()
}

// PutTags replaces all tags of the resource; none removes the record.
func PutTags(tx *state.Tx, scope Scope, arn string, tags map[string]string) {
	if len(tags) > 0 {
		ResourceTags.Put(tx, &Tags{Account: scope.Account, Region: scope.Region, Arn: arn, Tags: maps.Clone(tags)})
		return
	}
	if _, ok := ResourceTags.Get(tx, scope.Key(arn)); ok {
		ResourceTags.Delete(tx, scope.Key(arn))
	}
}

// AddTags adds to what the resource has, replacing the values of keys that are there.
func AddTags(tx *state.Tx, scope Scope, arn string, tags map[string]string, codes TagCodes) error {
	all := maps.Clone(TagsOf(tx, scope, arn))
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, tags)
	if len(all) > maxTags {
		return tooManyTags(codes)
	}
	PutTags(tx, scope, arn, all)
	return nil
}

// RemoveTags removes the keys that are there and ignores the others.
func RemoveTags(tx *state.Tx, scope Scope, arn string, keys []string) {
	all := maps.Clone(TagsOf(tx, scope, arn))
	for _, k := range keys {
		delete(all, k)
	}
	PutTags(tx, scope, arn, all)
}

// SortedTags lists a set in the order of its keys.
func SortedTags(tags map[string]string) []Tag {
	list := make([]Tag, 0, len(tags))
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, Tag{k, tags[k]})
	}
	return list
}

func tooManyTags(codes TagCodes) error {
	return awserr.New(codes.TooMany, "Tags can not be more than %d.", maxTags)
}
