package ec2

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// filters are the documented filters of one kind of resource: what values a resource has under each name. A nil function
// is a filter that AWS knows and that nothing here can match.
type filters[T any] map[string]func(T) []string

// maxFilterValues is AWS's limit, over all filters of a request.
const maxFilterValues = 200

// compile checks asked and returns the predicate "every filter has a value that matches".
func (f filters[T]) compile(asked []types.Filter) (func(T) bool, error) {
	values := 0
	for _, a := range asked {
		name := str(a.Name)
		if _, known := f[name]; !known && !strings.HasPrefix(name, "tag:") {
			return nil, awserr.New("InvalidParameterValue", "The filter '%s' is invalid", name)
		}
		if values += len(a.Values); values > maxFilterValues {
			return nil, awserr.New("FilterLimitExceeded", "The maximum number of filter values specified on a single call is %d", maxFilterValues)
		}
	}
	return func(v T) bool {
		return !slices.ContainsFunc(asked, func(a types.Filter) bool { return !f.matches(v, a) })
	}, nil
}

func (f filters[T]) matches(v T, a types.Filter) bool {
	of := f[str(a.Name)]
	if key, is := strings.CutPrefix(str(a.Name), "tag:"); is {
		of = f.tag(key)
	}
	if of == nil {
		return false // a tag, or a thing that no resource here has
	}
	return slices.ContainsFunc(of(v), func(have string) bool {
		return slices.ContainsFunc(a.Values, func(pattern string) bool { return wildcard(pattern, have) })
	})
}

// anyTag is where the filters of what can be tagged have all tags, each as key, zero byte, value.
const anyTag = "tag:"

// tag is the filter on one tag's value.
func (f filters[T]) tag(key string) func(T) []string {
	return func(v T) (values []string) {
		if all := f[anyTag]; all != nil {
			for _, t := range all(v) {
				if value, is := strings.CutPrefix(t, key+"\x00"); is {
					values = append(values, value)
				}
			}
		}
		return values
	}
}

// with is f and more under one roof.
func (f filters[T]) with(more filters[T]) filters[T] {
	all := maps.Clone(f)
	maps.Copy(all, more)
	return all
}

// wildcard matches s against pattern: * is any run of characters, ? is one, a backslash takes the next one literally.
// Filter values are case-sensitive.
func wildcard(pattern, s string) bool {
	// star is where the last * stands and from where in s it was tried; on a mismatch it swallows one character more.
	// So the time is at most len(pattern)*len(s).
	star, tried := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, tried = p, i
			p++
			continue
		case p < len(pattern) && pattern[p] == '?':
			p, i = p+1, i+1
			continue
		case p+1 < len(pattern) && pattern[p] == '\\' && pattern[p+1] == s[i]:
			p, i = p+2, i+1
			continue
		case p < len(pattern) && pattern[p] != '\\' && pattern[p] == s[i]:
			p, i = p+1, i+1
			continue
		}
		if star < 0 {
			return false
		}
		tried++
		p, i = star+1, tried
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func one[T any](f func(T) *string) func(T) []string {
	return func(v T) []string { return []string{str(f(v))} }
}

func flag[T any](f func(T) *bool) func(T) []string {
	return func(v T) []string { b := f(v); return []string{strconv.FormatBool(b != nil && *b)} }
}

func str(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
